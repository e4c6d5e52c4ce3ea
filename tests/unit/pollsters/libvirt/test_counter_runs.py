"""Runs of counters and the ends of gauges: what is billed when domains migrate, stop, and get and lose devices."""

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
from meter.sample import LONGEST_RUN
from meter.sample import Sample
from meter.settings import ComputeSection
from meter.testing import FakeCycle
from meter.testing import FakeHypervisor
from tests.metered import metered

CASES = {
    case["name"]: case
    for case in json.loads((Path(__file__).parents[3] / "data/cases/counters.json").read_text(encoding="utf-8"))
}
POLLSTERS = (instance, cpu, vcpus, memory, disk, disk_device, network)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
XML = "<domain><name>n</name></domain>"
RUNNING = {"state.state": 1, "state.reason": 1}
ARRIVING = {"state.state": 3, "state.reason": 2}
PAUSED = {"state.state": 3, "state.reason": 1}
OFF = {"state.state": 5, "state.reason": 1}


class Lab:
    """What ``[compute]`` says in these tests."""

    def __init__(self, host: str) -> None:
        self.compute = ComputeSection(host=host)


class Host:
    """A host with one agent, whose polls have the minutes since noon."""

    def __init__(self, name: str = "hv1") -> None:
        self.hypervisor = FakeHypervisor(uri="qemu:///system")
        self.samples: list[Sample] = []
        self._name = name
        self.restart()

    def restart(self) -> None:
        """Start the agent anew: it remembers nothing."""
        self._cycle = FakeCycle({IHypervisor: self.hypervisor}, config=Lab(self._name))

    async def poll(self, minute: float, stats: dict[str, Any] | None, **more: Any) -> list[Sample]:
        """Return what a poll gives that finds one domain with ``stats``, or none."""
        at = NOON + timedelta(minutes=minute)
        more = {"uuid": "u", "name": "n", "xml": XML, "run": None if stats is None else 1, **more}
        self.hypervisor.running = [] if stats is None else [Domain(stats=stats, read_at=at, **more)]
        self._cycle.clock.advance(max(0.0, at.timestamp() - self._cycle.clock.seconds()))
        self._cycle = self._cycle.following()
        samples = [sample for pollster in POLLSTERS for sample in await pollster.poll(self._cycle)]
        self.samples += samples
        return samples

    def of(self, meter: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.name == meter]


def run_of(sample: Sample) -> Any:
    return sample.resource_metadata.get("_meter", {}).get("run")


def increase(*hosts: Host, meter: str) -> float:
    """What a store counts."""
    samples = [each for host in hosts for each in host.of(meter)]
    assert all(map(run_of, samples)), "every sample of a counter says of which run it is"
    found: list[float] = []
    Deferred.fromCoroutine(metered(samples, "increase")).addCallback(found.append)
    [counted] = found
    return counted


