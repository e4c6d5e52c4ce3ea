"""The compute agent's pollsters on a real libvirtd: samples, lifecycle events, and the cost of polling."""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import asynccontextmanager
from contextlib import contextmanager
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from meter.agent.cycle import PluginContext
from meter.agent.domain_events import SingleDomainHypervisor
from meter.agent.polling import Polling
from meter.bus.batches import SAMPLES_HEADER
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import metrics_registry
from meter.daemon.services import Backoff
from meter.hypervisor import LibvirtHypervisor
from meter.hypervisor import open_read_only
from meter.interfaces import Domain
from meter.interfaces import Enabled
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.interfaces import Publication
from meter.outgoing import Signer
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision
from meter.pollsters.libvirt import GuestPollster
from meter.pollsters.libvirt.guests import DescriptionCache
from meter.pollsters.libvirt.table import FAMILIES
from meter.sample import Sample
from meter.settings import ComputeSection
from meter.signing_keys import keyring
from meter.testing import FakeCycle
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext
from tests.metered import metered
from tests.servers.libvirt import READING_BOOT_SECTOR
from tests.servers.libvirt import Libvirtd

POLLSTERS = [GuestPollster(name) for name in FAMILIES]  # type: ignore[arg-type]


@asynccontextmanager
async def hypervisor_at(uri: str, **settings: Any) -> AsyncIterator[LibvirtHypervisor]:
    hypervisor = LibvirtHypervisor(
        uri, clock=IReactorTime(reactor), reactor_threads=IReactorFromThreads(reactor), **settings
    )
    try:
        yield hypervisor
    finally:
        await hypervisor.stopService()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await deferLater(reactor, 0.02)


async def volumes(cycle: FakeCycle) -> dict[tuple[str, str], Any]:
    """The volumes of one cycle, by meter and resource."""
    samples = [sample for pollster in POLLSTERS for sample in await pollster.poll(cycle)]
    return {(sample.name, sample.resource_id): sample.volume for sample in samples}


# --- values

ORIGIN = {
    "disk.device.read.requests": "block.{n}.rd.reqs",
    "disk.device.read.bytes": "block.{n}.rd.bytes",
    "disk.device.read.latency": "block.{n}.rd.times",
    "disk.device.write.requests": "block.{n}.wr.reqs",
    "disk.device.write.bytes": "block.{n}.wr.bytes",
    "disk.device.write.latency": "block.{n}.wr.times",
    "disk.device.flush.requests": "block.{n}.fl.reqs",
    "disk.device.flush.latency": "block.{n}.fl.times",
    "disk.device.capacity": "block.{n}.capacity",
    "disk.device.allocation": "block.{n}.allocation",
    "disk.device.usage": "block.{n}.physical",
    "network.incoming.bytes": "net.{n}.rx.bytes",
    "network.incoming.packets": "net.{n}.rx.pkts",
    "network.incoming.packets.drop": "net.{n}.rx.drop",
    "network.incoming.packets.error": "net.{n}.rx.errs",
    "network.outgoing.bytes": "net.{n}.tx.bytes",
    "network.outgoing.packets": "net.{n}.tx.pkts",
    "network.outgoing.packets.drop": "net.{n}.tx.drop",
    "network.outgoing.packets.error": "net.{n}.tx.errs",
}

SIZES = ("capacity", "allocation", "usage")


@pytest_twisted.ensureDeferred
async def test_volumes_of_disks_and_interfaces_equal_those_of_virsh(libvirtd: Libvirtd) -> None:
    taps = (f"mt{os.getpid() % 100000}a", f"mt{os.getpid() % 100000}b")
    with libvirtd.taps(*taps), libvirtd.guest("wide", disks=("vda", "vdb"), taps=taps) as uuid:
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            found: dict[tuple[str, str], Any] = {}
            while ("disk.read.bytes", uuid) not in found:  # libvirt skips the disks of a domain that is busy starting
                before = libvirtd.stats("wide")
                found = await volumes(FakeCycle({IHypervisor: hypervisor}))
                after = libvirtd.stats("wide")
    for meter, origin in ORIGIN.items():
        kind = origin.partition(".")[0]
        for number, name in enumerate(taps if kind == "net" else ("vda", "vdb")):
            resource = f"wide-{uuid}-{name}" if kind == "net" else f"{uuid}-{name}"
            stat = origin.format(n=number)
            assert int(before[stat]) <= found[meter, resource] <= int(after[stat]), (meter, name)
    assert found["disk.capacity", uuid] == 2 * 2**20
    assert int(before["vcpu.0.delay"]) <= found["vcpu.delay", f"{uuid}-vcpu0"] <= int(after["vcpu.0.delay"])


