"""Runs of counters and ends of gauges when domains start, stop and migrate, and devices are attached and detached."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.interfaces import Absence
from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.pollsters.libvirt import cpu
from meter.pollsters.libvirt import disk
from meter.pollsters.libvirt import disk_device
from meter.pollsters.libvirt import instance
from meter.pollsters.libvirt import memory
from meter.pollsters.libvirt import network
from meter.pollsters.libvirt import vcpus
from meter.sample import MAX_RUN
from meter.sample import Sample
from meter.settings import ComputeSection
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext
from tests.metered import metered
from tests.polling_agent import PollingAgent

CASES = {
    case["name"]: case
    for case in json.loads((Path(__file__).parents[3] / "data/cases/counters.json").read_text(encoding="utf-8"))
}
POLLSTERS = (instance, cpu, vcpus, memory, disk, disk_device, network)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
XML = "<domain><name>n</name></domain>"
NOVA_XML = (Path(__file__).parents[3] / "data/libvirt/nova-instance.xml").read_text()
RUNNING = {"state.state": 1, "state.reason": 1}
ARRIVING = {"state.state": 3, "state.reason": 2}
PAUSED = {"state.state": 3, "state.reason": 1}
OFF = {"state.state": 5, "state.reason": 1}


class ComputeConfig:
    """A configuration with ``[compute]`` only."""

    def __init__(self, host: str) -> None:
        self.compute = ComputeSection(host=host)


class Host:
    """A host with one agent; the times of its polls are minutes since noon."""

    def __init__(self, name: str = "hv1") -> None:
        self.hypervisor = FakeHypervisor(uri="qemu:///system")
        self.samples: list[Sample] = []
        self._name = name
        self.restart()

    def restart(self) -> None:
        """Restart the agent, which loses all state."""
        self._clock = Clock()
        providers = {IHypervisor: self.hypervisor}
        self.agent = PollingAgent(
            POLLSTERS, FakePluginContext(providers, clock=self._clock, config=ComputeConfig(self._name))
        )

    async def poll(
        self, minute: float, stats: dict[str, Any] | None, pollsters: Sequence[str] = (), **more: Any
    ) -> list[Sample]:
        """Poll a host that has one domain with ``stats``, or none; return the samples, of all ``pollsters`` or of these."""
        at = NOON + timedelta(minutes=minute)
        more = {"uuid": "u", "name": "n", "xml": XML, "run": None if stats is None else 1, **more}
        self.hypervisor.running = [] if stats is None else [Domain(stats=stats, read_at=at, **more)]
        self._clock.advance(max(0.0, at.timestamp() - self._clock.seconds()))
        samples = await self.agent.cycle(*pollsters)
        self.samples += samples
        return samples

    def of(self, meter: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.name == meter]


def run_of(sample: Sample) -> Any:
    return sample.resource_metadata.get("_meter", {}).get("run")


def increase(*hosts: Host, meter: str) -> float:
    """Return the increase that a store computes."""
    samples = [each for host in hosts for each in host.of(meter)]
    assert all(map(run_of, samples)), "every sample of a counter has a run"
    found: list[float] = []
    Deferred.fromCoroutine(metered(samples, "increase")).addCallback(found.append)
    [counted] = found
    return counted


def volumes_of(samples: Sequence[Sample], *meters: str) -> dict[str, Any]:
    return {sample.name: sample.volume for sample in samples if sample.name in meters}


def nic(value: int, state: dict[str, Any] = RUNNING) -> dict[str, Any]:
    return {**state, "net.count": 1, "net.0.name": "tap0", "net.0.rx.bytes": value}


def disks(**values: int) -> dict[str, Any]:
    stats: dict[str, Any] = {**RUNNING, "block.count": len(values)}
    for number, (name, value) in enumerate(values.items()):
        stats |= {f"block.{number}.name": name, f"block.{number}.path": f"/{name}", f"block.{number}.rd.bytes": value}
    return stats


def vcpu(*times: int, **more: Any) -> dict[str, Any]:
    stats = {**RUNNING, "vcpu.current": len(times), "vcpu.maximum": 4, **more}
    for number, time in enumerate(times):
        stats |= {f"vcpu.{number}.state": 1, f"vcpu.{number}.time": time, f"vcpu.{number}.wait": 0}
    return stats


# --- migration


@pytest.mark.parametrize("reason", [{"state.reason": 2}, {}], ids=["with a reason", "without"])
@pytest.mark.parametrize("polled", [True, False], ids=["polled", "not polled"])
@pytest_twisted.ensureDeferred
async def test_live_migration_counts_the_increase_once_polled_on_arrival_or_not(
    reason: dict[str, Any], polled: bool
) -> None:
    case = CASES["live migration"]
    hosts = {"hv1": Host("hv1"), "hv2": Host("hv2")}
    instances: defaultdict[int, int] = defaultdict(int)
    started_at = NOON + timedelta(minutes=9.5)
    for poll in case["polls"]:
        host, minute = hosts[poll["host"]], poll["minute"]
        if poll["host"] == "hv2" and minute < 10.1:
            await host.poll(9, None)
        state = RUNNING if poll["state"] == 1 else {"state.state": 3, **reason}
        process = {"process": "b.2", "started_at": started_at} if poll["host"] == "hv2" else {}
        if polled or poll["state"] == 1:
            samples = await host.poll(minute, nic(poll["value"], state), **process)
            instances[int(minute)] += len([sample for sample in samples if sample.name == "instance"])
    if not polled:
        hosts["hv2"].restart()
        hosts["hv2"].samples.clear()
        await hosts["hv2"].poll(9, None)
        last = case["polls"][-1]
        await hosts["hv2"].poll(last["minute"], nic(last["value"]), process="b.2", started_at=started_at)
    assert increase(*hosts.values(), meter="network.incoming.bytes") == case["increase"]
    assert set(instances.values()) == {case["instances_per_cycle"]}
    assert {sample.volume for host in hosts.values() for sample in host.of("power.state")} == {1}


@pytest_twisted.ensureDeferred
async def test_agent_started_during_a_migration_ignores_the_arriving_domain() -> None:
    host = Host()
    assert await host.poll(0, nic(0, ARRIVING)) == []
    host.restart()
    assert await host.poll(5, nic(0, ARRIVING)) == []
    await host.poll(6, nic(2, {"state.state": 1, "state.reason": 2}), event="resumed (migrated)")
    await host.poll(10, nic(7))
    assert increase(host, meter="network.incoming.bytes") == 7


@pytest_twisted.ensureDeferred
async def test_domain_paused_by_its_owner_after_its_arrival_is_metered() -> None:
    host = Host()
    await host.poll(0, nic(0, ARRIVING))
    assert volumes_of(await host.poll(5, nic(0, PAUSED)), "instance", "power.state") == {
        "instance": 1,
        "power.state": 3,
    }


@pytest_twisted.ensureDeferred
async def test_domain_whose_migration_failed_is_not_metered_on_the_destination() -> None:
    host = Host()
    await host.poll(0, nic(0, ARRIVING))
    assert await host.poll(1, {"state.state": 5}, run=None, event="stopped (failed)") == []
    assert await host.poll(5, None) == []


@pytest_twisted.ensureDeferred
async def test_source_of_a_migration_sends_counters_and_continues_if_it_fails() -> None:
    host = Host()
    await host.poll(0, nic(10))
    leaving = await host.poll(5, nic(15, ARRIVING))
    assert {sample.type for sample in leaving} <= {"cumulative", "delta"}
    resumed = {"state.state": 1, "state.reason": 6}
    back = await host.poll(6, nic(16, resumed), event="resumed (migrated)")
    assert volumes_of(back, "instance", "power.state") == {"instance": 1, "power.state": 1}
    assert increase(host, meter="network.incoming.bytes") == 6


@pytest_twisted.ensureDeferred
async def test_domain_first_seen_when_its_migration_fails_counts_from_there() -> None:
    host = Host()
    await host.poll(6, nic(10**9, {"state.state": 1, "state.reason": 6}), event="resumed (migrated)")
    await host.poll(10, nic(10**9 + 3))
    assert increase(host, meter="network.incoming.bytes") == 3


@pytest_twisted.ensureDeferred
async def test_source_of_a_post_copy_migration_stops_metering() -> None:
    host = Host()
    await host.poll(0, nic(10))
    for reason in (12, 13):
        assert await host.poll(5, nic(12, {"state.state": 3, "state.reason": reason})) == []
    assert await host.poll(10, None) == []


@pytest.mark.parametrize("left", [OFF | {"state.reason": 4}, None], ids=["definition stays", "undefined"])
@pytest_twisted.ensureDeferred
async def test_domain_that_migrated_away_sends_no_end_of_gauges(left: dict[str, Any] | None) -> None:
    host = Host()
    await host.poll(0, {**nic(1), "balloon.current": 1024})
    host.hypervisor.absences["u"] = Absence("migrated")
    assert await host.poll(5, left, run=None) == []
    assert await host.poll(10, left, run=None) == []


@pytest_twisted.ensureDeferred
async def test_domain_restored_paused_is_metered_as_paused() -> None:
    host = Host()
    await host.poll(0, OFF, run=None)
    await host.poll(1, nic(0, {"state.state": 1, "state.reason": 2}), event="started (restored)")
    assert volumes_of(await host.poll(5, nic(0, ARRIVING)), "instance", "power.state") == {
        "instance": 1,
        "power.state": 3,
    }


# --- beginnings


@pytest_twisted.ensureDeferred
async def test_run_first_seen_in_progress_counts_from_its_first_sample() -> None:
    host = Host()
    await host.poll(0, nic(1000), process="b.1", started_at=NOON - timedelta(days=9))
    await host.poll(5, nic(1004), process="b.1", started_at=NOON - timedelta(days=9))
    assert increase(host, meter="network.incoming.bytes") == 4


@pytest_twisted.ensureDeferred
async def test_same_process_has_the_same_run_after_an_agent_restart() -> None:
    host = Host()
    process = {"process": "b.1", "started_at": NOON - timedelta(days=9)}
    both = {**nic(1000), **disks(vda=1, vdb=2), **vcpu(5, 5)}
    await host.poll(0, both, **process)
    first = {(sample.name, sample.resource_id): run_of(sample) for sample in host.samples}
    host.restart()
    await host.poll(60, {**both, "net.0.rx.bytes": 1500}, **process)
    assert {(sample.name, sample.resource_id): run_of(sample) for sample in host.samples} == first
    assert increase(host, meter="network.incoming.bytes") == 500
    assert first["disk.read.bytes", "u"] == "hv1/b.1/disks"
    assert first["cpu", "u"] == "hv1/b.1/vcpus"
    assert first["instance", "u"] == "hv1/b.1"


@pytest_twisted.ensureDeferred
async def test_agent_restart_begins_a_new_run_without_a_local_process() -> None:
    host = Host()
    await host.poll(0, nic(1000))
    host.restart()
    await host.poll(5, nic(1100))
    assert len({run_of(sample) for sample in host.of("network.incoming.bytes")}) == 2
    assert increase(host, meter="network.incoming.bytes") == 0


@pytest.mark.parametrize(
    "again",
    [{"run": 2}, {"process": "b.2", "started_at": NOON + timedelta(minutes=7)}],
    ids=["another number", "another process under the same number"],
)
@pytest_twisted.ensureDeferred
async def test_domain_restarted_between_two_polls_counts_from_zero(again: dict[str, Any]) -> None:
    case = CASES["plain restart"]
    host = Host()
    for number, poll in enumerate(case["polls"]):
        await host.poll(poll["minute"], nic(poll["value"]), **(again if number == 2 else {"process": "b.1"}))
    assert increase(host, meter="network.incoming.bytes") == case["increase"]


@pytest_twisted.ensureDeferred
async def test_domain_started_with_an_event_counts_from_zero() -> None:
    host = Host()
    await host.poll(0, None)
    await host.poll(2, nic(3), event="started (booted)")
    await host.poll(5, nic(10))
    assert increase(host, meter="network.incoming.bytes") == 10
    assert [sample.volume for sample in host.of("network.incoming.bytes")] == [0, 3, 10]
    times = [sample.timestamp for sample in host.of("network.incoming.bytes")]
    assert times == sorted(set(times))


@pytest_twisted.ensureDeferred
async def test_interface_with_an_existing_device_does_not_count_from_zero() -> None:
    xml = "<domain><devices><interface type='ethernet'><target dev='tap0' managed='no'/></interface></devices></domain>"
    host = Host()
    await host.poll(0, OFF, run=None, xml=xml)
    await host.poll(5, nic(10**12), xml=xml)
    await host.poll(10, nic(10**12 + 1), xml=xml)
    assert increase(host, meter="network.incoming.bytes") == 1


@pytest_twisted.ensureDeferred
async def test_domain_absent_at_the_previous_poll_counts_from_zero() -> None:
    host = Host()
    await host.poll(0, None)
    await host.poll(5, nic(7))
    assert increase(host, meter="network.incoming.bytes") == 7


@pytest_twisted.ensureDeferred
async def test_process_older_than_the_previous_poll_does_not_count_from_zero() -> None:
    host = Host()
    await host.poll(0, None)
    await host.poll(5, nic(7), process="b.1", started_at=NOON - timedelta(days=1))
    assert increase(host, meter="network.incoming.bytes") == 0


@pytest_twisted.ensureDeferred
async def test_domain_unreadable_at_the_previous_poll_does_not_count_from_zero() -> None:
    host = Host()
    host.hypervisor.absences["u"] = Absence("unreadable")
    await host.poll(0, None)
    await host.poll(5, nic(10**9))
    assert increase(host, meter="network.incoming.bytes") == 0


# --- sums and sources


@pytest_twisted.ensureDeferred
async def test_detached_disk_does_not_decrease_the_sum() -> None:
    case = CASES["disk detached"]
    host = Host()
    for poll in case["polls"]:
        await host.poll(poll["minute"], disks(**{name: poll[name] for name in ("vda", "vdb") if name in poll}))
    assert increase(host, meter="disk.read.bytes") == case["increase"]


@pytest_twisted.ensureDeferred
async def test_set_of_disks_that_returns_is_not_counted_twice() -> None:
    host = Host()
    await host.poll(0, disks(vda=1000, vdb=0))
    await host.poll(5, disks(vda=1500))
    await host.poll(10, disks(vda=2000, vdb=7))
    await host.poll(15, disks(vda=2000, vdb=8))
    assert increase(host, meter="disk.read.bytes") == 1008
    assert increase(host, meter="disk.device.read.bytes") == 1008


@pytest.mark.parametrize("meter", ["disk.read.bytes", "disk.device.read.bytes"])
@pytest_twisted.ensureDeferred
async def test_set_of_disks_that_returns_before_an_agent_restart_is_not_counted_twice(meter: str) -> None:
    host = Host()
    process: dict[str, Any] = {"process": "b.1", "started_at": NOON - timedelta(days=1)}
    for minute, values in enumerate([{"vda": 1000}, {"vda": 1100, "vdb": 7}, {"vda": 2000}]):
        await host.poll(5 * minute, disks(**values), **process)
    host.restart()
    await host.poll(15, disks(vda=2100), **process)
    assert increase(host, meter=meter) == 1100 + 7


@pytest.mark.parametrize("visible", [False, True])
@pytest_twisted.ensureDeferred
async def test_vcpu_that_replaces_another_is_counted_in_the_sum(visible: bool) -> None:
    host = Host()
    for minute, times in enumerate([(100, 100), (110, 110), (120, 3), (125, 4)]):
        await host.poll(5 * minute, vcpu(*times), processors="b" if visible and minute > 1 else "a")
    assert increase(host, meter="cpu") == 25 + 10 + 4


@pytest_twisted.ensureDeferred
async def test_disk_keeps_its_run_when_a_snapshot_is_taken() -> None:
    plain = "<domain><devices><disk><source index='2'/><target dev='vda'/></disk></devices></domain>"
    covered = plain.replace("index='2'/>", "index='7'/><backingStore index='2'><backingStore/></backingStore>")
    host = Host()
    await host.poll(0, {**disks(vda=10), "block.0.backingIndex": 2}, xml=plain)
    await host.poll(5, {**disks(vda=12), "block.0.backingIndex": 7}, xml=covered)
    await host.poll(10, {**disks(vda=15), "block.0.backingIndex": 2}, xml=plain)
    assert {run_of(sample).rpartition("/")[2] for sample in host.of("disk.device.read.bytes")} == {"vda.2"}
    assert increase(host, meter="disk.read.bytes") == increase(host, meter="disk.device.read.bytes") == 5


@pytest_twisted.ensureDeferred
async def test_cpu_with_a_changed_source_counts_the_increase_of_each_source() -> None:
    host = Host()
    await host.poll(0, vcpu(1000, 1000, **{"cpu.time": 100}))
    await host.poll(5, {**RUNNING, "vcpu.current": 2, "cpu.time": 110})
    await host.poll(10, vcpu(1010, 1010, **{"cpu.time": 120}))
    assert increase(host, meter="cpu") == 10, "the time while the vCPUs could not be read is not guessed"


@pytest_twisted.ensureDeferred
async def test_vcpus_unplugged_and_plugged_again_continue() -> None:
    host = Host()
    for minute, times in enumerate([(100, 100), (110,), (120, 3), (125, 4)]):
        await host.poll(5 * minute, vcpu(*times))
    assert increase(host, meter="cpu") == 25 + 4


def two_way_nic(received: int, sent: int) -> dict[str, Any]:
    return {**nic(received), "net.0.tx.bytes": sent}


@pytest.mark.parametrize("polled_without", [False, True])
@pytest_twisted.ensureDeferred
async def test_interface_unplugged_and_plugged_in_again_counts_from_zero(polled_without: bool) -> None:
    host = Host()
    process: dict[str, Any] = {"process": "b.1", "started_at": NOON - timedelta(days=1)}
    await host.poll(0, two_way_nic(1000, 700), **process)
    await host.poll(5, two_way_nic(1010, 700), **process)
    if polled_without:
        await host.poll(10, {**RUNNING, "net.count": 0}, **process)
    await host.poll(15, two_way_nic(40, 30), **process)
    host.restart()
    await host.poll(20, two_way_nic(50, 31), **process)
    await host.poll(25, two_way_nic(1060, 741), **process)
    assert increase(host, meter="network.incoming.bytes") == 10 + 1060
    assert increase(host, meter="network.outgoing.bytes") == 741


@pytest.mark.parametrize("read", [(999_990, 700), (999_990, 690), (3, 700), (0, 701)])
@pytest_twisted.ensureDeferred
async def test_counter_of_an_interface_that_is_read_too_low_once_is_not_billed_again(read: tuple[int, int]) -> None:
    host = Host()
    await host.poll(0, two_way_nic(1_000_000, 700))
    await host.poll(5, two_way_nic(*read))
    await host.poll(10, two_way_nic(1_000_100, 710))
    assert 0 not in {sample.volume for sample in host.of("network.incoming.bytes")} - {read[0]}
    assert increase(host, meter="network.incoming.bytes") == 1_000_100 - read[0]


@pytest_twisted.ensureDeferred
async def test_interface_plugged_in_again_counts_from_zero_although_another_pollster_polls_more_often() -> None:
    host = Host()
    await host.poll(0, two_way_nic(1000, 700))
    await host.poll(5, two_way_nic(1010, 700))
    for minute, counters in ((6, (1012, 701)), (7, (40, 30)), (8, (50, 31))):
        await host.poll(minute, two_way_nic(*counters), ["cpu"])
    await host.poll(10, two_way_nic(60, 31))
    await host.poll(15, two_way_nic(65, 32))
    assert increase(host, meter="network.incoming.bytes") == 10 + 65
    assert [each.volume for each in host.of("network.incoming.bytes")].count(0) == 1


@pytest_twisted.ensureDeferred
async def test_vcpu_plugged_in_again_between_two_polls_counts_from_zero() -> None:
    host = Host()
    for minute, times in enumerate([(100, 100), (110, 110), (120, 3), (125, 4)]):
        await host.poll(5 * minute, vcpu(*times))
    assert increase(host, meter="vcpu.time") == 25 + 10 + 4


@pytest_twisted.ensureDeferred
async def test_missing_disk_statistics_do_not_mean_detached_disks() -> None:
    host = Host()
    await host.poll(0, disks(vda=1000, vdb=1000))
    await host.poll(5, RUNNING)
    await host.poll(10, disks(vda=1001, vdb=1001))
    assert increase(host, meter="disk.read.bytes") == increase(host, meter="disk.device.read.bytes") == 2


@pytest_twisted.ensureDeferred
async def test_run_name_is_bounded_with_many_long_disk_names() -> None:
    host = Host("h" * 200)
    await host.poll(0, disks(**{f"disk-with-a-long-name-{number}": 1 for number in range(60)}))
    assert max(len(run_of(sample)) for sample in host.samples) <= MAX_RUN


# --- ends

FULL = {**nic(1), **vcpu(5), "balloon.current": 2048, "block.count": 1, "block.0.name": "vda", "block.0.capacity": 9}


@pytest.mark.parametrize("event", ["stopped (destroyed)", None], ids=["by event", "by poll"])
@pytest_twisted.ensureDeferred
async def test_stopped_domain_sends_one_last_zero_of_gauges_that_end_with_its_run(
    event: str | None,
) -> None:
    host = Host()
    await host.poll(0, FULL)
    off = {**OFF, "block.count": 1, "block.0.name": "vda", "block.0.capacity": 9}
    stop = await host.poll(2, off, run=None, event=event)
    assert volumes_of(stop, "memory", "vcpus", "instance", "disk.capacity") == {
        "memory": 0,
        "vcpus": 0,
        "instance": 1,
        "disk.capacity": 9,
    }
    [ended] = [sample for sample in stop if sample.name == "memory"]
    assert ended.timestamp == NOON + timedelta(minutes=2)
    assert not volumes_of(await host.poll(5, off, run=None), "memory", "vcpus")
    await host.poll(10, FULL, run=2)
    assert volumes_of(await host.poll(15, off, run=None), "memory") == {"memory": 0}


@pytest.mark.parametrize("restarted", [False, True], ids=["same agent", "agent restarted"])
@pytest_twisted.ensureDeferred
async def test_domain_of_nova_that_is_off_is_measured_as_zero_in_each_cycle(restarted: bool) -> None:
    """Nova's audits say what the flavor reserves, all the time: without the zeros they would count."""
    host = Host()
    await host.poll(0, FULL, xml=NOVA_XML)
    for minute in (5, 10, 15):
        if restarted:
            host.restart()
        off = await host.poll(minute, OFF, run=None, xml=NOVA_XML)
        assert [each.volume for each in off if each.name == "memory"] == [0]
        assert [each.volume for each in off if each.name == "vcpus"] == [0]
    on = await host.poll(20, FULL, run=2, xml=NOVA_XML)
    assert volumes_of(on, "memory", "vcpus") == {"memory": 2, "vcpus": 1}
    gone = await host.poll(25, None)
    assert volumes_of(gone, "memory", "vcpus") == {"memory": 0, "vcpus": 0}


