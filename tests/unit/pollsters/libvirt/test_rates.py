"""Rates, deltas and CPU utilization from two polls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted

from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.pollsters.libvirt import cpu
from meter.pollsters.libvirt import disk
from meter.pollsters.libvirt import disk_device
from meter.pollsters.libvirt import network
from meter.testing import FakeCycle
from meter.testing import FakeHypervisor

POLLSTERS = (cpu, disk, disk_device, network)
XML = "<domain><name>n</name></domain>"
FIRST: dict[str, Any] = {
    "state.state": 1,
    "vcpu.current": 2,
    "vcpu.maximum": 2,
    "vcpu.0.time": 100,
    "vcpu.0.wait": 0,
    "vcpu.1.time": 100,
    "vcpu.1.wait": 0,
    "block.count": 1,
    "block.0.name": "vda",
    "block.0.path": "/vda",
    "block.0.backingIndex": 1,
    "block.0.rd.bytes": 1000,
    "net.count": 1,
    "net.0.name": "tap0",
    "net.0.rx.bytes": 500,
}
INCREASE_BETWEEN = {
    **FIRST,
    "vcpu.0.time": 10_000_000_100,
    "vcpu.1.wait": 5_000_000_000,
    "block.0.rd.bytes": 3000,
    "net.0.rx.bytes": 700,
}
CHANGES = {
    "cpu_util": 75.0,
    "cpu.delta": 15_000_000_000,
    "disk.read.bytes.rate": 200.0,
    "disk.device.read.bytes.rate": 200.0,
    "network.incoming.bytes.rate": 20.0,
    "network.incoming.bytes.delta": 200,
}


class Host:
    """A host with one domain that is polled every ten seconds."""

    def __init__(self) -> None:
        self.hypervisor = FakeHypervisor()
        self.cycle = FakeCycle({IHypervisor: self.hypervisor})

    async def poll(self, stats: dict[str, Any], *, run: int = 1, seconds: float = 10, trial: bool = False) -> Any:
        """Poll; return the changes, by meter."""
        return await self.poll_all(Domain("u", "n", XML, stats, run=run), seconds=seconds, trial=trial)

    async def poll_all(self, *domains: Domain, seconds: float = 10, trial: bool = False) -> Any:
        self.cycle.clock.advance(seconds)
        self.hypervisor.running = list(domains)
        self.cycle = self.cycle.following()
        self.cycle.trial = trial
        samples = [sample for pollster in POLLSTERS for sample in await pollster.poll(self.cycle)]
        return {sample.name: sample.volume for sample in samples if sample.name in CHANGES}

    def previous_values(self) -> int:
        all_previous: Iterator[Any] = (
            previous
            for pollster in POLLSTERS
            for previous in self.cycle.daemon_cache(("libvirt pollster", pollster.name), dict).previous_values.values()
        )
        return sum(map(len, all_previous))


@pytest_twisted.ensureDeferred
async def test_second_poll_has_the_changes_since_the_first() -> None:
    host = Host()
    assert await host.poll(FIRST) == {}
    assert await host.poll(INCREASE_BETWEEN) == CHANGES


@pytest_twisted.ensureDeferred
async def test_constant_counter_has_a_rate_of_zero() -> None:
    host = Host()
    await host.poll(FIRST)
    assert set((await host.poll(FIRST)).values()) == {0}


@pytest_twisted.ensureDeferred
async def test_decreased_counter_has_no_change_and_restarts_the_comparison() -> None:
    host = Host()
    await host.poll(INCREASE_BETWEEN)
    assert await host.poll(FIRST) == {}
    assert await host.poll(INCREASE_BETWEEN) == CHANGES


@pytest_twisted.ensureDeferred
async def test_new_run_has_no_change_even_with_higher_counters() -> None:
    host = Host()
    await host.poll(FIRST, run=1)
    assert await host.poll(INCREASE_BETWEEN, run=2) == {}


@pytest_twisted.ensureDeferred
async def test_disk_detached_and_attached_again_has_no_rate() -> None:
    host = Host()
    await host.poll(FIRST)
    assert "disk.device.read.bytes.rate" not in await host.poll({**INCREASE_BETWEEN, "block.0.backingIndex": 2})


@pytest_twisted.ensureDeferred
async def test_plugged_vcpu_suppresses_cpu_util_but_not_cpu_delta() -> None:
    host = Host()
    await host.poll(FIRST)
    three = {**INCREASE_BETWEEN, "vcpu.current": 3, "vcpu.maximum": 3, "vcpu.2.time": 0, "vcpu.2.wait": 0}
    changes = await host.poll(three)
    assert "cpu_util" not in changes
    assert changes["cpu.delta"] == 15_000_000_000


@pytest_twisted.ensureDeferred
async def test_values_from_different_sources_are_not_compared() -> None:
    host = Host()
    await host.poll(FIRST)
    changes = await host.poll({"state.state": 1, "vcpu.current": 2, "cpu.time": 10**12})
    assert not {"cpu_util", "cpu.delta"} & set(changes)


@pytest_twisted.ensureDeferred
async def test_missing_value_is_bridged_by_the_next_poll() -> None:
    host = Host()
    await host.poll(FIRST)
    await host.poll({name: value for name, value in FIRST.items() if "bytes" not in name})
    assert (await host.poll(INCREASE_BETWEEN))["disk.read.bytes.rate"] == 100.0


@pytest.mark.parametrize("seconds", [-3600, 3600])
@pytest_twisted.ensureDeferred
async def test_set_clock_suppresses_rates_but_not_deltas(seconds: int) -> None:
    host = Host()
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    await host.poll_all(Domain("u", "n", XML, FIRST, run=1, read_at=midnight))
    later = midnight + timedelta(seconds=10 + seconds)
    changes = await host.poll_all(Domain("u", "n", XML, INCREASE_BETWEEN, run=1, read_at=later))
    assert set(changes) == {"cpu.delta", "network.incoming.bytes.delta"}


@pytest_twisted.ensureDeferred
async def test_poll_within_a_second_has_no_change_and_loses_none() -> None:
    host = Host()
    await host.poll(FIRST)
    assert await host.poll(INCREASE_BETWEEN, seconds=0.5) == {}
    assert (await host.poll(INCREASE_BETWEEN, seconds=9.5)) == CHANGES


@pytest_twisted.ensureDeferred
async def test_trial_keeps_the_previous_values() -> None:
    host = Host()
    await host.poll(FIRST)
    assert (await host.poll(INCREASE_BETWEEN, trial=True))["cpu.delta"] == 15_000_000_000
    assert (await host.poll(INCREASE_BETWEEN))["cpu.delta"] == 15_000_000_000


@pytest_twisted.ensureDeferred
async def test_previous_values_of_deleted_domains_are_dropped_by_full_polls_only() -> None:
    host = Host()
    one, two = (Domain(uuid, uuid, XML, FIRST, run=1) for uuid in ("one", "two"))
    await host.poll_all(one, two)
    both = host.previous_values()
    await host.poll_all(replace(one, event="suspended (paused)"))
    assert host.previous_values() == both
    await host.poll_all(one)
    assert host.previous_values() == both // 2
    await host.poll_all()
    assert host.previous_values() == 0


@pytest.mark.parametrize("vcpus", [None, 0])
@pytest_twisted.ensureDeferred
async def test_cpu_util_is_skipped_without_vcpus(vcpus: int | None) -> None:
    host = Host()
    await host.poll({"state.state": 1, "vcpu.current": vcpus, "cpu.time": 1})
    assert set(await host.poll({"state.state": 1, "vcpu.current": vcpus, "cpu.time": 2})) == {"cpu.delta"}
