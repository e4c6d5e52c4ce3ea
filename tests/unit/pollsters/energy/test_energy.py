"""Energy of a host and its domains: what is divided adds up, whatever happens between two polls."""

from __future__ import annotations

import os
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from meter.counter_runs import run_of
from meter.interfaces import Disabled
from meter.interfaces import Domain
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.interfaces import IHypervisor
from meter.interfaces import Unavailable
from meter.pollsters.energy import energy
from meter.pollsters.energy.options import EnergyOptions
from meter.pollsters.energy.pollster import EnergyPollster
from meter.pollsters.energy.rapl import EnergyUnreadable
from meter.pollsters.energy.rapl import energy_zones
from meter.pollsters.energy.shares import HOST
from meter.pollsters.energy.shares import Interval
from meter.pollsters.energy.shares import shares
from meter.sample import Sample
from meter.settings import ComputeSection
from meter.testing import FakeCycle
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
XML = "<domain><name>n</name></domain>"
TICKS = os.sysconf("SC_CLK_TCK")
RANGE_UJ = 262_143_328_850


class ComputeConfig:
    """A configuration with ``[compute]`` only."""

    compute = ComputeSection(host="hv1")


class EnergyHost:
    """A host with two packages with memory, whose counters and processors are set by tests."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.powercap = directory / "powercap"
        self.clock = Clock()
        self.clock.advance(NOON.timestamp())
        self.hypervisor = FakeHypervisor(uri="qemu:///system")
        for zone, name in {
            "intel-rapl:0": "package-0",
            "intel-rapl:0:0": "core",
            "intel-rapl:0:1": "dram",
            "intel-rapl:1": "package-1",
            "intel-rapl:2": "psys",
        }.items():
            (self.powercap / zone).mkdir(parents=True)
            self.write(zone, name=name, max_energy_range_uj=RANGE_UJ, energy_uj=1_000_000_000)
        self.counters = {"intel-rapl:0": 10**9, "intel-rapl:0:1": 10**9, "intel-rapl:1": 10**9}
        self.busy, self.idle = 1000, 9000
        self.pollster = EnergyPollster(EnergyOptions(**options), powercap=self.powercap, proc_stat=directory / "stat")
        self._stat = directory / "stat"
        self.context = FakePluginContext({IHypervisor: self.hypervisor}, clock=self.clock, config=ComputeConfig())

    def write(self, zone: str, **files: Any) -> None:
        for name, content in files.items():
            (self.powercap / zone / name).write_text(f"{content}\n")

    def use(self, joules: float, *, zone: str = "intel-rapl:0", busy: int = 0, idle: int = 0) -> None:
        """Let the counter of ``zone`` grow, and the processors work and rest, in ticks."""
        self.counters[zone] = (self.counters[zone] + round(joules * 10**6)) % RANGE_UJ
        self.busy, self.idle = self.busy + busy, self.idle + idle

    async def poll(self, seconds: float = 300, **cpu_seconds: float) -> dict[tuple[str, str], Sample]:
        """Poll domains with these CPU times; return the last sample by meter and resource."""
        return {(each.name, each.resource_id): each for each in await self.samples(seconds, **cpu_seconds)}

    async def samples(self, seconds: float = 300, **cpu_seconds: float) -> list[Sample]:
        self.clock.advance(seconds)
        at = datetime.fromtimestamp(self.clock.seconds(), UTC)
        self.hypervisor.running = [
            Domain(
                uuid=name,
                name=name,
                xml=XML,
                stats={"state.state": 1, "state.reason": 1, "cpu.time": round(each * 10**9), "vcpu.current": 2},
                run=1,
                read_at=at,
            )
            for name, each in cpu_seconds.items()
        ]
        for zone, counter in self.counters.items():
            self.write(zone, energy_uj=counter)
        self._stat.write_text(f"cpu  {self.busy} 0 0 {self.idle} 0 0 0 0 0 0\ncpu0 1 2 3\n")
        return list(await self.pollster.poll(FakeCycle(context=self.context)))


def total(samples: dict[tuple[str, str], Sample], meter: str) -> float:
    return sum(each.volume for (name, _), each in samples.items() if name == meter)


names = st.sampled_from("abcdef")


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**12),
    st.integers(1, 512),
    st.dictionaries(names, st.integers(0, 10**12)),
    st.dictionaries(names, st.fractions(0, 64)),
    st.booleans(),
)
def test_parts_are_never_negative_and_add_up_to_the_whole(
    whole: int,
    busy: int,
    idle: int,
    busy_ns: int,
    processors: int,
    cpu_ns: dict[str, int],
    vcpus: dict[str, Fraction],
    share_idle: bool,
) -> None:
    interval = Interval(busy, busy + idle, busy_ns, processors, cpu_ns, vcpus)
    found = shares(whole, interval, share_idle=share_idle)
    assert sum(found.values()) == whole
    assert min(found.values()) >= 0
    assert set(found) >= {HOST, *cpu_ns}


def test_parts_follow_cpu_time_and_virtual_processors() -> None:
    interval = Interval(25, 100, 1000, 16, {"a": 300, "b": 100}, {"a": Fraction(4), "b": Fraction(8)})
    # 400 active: 300 and 100 of 1000; 1200 idle: 4 and 8 of 16.
    assert shares(1600, interval, share_idle=True) == {"a": 120 + 300, "b": 40 + 600, HOST: 240 + 300}
    assert shares(1600, interval, share_idle=False) == {"a": 120, "b": 40, HOST: 1440}


@pytest_twisted.ensureDeferred
async def test_sums_of_domains_and_host_are_the_energy_of_the_zones(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path)
    first = await host.poll(a=5.0, b=50.0)
    assert {each.volume for each in first.values()} == {0}
    host.use(3000.7, busy=60 * TICKS, idle=540 * TICKS)
    host.use(999.9, zone="intel-rapl:0:1")
    host.use(1234.5, zone="intel-rapl:1")
    second = await host.poll(a=35.0, b=50.0)
    assert second["host.energy", "hv1/package-0"].volume == 3000
    assert second["host.energy", "hv1/package-0/dram"].volume == 999
    assert second["host.energy", "hv1/package-1"].volume == 1234
    assert total(second, "energy") + total(second, "host.energy.own") == 3000 + 999 + 1234
    # Half of the time that the processors worked, a tenth of all, was that of a.
    shared_idle = (second["energy", "a"].volume - 5233 * 0.05, second["energy", "b"].volume)
    assert shared_idle[0] == pytest.approx(shared_idle[1], abs=1)
    host.use(1.0)  # the rests of less than a joule are kept
    third = await host.poll(a=36.0, b=50.0)
    assert third["host.energy", "hv1/package-0"].volume == 3001
    assert total(third, "energy") + total(third, "host.energy.own") == 3001 + 999 + 1234


@pytest_twisted.ensureDeferred
async def test_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path, idle="host")
    host.counters["intel-rapl:0"] = RANGE_UJ - 10_000_000
    await host.poll(seconds=60, a=0.0)
    host.use(25, busy=TICKS)
    found = await host.poll(seconds=60, a=1.0)
    assert host.counters["intel-rapl:0"] < RANGE_UJ // 2
    assert found["host.energy", "hv1/package-0"].volume == 25
    assert (found["energy", "a"].volume, found["host.energy.own", "hv1"].volume) == (25, 0)


@pytest_twisted.ensureDeferred
async def test_counter_that_may_have_begun_again_twice_begins_new_sums(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path)
    await host.poll(a=0.0)
    one = await host.poll(a=0.5)
    host.use(100, busy=TICKS)
    with capturedLogs() as logs:
        two = await host.poll(seconds=3600, a=1.0)
    assert [event["at"] for event in logs if "is not known" in event.get("log_format", "")] == [
        one["energy", "a"].timestamp
    ]
    assert {each.volume for each in two.values()} == {0}
    for key, each in two.items():
        assert run_of("cumulative", each.resource_metadata) != run_of("cumulative", one[key].resource_metadata)


@pytest_twisted.ensureDeferred
async def test_power_limit_of_a_zone_says_how_far_apart_polls_may_be(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path)
    for zone in ("intel-rapl:0", "intel-rapl:1"):
        host.write(zone, constraint_0_power_limit_uw=200_000_000)
    host.write("intel-rapl:0:1", constraint_0_power_limit_uw=50_000_000)
    await host.poll(a=0.0)
    host.use(100_000, busy=TICKS)
    assert total(await host.poll(seconds=900, a=1.0), "host.energy") == 100_000
    host.use(100_000, busy=TICKS)
    assert total(await host.poll(seconds=1300, a=1.0), "host.energy") == 0


@pytest_twisted.ensureDeferred
async def test_new_domain_begins_with_0_and_one_that_ended_leaves_its_rest_to_the_host(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path, idle="host")
    await host.poll(a=5.0)
    host.use(100, busy=10 * TICKS)
    samples = [each for each in await host.samples(a=6.0, b=4.0) if each.name == "energy" and each.resource_id == "b"]
    opening, now = samples
    assert opening.volume == 0
    assert now.timestamp - opening.timestamp <= timedelta(seconds=300)
    assert run_of("cumulative", opening.resource_metadata) == run_of("cumulative", now.resource_metadata)
    host.use(100, busy=10 * TICKS)
    left = await host.poll(a=16.0)
    assert ("energy", "b") not in left
    gone = now.volume
    assert left["energy", "a"].volume + left["host.energy.own", "hv1"].volume + gone == 200


@pytest_twisted.ensureDeferred
async def test_carbon_follows_energy_and_its_factors(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path, idle="host", carbon_g_per_kwh=400.0, pue=1.5)
    await host.poll(a=0.0)
    host.use(36_000, busy=TICKS)
    found = await host.poll(a=1.0)
    carbon = found["carbon", "a"]
    assert carbon.volume == pytest.approx(0.01 * 400 * 1.5)
    assert (carbon.resource_metadata["carbon_g_per_kwh"], carbon.resource_metadata["pue"]) == (400.0, 1.5)
    assert found["energy", "a"].resource_metadata["method"] == "rapl"
    assert ("carbon", "hv1") in found


@pytest_twisted.ensureDeferred
async def test_trial_changes_nothing(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path)
    await host.poll(a=0.0)
    host.use(100, busy=TICKS)
    await host.pollster.poll(FakeCycle(context=host.context, trial=True))
    assert total(await host.poll(a=1.0), "host.energy") == 100


@pytest_twisted.ensureDeferred
async def test_pollster_is_enabled_where_counters_can_be_read(tmp_path: Path) -> None:
    assert verifyObject(IComputePollster, energy)
    host = EnergyHost(tmp_path)
    assert await host.pollster.enabled(host.context) == Enabled()
    (host.powercap / "intel-rapl:0" / "energy_uj").unlink()
    disabled = await host.pollster.enabled(host.context)
    assert isinstance(disabled, Disabled)
    assert disabled.reason.endswith("energy_uj: No such file or directory")
    with pytest.raises(EnergyUnreadable, match="no counters of processors"):
        energy_zones(tmp_path / "nothing")
    host.hypervisor.uri = "qemu+ssh://other/system"
    assert isinstance(await host.pollster.enabled(host.context), Disabled)
    assert isinstance(await host.pollster.enabled(FakePluginContext()), Disabled)


@pytest_twisted.ensureDeferred
async def test_counter_that_cannot_be_read_makes_the_poll_fail(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path)
    await host.poll(a=0.0)
    host.write("intel-rapl:0", max_energy_range_uj="many")
    with pytest.raises(Unavailable, match="max_energy_range_uj: it is not a number"):
        await host.pollster.poll(FakeCycle(context=host.context))