@pytest_twisted.ensureDeferred
async def test_deleted_domain_sends_one_last_zero_of_all_gauges() -> None:
    host = Host()
    await host.poll(0, FULL)
    since = NOON + timedelta(minutes=3)
    host.hypervisor.absences["u"] = Absence("gone", since)
    gone = await host.poll(5, None)
    assert volumes_of(gone, "memory", "vcpus", "instance", "disk.capacity") == {
        "memory": 0,
        "vcpus": 0,
        "instance": 0,
        "disk.capacity": 0,
    }
    assert {sample.timestamp for sample in gone} == {since}
    assert {sample.resource_metadata["event"] for sample in gone} == {"gone"}
    assert "power.state" not in {sample.name for sample in gone}
    assert await host.poll(10, None) == []


@pytest_twisted.ensureDeferred
async def test_domain_that_was_off_ends_when_it_is_deleted() -> None:
    host = Host()
    for minute in (0, 5, 10):
        await host.poll(minute, OFF, run=None)
    host.hypervisor.absences["u"] = Absence("gone", NOON)
    assert {sample.timestamp for sample in await host.poll(15, None)} == {NOON + timedelta(minutes=15)}


@pytest_twisted.ensureDeferred
async def test_unreadable_domain_has_not_ended() -> None:
    host = Host()
    await host.poll(0, FULL)
    host.hypervisor.absences["u"] = Absence("unreadable")
    assert await host.poll(5, None) == []
    await host.poll(10, {**FULL, "net.0.rx.bytes": 4})
    assert increase(host, meter="network.incoming.bytes") == 0, "it may be another run"
    del host.hypervisor.absences["u"]
    assert volumes_of(await host.poll(15, None), "memory") == {"memory": 0}


@pytest_twisted.ensureDeferred
async def test_missing_gauge_of_a_running_domain_has_not_ended() -> None:
    host = Host()
    await host.poll(0, FULL)
    assert not volumes_of(await host.poll(5, {**RUNNING, "vcpu.current": 1}), "memory")
    assert volumes_of(await host.poll(10, OFF, run=None), "memory", "vcpus") == {"memory": 0, "vcpus": 0}


@pytest_twisted.ensureDeferred
async def test_trial_leaves_runs_and_gauges_unchanged() -> None:
    host = Host()
    await host.poll(0, FULL)
    host.hypervisor.running = [replace(host.hypervisor.running[0], stats=OFF, run=None)]
    for pollster in POLLSTERS:
        await host.agent.poll_now(pollster.name)
    assert volumes_of(await host.poll(5, OFF, run=None), "memory") == {"memory": 0}