@pytest_twisted.ensureDeferred
async def test_second_poll_has_cpu_util(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("busy") as uuid:
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            cycle = FakeCycle({IHypervisor: hypervisor}, clock=IReactorTime(reactor))  # type: ignore[arg-type]
            first = await volumes(cycle)
            await deferLater(reactor, 1.2)
            second = await volumes(cycle.following())
            libvirtd.virsh("destroy", "busy")
            libvirtd.virsh("start", "busy")
            await deferLater(reactor, 1.2)
            third = await volumes(cycle.following())
    assert second["cpu.delta", uuid] == second["cpu", uuid] - first["cpu", uuid]
    assert 0 <= second["cpu_util", uuid] <= 110
    assert not {meter for meter, _ in third if meter == "cpu_util" or meter.endswith((".rate", ".delta"))}


@pytest_twisted.ensureDeferred
async def test_enabled_reports_what_domains_of_this_host_lack(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("plain"):
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            context = FakePluginContext({IHypervisor: hypervisor}, clock=IReactorTime(reactor))  # type: ignore[arg-type]
            answers = {pollster.name: await pollster.enabled(context) for pollster in POLLSTERS}
    assert {name: answer.remark for name, answer in answers.items() if isinstance(answer, Enabled)} == {
        **dict.fromkeys(FAMILIES, ""),
        "memory": "running domains without the statistics of a balloon driver in the guest: 1 of 1",
        "perf": "running domains without perf events, which <perf> in the XML of a domain enables: 1 of 1",
    }


def empty_qcow2(path: Path, size: int) -> None:
    """Write a qcow2 image, version 2, without allocated clusters; ``size`` is its virtual size in bytes."""
    cluster = 2**16
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, size, 0, 1, 3 * cluster, cluster, 1, 0, 0)
    image = bytearray(4 * cluster)
    image[: len(header)] = header
    image[cluster : cluster + 8] = struct.pack(">Q", 2 * cluster)  # the table of reference counts has one block,
    image[2 * cluster : 2 * cluster + 8] = struct.pack(">4H", 1, 1, 1, 1)  # which counts the four clusters
    path.write_bytes(image)


@pytest_twisted.ensureDeferred
async def test_sizes_of_disks_equal_those_of_virsh_domblkinfo(libvirtd: Libvirtd) -> None:
    def shown(meters: dict[tuple[str, str], Any], *, off: bool = False) -> None:
        for disk in ("vda", "vdb", "vdc", "vdd"):
            table = dict(re.findall(r"(\w+):\s+(\d+)", libvirtd.virsh("domblkinfo", "sized", disk)))
            sizes = {name.lower(): int(value) for name, value in table.items()}
            found = {name: meters.get((f"disk.device.{name}", f"{uuid}-{disk}")) for name in SIZES}
            assert found["capacity"] == max(sizes["capacity"], sizes["physical"]), disk
            assert found["allocation"] == (None if off else sizes["allocation"]), disk
            assert found["usage"] == sizes["physical"], disk
            assert meters["disk.usage", uuid] == sum(
                meters["disk.device.usage", f"{uuid}-{each}"] for each in ("vda", "vdb", "vdc", "vdd")
            )

    def write(disk: int) -> None:
        device = f"/machine/peripheral/virtio-disk{disk}/virtio-backend"
        command = f'qemu-io -d {device} "write 65536 131072"'
        libvirtd.virsh("qemu-monitor-command", "sized", "--hmp", command)

    names = ("vda", "vdb", "vdc", "vdd")
    with libvirtd.guest("sized", disks=names) as uuid:
        libvirtd.virsh("destroy", "sized")
        partly, full, odd = (libvirtd.empty_disk(f"sized.{name}") for name in names[1:])
        partly.write_bytes(b"x" * 335872)
        os.truncate(partly, 393216)
        full.write_bytes(b"x" * 2**20)
        odd.write_bytes(b"x" * 300)  # not a multiple of the sector size
        os.truncate(odd, 500_000)
        libvirtd.virsh("start", "sized")
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            cycle = FakeCycle({IHypervisor: hypervisor})
            found: dict[tuple[str, str], Any] = {}
            while ("disk.device.usage", f"{uuid}-vda") not in found:
                cycle = cycle.following()
                found = await volumes(cycle)
            shown(found)
            assert found["disk.device.allocation", f"{uuid}-vdb"] == 335872
            assert found["disk.device.usage", f"{uuid}-vdb"] == 393216
            for number in range(len(names)):
                write(number)
            shown(await volumes(cycle.following()))
            libvirtd.virsh("destroy", "sized")
            empty_qcow2(full, 8 * 2**20)
            libvirtd.virsh("detach-disk", "sized", "vdc", "--config")
            libvirtd.virsh("attach-disk", "sized", str(full), "vdc", "--config", "--subdriver", "qcow2")
            shown(await volumes(cycle.following()), off=True)
            libvirtd.virsh("start", "sized")
            while ("disk.device.usage", f"{uuid}-vda") not in found or found[
                "disk.device.capacity", f"{uuid}-vdc"
            ] < 2**23:
                cycle = cycle.following()
                found = await volumes(cycle)
            shown(found)
            write(3)
            shown(await volumes(cycle.following()))


# --- what becomes of domains


@pytest_twisted.ensureDeferred
async def test_lifecycle_events_are_observed_when_they_occur(libvirtd: Libvirtd) -> None:
    observed: list[Domain] = []

    def states() -> list[tuple[str, Any]]:
        return [(str(domain.event).partition(" (")[0], domain.stats["state.state"]) for domain in observed]

    async with hypervisor_at(libvirtd.uri) as hypervisor:
        hypervisor.observe(observed.append)
        await hypervisor.domains()
        with libvirtd.guest("brief") as uuid:
            for command in ("suspend", "resume", "reset", "destroy"):
                await deferToThread(libvirtd.virsh, command, "brief")
            await until(lambda: ("stopped", 5) in states())
        samples = []
        cycle = FakeCycle({IHypervisor: FakeHypervisor()})
        for domain in observed:
            cycle.provider(IHypervisor).running = [domain]
            cycle = cycle.following()
            samples += await GuestPollster("instance").poll(cycle)
    assert states() == [("started", 1), ("suspended", 3), ("resumed", 1), ("shutting down", 4), ("stopped", 5)]
    started = next(domain for domain in observed if domain.stats["state.state"] == 1)
    assert "cpu.time" in started.stats, "it was read while it ran"
    power = [sample for sample in samples if sample.name == "power.state"]
    assert {sample.resource_id for sample in power} == {uuid}
    assert {sample.project_id for sample in power} == {"project-1"}
    assert [sample.timestamp for sample in power] == sorted(sample.timestamp for sample in power)
    assert [sample.volume for sample in power] == [1, 3, 1, 5], "once for each start, pause, resumption and stop"


@pytest_twisted.ensureDeferred
async def test_attached_disk_is_metered_from_the_next_poll_on(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("growing") as uuid:
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            cycle = FakeCycle({IHypervisor: hypervisor})
            assert ("disk.device.capacity", f"{uuid}-vdb") not in await volumes(cycle)
            libvirtd.virsh("attach-disk", "growing", str(libvirtd.empty_disk("growing.vdb")), "vdb", "--live")
            assert ("disk.device.capacity", f"{uuid}-vdb") in await volumes(cycle.following())


@pytest_twisted.ensureDeferred
async def test_devices_are_metered_until_detached_and_others_continue(libvirtd: Libvirtd) -> None:
    tap = f"mt{os.getpid() % 100000}c"
    with libvirtd.taps(tap), libvirtd.guest("shrinking", disks=("vda", "vdb"), taps=(tap,), obliging=True) as uuid:
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            clock = Clock()
            cycle = FakeCycle({IHypervisor: hypervisor}, clock=clock)
            found = await volumes(cycle)
            while ("disk.read.bytes", uuid) not in found:
                found = await volumes(cycle)
            assert ("disk.device.capacity", f"{uuid}-vdb") in found
            assert ("network.incoming.bytes", f"shrinking-{uuid}-{tap}") in found
            unplugging = gatherResults(
                [
                    deferToThread(libvirtd.virsh, "detach-disk", "shrinking", "vdb", "--live"),
                    deferToThread(libvirtd.virsh, "detach-interface", "shrinking", "ethernet", "--live"),
                ]
            )
            cycles = [found]
            while not unplugging.called or any(resource.endswith(("vdb", tap)) for _, resource in cycles[-1]):
                clock.advance(2)
                cycle = cycle.following()
                cycles.append(await volumes(cycle))
            await unplugging
            clock.advance(2)
            cycles.append(await volumes(cycle.following()))
    assert all(volume >= 0 for each in cycles for volume in each.values())
    for meter in ("disk.device.read.bytes", "disk.device.write.requests"):
        read = [each[meter, f"{uuid}-vda"] for each in cycles if (meter, f"{uuid}-vda") in each]
        assert read == sorted(read)
    assert cycles[-1]["disk.capacity", uuid] == 2**20
    assert ("cpu", uuid) in cycles[-1]


@pytest_twisted.ensureDeferred
async def test_guest_that_shuts_down_has_an_event_and_is_metered_as_off(libvirtd: Libvirtd) -> None:
    observed: list[Domain] = []
    async with hypervisor_at(libvirtd.uri) as hypervisor:
        hypervisor.observe(observed.append)
        await hypervisor.domains()
        with libvirtd.guest("obliging", obliging=True) as uuid:
            while not any(domain.event == "stopped (shut down)" for domain in observed):
                with suppress(AssertionError):  # the guest may be off already
                    await deferToThread(libvirtd.virsh, "shutdown", "obliging", "--mode", "acpi")
                await deferLater(reactor, 0.2)
            found = await volumes(FakeCycle({IHypervisor: hypervisor}))
    events = [domain.event for domain in observed]
    assert events == ["started (booted)", "shutting down (by guest)", "stopped (shut down)"]
    assert observed[-1].stats["state.state"] == found["power.state", uuid] == 5
    assert ("cpu", uuid) not in found


@pytest_twisted.ensureDeferred
async def test_restored_guest_begins_a_new_run(libvirtd: Libvirtd) -> None:
    observed: list[Domain] = []
    with libvirtd.guest("sleeper") as uuid:
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            hypervisor.observe(observed.append)
            clock = Clock()
            cycle = FakeCycle({IHypervisor: hypervisor}, clock=clock)
            before = await volumes(cycle)
            clock.advance(2)
            await deferToThread(libvirtd.virsh, "managedsave", "sleeper")
            off = await volumes(cycle.following())
            await deferToThread(libvirtd.virsh, "start", "sleeper")
            clock.advance(2)
            after = await volumes(cycle.following())
            await until(lambda: any(domain.event == "started (restored)" for domain in observed))
    assert ("stopped (saved)", 5) in [(domain.event, domain.stats["state.state"]) for domain in observed]
    assert off["power.state", uuid] == 5
    assert ("cpu", uuid) in before
    assert ("cpu", uuid) in after
    assert not {meter for meter, _ in after if meter == "cpu_util" or meter.endswith((".rate", ".delta"))}


@pytest_twisted.ensureDeferred
async def test_migrating_guest_is_metered_by_one_host_at_a_time(
    libvirtd: Libvirtd, libvirtd_elsewhere: Libvirtd
) -> None:
    context: list[Domain] = []
    there: list[Domain] = []
    clock = Clock()
    with libvirtd.guest("mover") as uuid:
        async with hypervisor_at(libvirtd.uri) as source, hypervisor_at(libvirtd_elsewhere.uri) as target:
            source.observe(context.append)
            target.observe(there.append)
            cycles = [FakeCycle({IHypervisor: each}, clock=clock) for each in (source, target)]
            seen = [[await volumes(cycle)] for cycle in cycles]
            migration = deferToThread(
                libvirtd.virsh,
                *("migrate", "--live", "--p2p", "--tunnelled", "--unsafe", "--undefinesource", "--persistent"),
                *("mover", libvirtd_elsewhere.uri),
            )
            while not migration.called:
                clock.advance(2)
                for number, cycle in enumerate(cycles):
                    cycles[number] = cycle.following()
                    seen[number].append(await volumes(cycles[number]))
            await migration
            await until(lambda: any(domain.event == "resumed (migrated)" for domain in there))
            for _ in range(2):
                clock.advance(2)
                cycles = [cycle.following() for cycle in cycles]
                gone, arrived = [await volumes(cycle) for cycle in cycles]
    during = [each for each in seen[0] if each.get(("power.state", uuid), 5) != 5]
    assert len(during) > 1, "it was polled while it was on its way"
    assert all(("cpu", uuid) in each for each in during)
    assert all(volume >= 0 for each in (*seen[0], *seen[1], arrived) for volume in each.values())
    assert gone == {}
    assert not [domain.event for domain in context if str(domain.event).startswith("stopped")]
    assert arrived["power.state", uuid] == 1
    assert {"cpu", "cpu.delta", "disk.read.bytes", "disk.device.capacity"} <= {meter for meter, _ in arrived}


class Agent:
    """The pollsters of one host, polled in cycles, and for each domain that has a lifecycle event before."""

    def __init__(self, hypervisor: LibvirtHypervisor, host: str, clock: Any) -> None:
        self.samples: list[Sample] = []
        self._changed: list[Domain] = []
        self._uri = hypervisor.uri
        self._host = host
        self._clock = clock
        self._hypervisor = hypervisor
        hypervisor.observe(self._changed.append)
        self.restart()

    def restart(self) -> None:
        """Discard all state."""
        config = SimpleNamespace(compute=ComputeSection(host=self._host))
        self._context = FakePluginContext({IHypervisor: self._hypervisor}, clock=self._clock, config=config)

    async def poll(self) -> list[Sample]:
        """Return the samples of one cycle, after those of the events before it."""
        while self._changed:
            await self._poll(SingleDomainHypervisor(self._uri, self._changed.pop(0)))
        return await self._poll(self._hypervisor)

    async def _poll(self, hypervisor: Any) -> list[Sample]:
        cycle = FakeCycle(context=self._context.with_providers({IHypervisor: hypervisor}))
        samples = [sample for pollster in POLLSTERS for sample in await pollster.poll(cycle)]
        self.samples += samples
        return samples


@pytest_twisted.ensureDeferred
async def test_increase_during_a_migration_is_counted_once(libvirtd: Libvirtd, libvirtd_elsewhere: Libvirtd) -> None:
    clock = IReactorTime(reactor)
    with libvirtd.guest("counter", boot_sector=READING_BOOT_SECTOR) as uuid:
        async with hypervisor_at(libvirtd.uri) as source, hypervisor_at(libvirtd_elsewhere.uri) as target:
            context, there = Agent(source, "hv1", clock), Agent(target, "hv2", clock)
            while libvirtd.reads("counter") < 50:
                await deferLater(reactor, 0.1)
            await there.poll()
            first = await context.poll()
            start = libvirtd.reads("counter")
            migration = deferToThread(
                libvirtd.virsh,
                *("migrate", "--live", "--p2p", "--tunnelled", "--unsafe", "--undefinesource", "--persistent"),
                *("--bandwidth", "4", "counter", libvirtd_elsewhere.uri),
            )
            rounds = []
            while not migration.called:
                await gatherResults([Deferred.fromCoroutine(each.poll()) for each in (context, there)])
                rounds.append((len(context.samples), len(there.samples)))
            await migration
            before = len(there.samples)
            await there.poll()
            there.restart()
            await deferLater(reactor, 0.5)
            await there.poll()
            end = libvirtd_elsewhere.reads("counter")
            await context.poll()
    meter, disk = "disk.device.read.requests", f"{uuid}-vda"
    assert {sample.resource_metadata["_meter"]["run"].partition("/")[0] for sample in first} == {"hv1"}
    counted = [
        sample for sample in (*context.samples, *there.samples) if (sample.name, sample.resource_id) == (meter, disk)
    ]
    counted.sort(key=lambda sample: sample.timestamp)
    runs = {sample.resource_metadata["_meter"]["run"] for sample in counted}
    assert len(runs) == 2, "a restart of the agent does not end a run"
    assert start <= end
    gaps = [(two.timestamp - one.timestamp).total_seconds() for one, two in pairwise(counted)]
    lost = (end - start) - await metered(counted, "increase")
    assert -20 <= lost <= 20 * (max(gaps) + 1), (start, end, [(str(s.timestamp), s.volume) for s in counted])
    # The answers to two calls that overlap in time may come in any order: what the source samples in a later round counts.
    arrived = next(number for number, sample in enumerate(there.samples) if sample.name == "instance")
    left = next((of_source for of_source, of_target in rounds if of_target > arrived), len(context.samples))
    assert not [sample for sample in context.samples[left:] if sample.name == "instance"], "one host after the other"
    power = {sample.volume for each in (context, there) for sample in each.samples if sample.name == "power.state"}
    odd = [
        (at, str(s.timestamp), s.volume, s.resource_metadata.get("status"), s.resource_metadata["_meter"])
        for at, each in (("source", context), ("target", there))
        for s in each.samples
        if s.name == "power.state" and s.volume != 1
    ]
    assert power == {1}, odd
    assert not [sample for sample in context.samples if sample.name == "memory" and sample.volume == 0]
    assert before


@pytest_twisted.ensureDeferred
async def test_sum_of_disks_survives_attaching_and_detaching(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("summed", disks=("vda", "vdb"), boot_sector=READING_BOOT_SECTOR) as uuid:
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            agent = Agent(hypervisor, "hv1", IReactorTime(reactor))
            while libvirtd.reads("summed") < 20:
                await deferLater(reactor, 0.1)
            await agent.poll()
            target = str(libvirtd.empty_disk("summed.vdc"))
            await deferToThread(libvirtd.virsh, "attach-disk", "summed", target, "vdc", "--live")
            await agent.poll()
            await deferToThread(
                libvirtd.virsh,
                *("snapshot-create-as", "summed", "--disk-only", "--no-metadata", "--diskspec"),
                *(f"vda,file={target}.qcow2", "--diskspec", "vdb,snapshot=no", "--diskspec", "vdc,snapshot=no"),
            )
            await agent.poll()
    for meter, resource in (("disk.read.requests", uuid), ("disk.device.read.requests", f"{uuid}-vda")):
        counted = [sample for sample in agent.samples if (sample.name, sample.resource_id) == (meter, resource)]
        ends = [sample.volume for sample in counted if sample.volume]
        assert await metered(counted, "increase") == ends[-1] - ends[0], meter
    sets = {
        sample.resource_metadata["_meter"]["run"] for sample in agent.samples if sample.name == "disk.read.requests"
    }
    assert len(sets) == 1, "neither a disk nor a snapshot begins another run"
    runs = {sample.resource_metadata["_meter"]["run"] for sample in agent.samples if sample.name == "cpu"}
    [run] = runs
    assert re.fullmatch(r"hv1/[0-9a-f]{8}\.\d+/vcpus", run), "of the process"


@pytest_twisted.ensureDeferred
async def test_system_libvirt_is_metered_like_a_session_libvirt(system_libvirtd: Libvirtd) -> None:
    with system_libvirtd.guest("ordinary") as uuid:
        async with hypervisor_at(system_libvirtd.uri) as hypervisor:
            found: dict[tuple[str, str], Any] = {}
            while ("disk.read.bytes", uuid) not in found:
                before = system_libvirtd.stats("ordinary")
                found = await volumes(FakeCycle({IHypervisor: hypervisor}))
                after = system_libvirtd.stats("ordinary")
    assert int(before["vcpu.0.time"]) <= found["vcpu.time", f"{uuid}-vcpu0"] <= int(after["vcpu.0.time"])
    assert {"instance", "power.state", "cpu", "memory", "memory.resident", "vcpu.delay", "disk.usage"} <= {
        meter for meter, _ in found
    }


@pytest_twisted.ensureDeferred
async def test_changed_metadata_of_a_running_domain_are_used(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("renamed", metadata=""):
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            [domain] = await hypervisor.domains()
            owner = "<owner project='p7'/>"
            await deferToThread(
                libvirtd.virsh, "metadata", "renamed", "http://example.org/billing", "--key", "b", "--set", owner
            )
            await until(lambda: hypervisor._outdated)
            [domain] = await hypervisor.domains()
            assert "p7" in domain.xml


@pytest_twisted.ensureDeferred
async def test_domain_destroyed_during_a_poll_does_not_affect_others(libvirtd: Libvirtd) -> None:
    class Treacherous:
        """A connection on which a domain ends right after its statistics were read."""

        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def getAllDomainStats(self, *arguments: int) -> Any:
            records = self._connection.getAllDomainStats(*arguments)
            libvirtd.virsh("destroy", "doomed")
            return records

    with libvirtd.guest("doomed"), libvirtd.guest("healthy") as uuid:
        async with hypervisor_at(
            libvirtd.uri, open_connection=lambda uri: Treacherous(open_read_only(uri))
        ) as hypervisor:
            found = await volumes(FakeCycle({IHypervisor: hypervisor}))
    assert found["instance", uuid] == 1
    assert ("cpu", uuid) in found  # its volume may still be 0


# --- what it costs

CALL_HEADER = struct.Struct(">6I")
REMOTE_PROGRAM = 0x20008086


class CountingProxy:
    """A proxy between a client and libvirtd that counts calls of libvirt's protocol, without keep-alive messages."""

    def __init__(self, path: Path, server: Path) -> None:
        self.calls = 0
        self._server = str(server)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            for source, target, counted in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._carry, args=(source, target, counted), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with source.makefile("rb") as stream:
            while length := stream.read(4):
                message = stream.read(int.from_bytes(length, "big") - 4)
                program, _, _, kind, _, _ = CALL_HEADER.unpack_from(message)
                self.calls += counted and program == REMOTE_PROGRAM and kind == 0
                target.sendall(length + message)
        target.close()


@contextmanager
def counting(libvirtd: Libvirtd, tmp_path: Path) -> Iterator[tuple[CountingProxy, str]]:
    path = tmp_path / "counted"
    proxy = CountingProxy(path, libvirtd.socket)
    try:
        yield proxy, f"qemu+unix:///session?socket={path}"
    finally:
        proxy.close()


@pytest_twisted.ensureDeferred
async def test_cycle_takes_one_round_trip_for_any_number_of_domains(libvirtd: Libvirtd, tmp_path: Path) -> None:
    with (
        counting(libvirtd, tmp_path) as (proxy, uri),
        libvirtd.guest("one"),
        libvirtd.guest("two"),
        libvirtd.guest("three"),
    ):
        async with hypervisor_at(uri) as hypervisor:
            cycle = FakeCycle({IHypervisor: hypervisor})
            await volumes(cycle)
            costs = []
            for _ in range(3):
                before = proxy.calls
                cycle = cycle.following()
                assert len({resource for meter, resource in await volumes(cycle) if meter == "cpu"}) == 3
                costs.append(proxy.calls - before)
    assert costs == [1, 1, 1]


@pytest_twisted.ensureDeferred
async def test_closed_connections_leave_nothing_open(libvirtd: Libvirtd) -> None:
    async with hypervisor_at(libvirtd.uri, backoff=Backoff(first=0.01, most=0.02)) as hypervisor:
        await hypervisor.domains()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            assert hypervisor._connection_thread is not None
            await hypervisor._connection_thread.finish()
            hypervisor._connection_thread = None
            await hypervisor.domains()
        assert len(os.listdir("/proc/self/fd")) <= before + 1


class LookingClock:
    """A reactor whose time advances by 0.1 ms each time it is read, so that time slices measure work."""

    def __init__(self) -> None:
        self._looks = 0

    def seconds(self) -> float:
        self._looks += 1
        return self._looks / 10_000

    def callLater(self, delay: float, function: Callable[..., Any], *arguments: Any) -> Any:
        return IReactorTime(reactor).callLater(delay, function, *arguments)


class WorkPerTurn:
    """Counts work by kind between two iterations of the reactor; ``most`` is the maximum of each kind."""

    def __init__(self) -> None:
        self.most: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._call = IReactorTime(reactor).callLater(0, self._turn)

    def count(self, kind: str) -> None:
        self._now[kind] += 1
        self.most[kind] = max(self.most[kind], self._now[kind])

    def counting(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.count(kind)
            return function(*arguments)

        return counted

    def stop(self) -> None:
        self._call.cancel()

    def _turn(self) -> None:
        self._now.clear()
        self._call = IReactorTime(reactor).callLater(0, self._turn)


class CountedPollster:
    """A pollster whose samples are counted when they are taken from its iterator."""

    def __init__(self, pollster: GuestPollster, work: WorkPerTurn) -> None:
        self._pollster = pollster
        self._work = work

    async def poll(self, cycle: ICycle) -> Iterator[Sample]:
        samples = await self._pollster.poll(cycle)
        return (sample for sample in samples if not self._work.count("drawn"))


@pytest_twisted.ensureDeferred
async def test_thousand_domains_do_not_block_the_reactor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    domain = re.sub(r"\s+", " ", """<domain type='test'><name>d{n}</name><memory>8192</memory><vcpu>2</vcpu>
        <os><type>hvm</type></os></domain>""")  # fmt: skip
    host = tmp_path / "host.xml"
    host.write_text("<node>" + "".join(domain.format(n=number) for number in range(1000)) + "</node>")
    kept: Counter[str] = Counter()

    async def put(publications: Sequence[Publication]) -> None:
        for each in publications:
            kept[each.routing_key] += int(each.headers[SAMPLES_HEADER])

    work = WorkPerTurn()
    monkeypatch.setattr(DescriptionCache, "get", work.counting("described", DescriptionCache.get))
    monkeypatch.setattr(Signer, "message", work.counting("signed", Signer.message))
    async with hypervisor_at(f"test://{host}", timeout_seconds=120) as hypervisor:
        polling = Polling(
            PluginContext("meter-compute", None, LookingClock(), {IHypervisor: hypervisor}),  # type: ignore[arg-type]
            put,
            keyring(["secret"]),
            source="here",
            timeout_seconds=120,
            batch_samples=100,
            metrics=PollingMetrics(metrics_registry("test")),
        )
        polling.pollsters = tuple(
            Decision(kind=COMPUTE, name=each.name, origin="test", state="active", plugin=CountedPollster(each, work))
            for each in POLLSTERS
        )
        report = await polling.cycle()
        work.stop()
    assert report.failed == ()
    assert (kept["metering.cpu"], kept["metering.power.state"]) == (1000, 1000)
    # A slice of 5 ms is 50 readings of this clock, plus the first; benchmarks/compute_cycle.py measures real time.
    assert work.most.keys() == {"described", "drawn", "signed"}
    assert max(work.most.values()) <= 51, work.most


@pytest_twisted.ensureDeferred
async def test_domain_with_a_hung_emulator_has_the_meters_that_need_no_emulator(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("sick") as sick, libvirtd.guest("healthy") as healthy:
        async with hypervisor_at(libvirtd.uri, timeout_seconds=3.0) as hypervisor:
            cycle = FakeCycle({IHypervisor: hypervisor})
            whole: set[str] = set()
            while "disk.read.bytes" not in whole:  # libvirt skips the disks of a domain that is busy starting
                whole = {meter for meter, resource in await volumes(cycle) if resource.startswith(sick)}
                cycle = cycle.following()
            with libvirtd.hanging("sick"):
                found = await volumes(cycle)
    still = {meter for meter, resource in found if resource.startswith(sick)}
    assert {"instance", "power.state", "cpu", "vcpu.time", "vcpus", "memory"} <= still < whole
    assert ("cpu", healthy) in found
    assert {"disk.device.read.bytes", "disk.read.bytes"} <= whole - still, "no sum without the values of all disks"
