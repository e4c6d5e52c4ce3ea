"""Energy of the whole host: its parts add up to the increase of the BMC's counter, and nothing is shared that is not certain."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import Phase
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import ValidationError
from twisted.internet.defer import Deferred

from meter.counter_runs import run_of
from meter.interfaces import Enabled
from meter.interfaces import IHypervisor
from meter.interfaces import ISkippedSamples
from meter.pollsters.energy.ledger import DomainUse
from meter.pollsters.energy.ledger import EnergyLedger
from meter.pollsters.energy.ledger import EnergyPoll
from meter.pollsters.energy.options import EnergyOptions
from meter.pollsters.energy.own_bmc import BMC_SECONDS
from meter.pollsters.energy.pollster import EnergyPollster
from meter.pollsters.energy.rapl import CpuTimes
from meter.pollsters.energy.rapl import EnergyZone
from meter.pollsters.energy.shares import HOST
from meter.pollsters.energy.shares import proportional
from meter.pollsters.energy.wall import WallCounter
from meter.pollsters.energy.wall import WallLedger
from meter.pollsters.energy.wall import WallReading
from meter.pollsters.redfish.reading import LAYOUT_SECONDS
from meter.sample import Sample
from meter.testing import FakePluginContext
from tests.emulated_bmc import METRICS
from tests.emulated_bmc import SENSOR
from tests.emulated_bmc import rack_server
from tests.unit.pollsters.energy.test_energy import TICKS
from tests.unit.pollsters.energy.test_energy import ComputeConfig
from tests.unit.pollsters.energy.test_energy import EnergyHost
from tests.unit.pollsters.energy.test_energy import total
from tests.unit.pollsters.redfish.test_redfish import Network
from tests.unit.pollsters.redfish.test_redfish import TakenSkips

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


class MeasuredHost(EnergyHost):
    """A host with energy counters, and a BMC whose counter the tests set."""

    def __init__(self, directory: Path, **options: Any) -> None:
        (directory / "password").write_text("secret\n")
        account = {"url": "https://bmc1", "username": "meter", "password_file": str(directory / "password")}
        super().__init__(directory, bmc={**account, **options}, idle="host")
        for zone in self.counters:
            self.write(zone, constraint_0_power_limit_uw=30_000_000)  # polls may be two hours apart
        self.network = Network(self.clock)
        self.documents = self.network.bmcs["https://bmc1"] = rack_server()
        self.pollster = EnergyPollster(
            self.pollster.options,
            powercap=self.pollster.powercap,
            proc_stat=self.pollster.proc_stat,
            make_client=lambda *_: self.network,
        )
        self.skips = TakenSkips()
        providers = {IHypervisor: self.hypervisor, ISkippedSamples: self.skips}
        self.context = FakePluginContext(providers, clock=self.clock, config=ComputeConfig())

    def take(self, kwh: float) -> None:
        """Let the BMC count this energy."""
        self.documents[SENSOR]["Reading"] = round(self.documents[SENSOR]["Reading"] + kwh, 6)

    async def begin(self, **cpu_seconds: float) -> None:
        """Poll until the sums have begun."""
        await self.poll(**cpu_seconds)
        self.take(0.01)
        await self.poll(**cpu_seconds)


def wall(samples: dict[tuple[str, str], Sample]) -> float:
    return total(samples, "energy.wall") + total(samples, "host.energy.wall.own")


weights = st.dictionaries(st.sampled_from([*"abcdef", HOST]), st.integers(0, 10**9))


@given(st.integers(0, 10**12), weights)
def test_proportional_parts_add_up_to_the_whole(whole: int, parts: dict[str, int]) -> None:
    found = proportional(whole, parts)
    assert sum(found.values()) == whole
    assert min(found.values()) >= 0


ZONE = EnergyZone("package-0", Path("/nowhere"), 2**60, 1)

steps = st.lists(
    st.tuples(
        st.integers(0, 5_000),  # joules by RAPL
        st.dictionaries(st.sampled_from("abcd"), st.integers(0, 300), min_size=0),  # CPU seconds of domains
        st.fractions(0, 20_000, max_denominator=1000),  # joules by the BMC
        st.booleans(),  # whether the BMC answers
    ),
    max_size=30,
)


@settings(max_examples=50, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(steps)
def test_sums_that_ended_and_that_go_on_are_the_increase_of_the_counter(course: list[Any]) -> None:
    rapl_uj, busy, joules, minutes = 0, 0, Fraction(10**9), 0
    cpu, runs, present = dict.fromkeys("abcd", 0), dict.fromkeys("abcd", 0), set[str]()

    def poll(domains: dict[str, int]) -> EnergyPoll:
        uses = {name: DomainUse(str(runs[name]), cpu[name] * 10**9, 1, None) for name in domains}
        at = NOON + timedelta(minutes=minutes)
        return EnergyPoll(at, minutes * 60.0, {"package-0": rapl_uj}, CpuTimes(busy, busy), uses)

    def reading() -> WallReading:
        counters = {"1U": WallCounter("lifetime", joules)}
        return WallReading(NOON + timedelta(minutes=minutes), minutes * 60.0, counters)

    rapl = EnergyLedger([ZONE], 4, 100, poll({}))
    ledger = WallLedger(reading(), rapl, 1e9)
    ended: dict[tuple[str, str], int] = {}
    first_change: Fraction | None = None
    for use, domains, increase, answers in course:
        minutes, rapl_uj, busy, joules = minutes + 5, rapl_uj + use * 10**6, busy + 30_000, joules + increase
        for name, seconds in domains.items():
            cpu[name], runs[name] = cpu[name] + seconds, runs[name] + (name not in present)
        present = set(domains)
        assert rapl.take(poll(domains), share_idle=True)
        if answers:
            before = dict(ledger.domains_j)
            changed = joules != ledger.last.counters["1U"].joules
            ledger.take(reading(), rapl)
            for key in before.keys() - ledger.domains_j.keys():
                ended[key] = before[key]
            if changed and first_change is None:
                first_change = joules
            everything = sum(ledger.domains_j.values()) + ledger.host_j + sum(ended.values())
            assert everything == (0 if first_change is None else int(joules - first_change))
            assert min([*ledger.domains_j.values(), ledger.host_j]) >= 0


@pytest_twisted.ensureDeferred
async def test_energy_of_the_whole_host_is_shared_as_that_of_its_processors(tmp_path: Path) -> None:
    host = MeasuredHost(tmp_path)
    await host.begin(a=0.0, b=0.0)
    host.use(1000, busy=100 * TICKS)
    host.take(0.001)
    found = await host.poll(a=50.0, b=25.0)
    assert [found["energy", name].volume for name in "ab"] == [500, 250]
    assert [found["energy.wall", name].volume for name in "ab"] == [1800, 900]
    assert found["host.energy.wall.own", "hv1"].volume == 900
    for key in (("energy.wall", "a"), ("host.energy.wall.own", "hv1")):
        assert (found[key].type, found[key].unit) == ("cumulative", "J")
        assert found[key].resource_metadata["method"] == "rapl+redfish"
        assert found[key].resource_metadata["idle"] == "host"
    assert found["energy", "a"].resource_metadata["method"] == "rapl"


@pytest_twisted.ensureDeferred
async def test_sums_begin_with_a_change_of_the_counter_not_with_the_agent(tmp_path: Path) -> None:
    host = MeasuredHost(tmp_path)
    assert wall(await host.poll(a=0.0)) == 0
    host.use(100, busy=TICKS)
    assert ("energy.wall", "a") not in await host.poll(a=1.0)
    host.take(1.0)  # a tick of a coarse counter: most of it is of the time before the agent was started
    first = await host.poll(a=2.0)
    assert (first["energy.wall", "a"].volume, first["host.energy.wall.own", "hv1"].volume) == (0, 0)
    assert host.skips.skipped == [("starting", ("a", "hv1"))] * 2
    host.use(100, busy=TICKS)
    same = await host.poll(a=3.0)
    assert same["energy.wall", "a"].volume == 0, "the counter has not changed"
    host.use(100, busy=TICKS)
    host.take(1.0)
    assert (await host.poll(seconds=900, a=4.0))["energy.wall", "a"].volume == 3_600_000


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("away", [OSError("no route to host"), "hangs", 503, 401])
async def test_what_was_taken_while_the_bmc_was_away_is_shared_when_it_is_back(tmp_path: Path, away: Any) -> None:
    host = MeasuredHost(tmp_path)
    await host.begin(a=0.0)
    host.skips.skipped.clear()
    host.network.bmcs["https://bmc1"] = away
    for second in (1.0, 2.0):
        host.use(100, busy=TICKS)
        polling = Deferred.fromCoroutine(host.poll(seconds=300, a=second))
        host.clock.advance(BMC_SECONDS)
        found = await polling
        assert found["energy", "a"].volume == 100 * second
        assert ("energy.wall", "a") not in found
    assert {(kind, resources) for kind, resources in host.skips.skipped} == {
        ("refused" if away == 401 else "unavailable", ("a", "hv1"))
    }
    host.network.bmcs["https://bmc1"] = host.documents
    host.use(100, busy=TICKS)
    host.take(0.1)
    back = await host.poll(seconds=1800, a=3.0)
    assert wall(back) == 360_000


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("change", ["reset", "less", "sooner than its power", "chassis"])
async def test_uncertain_energy_is_in_no_sum_and_new_runs_begin(tmp_path: Path, change: str) -> None:
    host = MeasuredHost(tmp_path)
    await host.begin(a=0.0)
    host.use(100, busy=TICKS)
    host.take(0.01)
    before = await host.poll(a=1.0)
    assert wall(before) == 36_000
    host.skips.skipped.clear()
    host.use(100, busy=TICKS)
    if change == "reset":
        host.take(0.01)  # it was at 0 in between
        host.documents[SENSOR]["SensorResetTime"] = "2026-06-01T11:00:00Z"
    elif change == "less":
        host.take(-5.0)
    elif change == "sooner than its power":
        host.take(4.0)  # in 600 s, with at most 20 kW, 3.3 kWh
    else:
        other = "/redfish/v1/Chassis/2U"
        host.documents["/redfish/v1/Chassis"]["Members"].append({"@odata.id": other})
        host.documents[other] = {"Id": "2U", "EnvironmentMetrics": {"@odata.id": METRICS}}
        host.clock.advance(LAYOUT_SECONDS)
    uncertain = await host.poll(a=2.0)
    assert ("energy.wall", "a") not in uncertain
    assert [kind for kind, _ in host.skips.skipped] == ["uncertain"]
    host.take(0.01)
    assert wall(await host.poll(a=2.0)) == 0
    host.use(100, busy=TICKS)
    host.take(0.01)
    after = await host.poll(a=3.0)
    assert wall(after) in (36_000, 72_000)  # two chassis share one counter in this test
    one, other_run = (run_of("cumulative", each["energy.wall", "a"].resource_metadata) for each in (before, after))
    assert one != other_run


@pytest_twisted.ensureDeferred
async def test_processors_whose_energy_is_not_known_make_that_of_the_host_uncertain(tmp_path: Path) -> None:
    host = MeasuredHost(tmp_path)
    await host.begin(a=0.0)
    host.skips.skipped.clear()
    host.take(0.5)
    assert ("energy.wall", "a") not in await host.poll(seconds=9000, a=1.0)
    assert host.skips.skipped == [("uncertain", ("a", "hv1"))]


@pytest_twisted.ensureDeferred
async def test_new_domain_begins_with_0_and_what_an_ended_one_took_last_is_the_hosts(tmp_path: Path) -> None:
    host = MeasuredHost(tmp_path)
    await host.begin(a=0.0)
    host.use(100, busy=10 * TICKS)
    host.take(0.01)
    samples = [each for each in await host.samples(a=1.0, b=4.0) if each.resource_id == "b"]
    opening, now = (each for each in samples if each.name == "energy.wall")
    assert (opening.volume, now.timestamp - opening.timestamp) == (0, timedelta(seconds=300))
    assert run_of("cumulative", opening.resource_metadata) == run_of("cumulative", now.resource_metadata)
    host.use(100, busy=10 * TICKS)
    host.take(0.01)
    left = await host.poll(a=2.0)
    assert ("energy.wall", "b") not in left
    assert wall(left) + now.volume == 72_000


@pytest_twisted.ensureDeferred
async def test_bmc_that_counts_no_energy_is_skipped(tmp_path: Path) -> None:
    host = MeasuredHost(tmp_path)
    del host.documents[METRICS]["EnergykWh"]
    assert ("energy", "a") in await host.poll(a=0.0)
    assert host.skips.skipped == [("no-energy", ("a", "hv1"))]


@pytest_twisted.ensureDeferred
async def test_it_is_off_unless_a_bmc_is_configured(tmp_path: Path) -> None:
    host = EnergyHost(tmp_path)
    assert host.pollster.options.bmc is None
    assert not any("wall" in name for name, _ in await host.poll(a=0.0))


@pytest_twisted.ensureDeferred
async def test_sums_begin_again_with_other_options_of_the_bmc(tmp_path: Path) -> None:
    host = MeasuredHost(tmp_path)
    await host.begin(a=0.0)
    host.skips.skipped.clear()
    options = host.pollster.options
    assert options.bmc is not None
    other = options.model_copy(update={"bmc": options.bmc.model_copy(update={"url": "https://bmc2"})})
    host.network.bmcs["https://bmc2"] = rack_server()
    host.pollster = host.pollster.configured(other)
    assert ("energy.wall", "a") not in await host.poll(a=1.0)
    assert host.skips.skipped == [("starting", ("a", "hv1"))]


@pytest_twisted.ensureDeferred
async def test_missing_certificates_are_named_and_harm_nothing_else(tmp_path: Path) -> None:
    host = MeasuredHost(tmp_path)
    assert await host.pollster.enabled(host.context) == Enabled()
    account = {"url": "https://bmc1", "username": "u", "password_file": "p"}
    unverified = EnergyPollster(EnergyOptions(bmc={**account, "ca_file": "/nowhere/ca.pem"}), powercap=host.powercap)
    context = FakePluginContext({IHypervisor: host.hypervisor}, clock=host.clock)
    enabled = await unverified.enabled(context)
    assert isinstance(enabled, Enabled)
    assert "/nowhere/ca.pem" in enabled.remark


@pytest.mark.parametrize("url", ["http://bmc1", "https://bmc1/redfish", "https://user@bmc1"])
def test_url_without_tls_or_with_a_path_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="should be https:// with host and port only"):
        EnergyOptions(bmc={"url": url, "username": "u", "password_file": "p"})