def told(samples: Sequence[Sample], *meters: str) -> dict[str, Any]:
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
async def test_a_migration_counts_what_the_guest_counted_whether_or_not_its_arrival_was_polled(
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
async def test_an_agent_started_in_the_middle_of_a_migration_does_not_take_the_arriving_domain_for_a_paused_one() -> (
    None
):
    host = Host()
    assert await host.poll(0, nic(0, ARRIVING)) == []
    host.restart()
    assert await host.poll(5, nic(0, ARRIVING)) == []
    await host.poll(6, nic(2, {"state.state": 1, "state.reason": 2}), event="resumed (migrated)")
    await host.poll(10, nic(7))
    assert increase(host, meter="network.incoming.bytes") == 7


@pytest_twisted.ensureDeferred
async def test_a_domain_that_its_owner_pauses_after_its_arrival_is_metered() -> None:
    host = Host()
    await host.poll(0, nic(0, ARRIVING))
    assert told(await host.poll(5, nic(0, PAUSED)), "instance", "power.state") == {"instance": 1, "power.state": 3}


@pytest_twisted.ensureDeferred
async def test_a_domain_that_fails_to_arrive_has_never_been_here() -> None:
    host = Host()
    await host.poll(0, nic(0, ARRIVING))
    assert await host.poll(1, {"state.state": 5}, run=None, event="stopped (failed)") == []
    assert await host.poll(5, None) == []


@pytest_twisted.ensureDeferred
async def test_the_source_of_a_migration_counts_to_the_last_moment_and_goes_on_where_it_fails() -> None:
    host = Host()
    await host.poll(0, nic(10))
    leaving = await host.poll(5, nic(15, ARRIVING))
    assert {sample.type for sample in leaving} <= {"cumulative", "delta"}
    resumed = {"state.state": 1, "state.reason": 6}
    back = await host.poll(6, nic(16, resumed), event="resumed (migrated)")
    assert told(back, "instance", "power.state") == {"instance": 1, "power.state": 1}
    assert increase(host, meter="network.incoming.bytes") == 6


@pytest_twisted.ensureDeferred
async def test_an_agent_that_first_hears_of_a_domain_when_its_migration_fails_does_not_count_its_past() -> None:
    host = Host()
    await host.poll(6, nic(10**9, {"state.state": 1, "state.reason": 6}), event="resumed (migrated)")
    await host.poll(10, nic(10**9 + 3))
    assert increase(host, meter="network.incoming.bytes") == 3


@pytest_twisted.ensureDeferred
async def test_after_post_copy_has_resumed_a_domain_elsewhere_its_source_does_not_meter_it() -> None:
    host = Host()
    await host.poll(0, nic(10))
    for reason in (12, 13):
        assert await host.poll(5, nic(12, {"state.state": 3, "state.reason": reason})) == []
    assert await host.poll(10, None) == []


@pytest.mark.parametrize("left", [OFF | {"state.reason": 4}, None], ids=["definition stays", "undefined"])
@pytest_twisted.ensureDeferred
async def test_a_domain_that_has_migrated_away_ends_without_a_word(left: dict[str, Any] | None) -> None:
    host = Host()
    await host.poll(0, {**nic(1), "balloon.current": 1024})
    host.hypervisor.absences["u"] = Absence("migrated")
    assert await host.poll(5, left, run=None) == []
    assert await host.poll(10, left, run=None) == []


@pytest_twisted.ensureDeferred
async def test_a_domain_that_is_restored_paused_is_metered_as_paused() -> None:
    host = Host()
    await host.poll(0, OFF, run=None)
    await host.poll(1, nic(0, {"state.state": 1, "state.reason": 2}), event="started (restored)")
    assert told(await host.poll(5, nic(0, ARRIVING)), "instance", "power.state") == {"instance": 1, "power.state": 3}


# --- beginnings


@pytest_twisted.ensureDeferred
async def test_a_run_first_seen_while_it_was_going_on_counts_from_its_first_sample_on() -> None:
    host = Host()
    await host.poll(0, nic(1000), process="b.1", started_at=NOON - timedelta(days=9))
    await host.poll(5, nic(1004), process="b.1", started_at=NOON - timedelta(days=9))
    assert increase(host, meter="network.incoming.bytes") == 4


@pytest_twisted.ensureDeferred
async def test_the_same_process_is_the_same_run_after_a_restart_of_the_agent() -> None:
    host = Host()
    process = {"process": "b.1", "started_at": NOON - timedelta(days=9)}
    both = {**nic(1000), **disks(vda=1, vdb=2), **vcpu(5, 5)}
    await host.poll(0, both, **process)
    first = {(sample.name, sample.resource_id): run_of(sample) for sample in host.samples}
    host.restart()
    await host.poll(60, {**both, "net.0.rx.bytes": 1500}, **process)
    assert {(sample.name, sample.resource_id): run_of(sample) for sample in host.samples} == first
    assert increase(host, meter="network.incoming.bytes") == 500
    assert first["disk.read.bytes", "u"] == "hv1/b.1/vda+vdb"
    assert first["cpu", "u"] == "hv1/b.1/vcpu:0+1"
    assert first["instance", "u"] == "hv1/b.1"


@pytest_twisted.ensureDeferred
async def test_without_a_process_to_see_a_restarted_agent_begins_another_run() -> None:
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
async def test_a_plain_restart_between_two_polls_counts_from_zero(again: dict[str, Any]) -> None:
    case = CASES["plain restart"]
    host = Host()
    for number, poll in enumerate(case["polls"]):
        await host.poll(poll["minute"], nic(poll["value"]), **(again if number == 2 else {"process": "b.1"}))
    assert increase(host, meter="network.incoming.bytes") == case["increase"]


@pytest_twisted.ensureDeferred
async def test_a_domain_that_starts_while_the_agent_watches_counts_from_zero() -> None:
    host = Host()
    await host.poll(0, None)
    await host.poll(2, nic(3), event="started (booted)")
    await host.poll(5, nic(10))
    assert increase(host, meter="network.incoming.bytes") == 10
    assert [sample.volume for sample in host.of("network.incoming.bytes")] == [0, 3, 10]
    times = [sample.timestamp for sample in host.of("network.incoming.bytes")]
    assert times == sorted(set(times))


@pytest_twisted.ensureDeferred
async def test_an_interface_whose_device_was_there_before_the_domain_does_not_count_its_past() -> None:
    xml = "<domain><devices><interface type='ethernet'><target dev='tap0' managed='no'/></interface></devices></domain>"
    host = Host()
    await host.poll(0, OFF, run=None, xml=xml)
    await host.poll(5, nic(10**12), xml=xml)
    await host.poll(10, nic(10**12 + 1), xml=xml)
    assert increase(host, meter="network.incoming.bytes") == 1


@pytest_twisted.ensureDeferred
async def test_a_domain_that_was_not_there_at_the_poll_before_counts_from_zero() -> None:
    host = Host()
    await host.poll(0, None)
    await host.poll(5, nic(7))
    assert increase(host, meter="network.incoming.bytes") == 7


@pytest_twisted.ensureDeferred
async def test_a_process_that_is_older_than_the_poll_before_does_not_count_its_past() -> None:
    host = Host()
    await host.poll(0, None)
    await host.poll(5, nic(7), process="b.1", started_at=NOON - timedelta(days=1))
    assert increase(host, meter="network.incoming.bytes") == 0


@pytest_twisted.ensureDeferred
async def test_a_domain_that_could_not_be_read_at_first_does_not_count_its_past() -> None:
    host = Host()
    host.hypervisor.absences["u"] = Absence("unreadable")
    await host.poll(0, None)
    await host.poll(5, nic(10**9))
    assert increase(host, meter="network.incoming.bytes") == 0


# --- sums and sources


@pytest_twisted.ensureDeferred
async def test_a_disk_that_is_detached_takes_nothing_from_the_sum() -> None:
    case = CASES["disk detached"]
    host = Host()
    for poll in case["polls"]:
        await host.poll(poll["minute"], disks(**{name: poll[name] for name in ("vda", "vdb") if name in poll}))
    assert increase(host, meter="disk.read.bytes") == case["increase"]


@pytest_twisted.ensureDeferred
async def test_a_set_of_disks_that_comes_back_is_not_counted_twice() -> None:
    host = Host()
    await host.poll(0, disks(vda=1000, vdb=0))
    await host.poll(5, disks(vda=1500))
    await host.poll(10, disks(vda=2000, vdb=7))
    await host.poll(15, disks(vda=2000, vdb=8))
    assert increase(host, meter="disk.read.bytes") == 1008
    assert increase(host, meter="disk.device.read.bytes") == 1008


@pytest_twisted.ensureDeferred
async def test_a_disk_whose_image_is_covered_by_a_snapshot_is_the_same() -> None:
    plain = "<domain><devices><disk><source index='2'/><target dev='vda'/></disk></devices></domain>"
    covered = plain.replace("index='2'/>", "index='7'/><backingStore index='2'><backingStore/></backingStore>")
    host = Host()
    await host.poll(0, {**disks(vda=10), "block.0.backingIndex": 2}, xml=plain)
    await host.poll(5, {**disks(vda=12), "block.0.backingIndex": 7}, xml=covered)
    await host.poll(10, {**disks(vda=15), "block.0.backingIndex": 2}, xml=plain)
    assert {run_of(sample).rpartition("/")[2] for sample in host.of("disk.read.bytes")} == {"vda.2"}
    assert increase(host, meter="disk.read.bytes") == increase(host, meter="disk.device.read.bytes") == 5


@pytest_twisted.ensureDeferred
async def test_cpu_that_changes_its_source_counts_what_each_source_counted() -> None:
    host = Host()
    await host.poll(0, vcpu(1000, 1000, **{"cpu.time": 100}))
    await host.poll(5, {**RUNNING, "vcpu.current": 2, "cpu.time": 110})
    await host.poll(10, vcpu(1010, 1010, **{"cpu.time": 120}))
    assert increase(host, meter="cpu") == 10, "what the vcpus did while nobody could ask them is not guessed"


@pytest_twisted.ensureDeferred
async def test_processors_that_are_unplugged_and_plugged_in_again_count_on() -> None:
    host = Host()
    for minute, times in enumerate([(100, 100), (110,), (120, 3), (125, 4)]):
        await host.poll(5 * minute, vcpu(*times))
    assert increase(host, meter="cpu") == 25 + 4


@pytest_twisted.ensureDeferred
async def test_a_busy_domain_that_tells_of_no_disks_has_not_lost_them() -> None:
    host = Host()
    await host.poll(0, disks(vda=1000, vdb=1000))
    await host.poll(5, RUNNING)
    await host.poll(10, disks(vda=1001, vdb=1001))
    assert increase(host, meter="disk.read.bytes") == increase(host, meter="disk.device.read.bytes") == 2


@pytest_twisted.ensureDeferred
async def test_many_disks_with_long_names_make_a_run_of_bearable_length() -> None:
    host = Host("h" * 200)
    await host.poll(0, disks(**{f"disk-with-a-long-name-{number}": 1 for number in range(60)}))
    assert max(len(run_of(sample)) for sample in host.samples) <= LONGEST_RUN


# --- ends

FULL = {**nic(1), **vcpu(5), "balloon.current": 2048, "block.count": 1, "block.0.name": "vda", "block.0.capacity": 9}


@pytest.mark.parametrize("event", ["stopped (destroyed)", None], ids=["told", "found"])
@pytest_twisted.ensureDeferred
async def test_a_stop_is_told_once_as_nothing_by_what_is_not_measured_of_a_domain_that_is_off(
    event: str | None,
) -> None:
    host = Host()
    await host.poll(0, FULL)
    off = {**OFF, "block.count": 1, "block.0.name": "vda", "block.0.capacity": 9}
    stop = await host.poll(2, off, run=None, event=event)
    assert told(stop, "memory", "vcpus", "instance", "disk.capacity") == {
        "memory": 0,
        "vcpus": 0,
        "instance": 1,
        "disk.capacity": 9,
    }
    [ended] = [sample for sample in stop if sample.name == "memory"]
    assert ended.timestamp == NOON + timedelta(minutes=2)
    assert not told(await host.poll(5, off, run=None), "memory", "vcpus")
    await host.poll(10, FULL, run=2)
    assert told(await host.poll(15, off, run=None), "memory") == {"memory": 0}


@pytest_twisted.ensureDeferred
async def test_a_domain_that_is_gone_for_good_leaves_nothing_behind() -> None:
    host = Host()
    await host.poll(0, FULL)
    since = NOON + timedelta(minutes=3)
    host.hypervisor.absences["u"] = Absence("gone", since)
    gone = await host.poll(5, None)
    assert told(gone, "memory", "vcpus", "instance", "disk.capacity") == {
        "memory": 0,
        "vcpus": 0,
        "instance": 0,
        "disk.capacity": 0,
    }
    assert {sample.timestamp for sample in gone} == {since}
    assert "power.state" not in {sample.name for sample in gone}
    assert await host.poll(10, None) == []


@pytest_twisted.ensureDeferred
async def test_a_domain_that_was_off_for_long_ends_when_it_is_gone_not_when_it_stopped() -> None:
    host = Host()
    for minute in (0, 5, 10):
        await host.poll(minute, OFF, run=None)
    host.hypervisor.absences["u"] = Absence("gone", NOON)
    assert {sample.timestamp for sample in await host.poll(15, None)} == {NOON + timedelta(minutes=15)}


@pytest_twisted.ensureDeferred
async def test_a_domain_that_cannot_be_read_for_a_while_has_not_ended() -> None:
    host = Host()
    await host.poll(0, FULL)
    host.hypervisor.absences["u"] = Absence("unreadable")
    assert await host.poll(5, None) == []
    await host.poll(10, {**FULL, "net.0.rx.bytes": 4})
    assert increase(host, meter="network.incoming.bytes") == 0, "nobody knows that it is the same run"
    del host.hypervisor.absences["u"]
    assert told(await host.poll(15, None), "memory") == {"memory": 0}


@pytest_twisted.ensureDeferred
async def test_a_gauge_that_a_busy_domain_does_not_tell_has_not_ended() -> None:
    host = Host()
    await host.poll(0, FULL)
    assert not told(await host.poll(5, {**RUNNING, "vcpu.current": 1}), "memory")
    assert told(await host.poll(10, OFF, run=None), "memory", "vcpus") == {"memory": 0, "vcpus": 0}


@pytest_twisted.ensureDeferred
async def test_a_trial_neither_ends_nor_begins_anything() -> None:
    host = Host()
    await host.poll(0, FULL)
    host._cycle.trial = True
    trial = host._cycle.following()
    trial.trial = True
    host.hypervisor.running = [replace(host.hypervisor.running[0], stats=OFF, run=None)]
    for pollster in POLLSTERS:
        list(await pollster.poll(trial))
    assert told(await host.poll(5, OFF, run=None), "memory") == {"memory": 0}
