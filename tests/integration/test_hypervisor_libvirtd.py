"""The hypervisor on a real libvirtd with QEMU guests under emulation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import asynccontextmanager
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from meter.daemon.services import Backoff
from meter.hypervisor import LibvirtHypervisor
from meter.hypervisor import open_read_only
from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.interfaces import Unavailable
from meter.pollsters.libvirt import cpu
from meter.pollsters.libvirt import instance
from meter.pollsters.libvirt import memory
from meter.pollsters.libvirt import vcpus
from meter.testing import FakeCycle
from tests.servers.libvirt import Libvirtd


@asynccontextmanager
async def hypervisor_at(uri: str, **settings: Any) -> AsyncIterator[LibvirtHypervisor]:
    """A hypervisor that is impatient, as a service that runs."""
    hypervisor = LibvirtHypervisor(
        uri,
        clock=IReactorTime(reactor),
        reactor_threads=IReactorFromThreads(reactor),
        timeout_seconds=settings.pop("timeout_seconds", 5.0),
        check_seconds=0.1,
        backoff=Backoff(first=0.05, most=0.1),
        **settings,
    )
    hypervisor.startService()
    try:
        yield hypervisor
    finally:
        await hypervisor.stopService()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await deferLater(reactor, 0.02)


async def domain_named(hypervisor: LibvirtHypervisor, name: str) -> Domain:
    [domain] = [domain for domain in await hypervisor.domains() if domain.name == name]
    return domain


async def answered(hypervisor: LibvirtHypervisor) -> Sequence[Domain]:
    """The domains, once libvirt answers within the time limit of a call: on a busy machine not the first time."""
    while True:
        with suppress(Unavailable):
            return await hypervisor.domains()
        await until(lambda: hypervisor.stuck_threads == 0)


GAUGES = {"balloon.rss"}
"""Statistics of a guest without a balloon driver and without writes that rise and fall by themselves."""

MAX_READINGS = 50


@pytest_twisted.ensureDeferred
async def test_statistics_are_those_that_virsh_shows(libvirtd: Libvirtd) -> None:
    unseen = set(GAUGES)
    with libvirtd.guest("alpha") as uuid:
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            for _ in range(MAX_READINGS):  # what rises and falls may be elsewhere between two looks, but not always
                before = libvirtd.stats("alpha")
                alpha = await domain_named(hypervisor, "alpha")
                after = libvirtd.stats("alpha")
                assert alpha.uuid == uuid
                assert set(alpha.stats) == set(before)
                for name in alpha.stats.keys() - GAUGES:
                    value = alpha.stats[name]
                    shown = str(value).lower() if not isinstance(value, bool) else value
                    assert shown == before[name] or int(before[name]) <= int(value) <= int(after[name]), name
                for name in set(unseen):
                    least, most = sorted((int(before[name]), int(after[name])))
                    if least <= alpha.stats[name] <= most:
                        unseen.remove(name)
                if not unseen:
                    break
    assert unseen == set(), f"never what virsh shows, in {MAX_READINGS} readings"
    assert "nova/1.1" in alpha.xml


@pytest_twisted.ensureDeferred
async def test_meters_of_a_guest_are_those_that_virsh_shows(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("alpha") as uuid:
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            cycle = FakeCycle({IHypervisor: hypervisor})
            before = libvirtd.stats("alpha")
            taken = {
                one.name: one
                for pollster in (instance, cpu, vcpus, memory)
                for one in await pollster.poll(cycle)
                if one.resource_id == uuid
            }
            after = libvirtd.stats("alpha")
    existence, time, processors, mebibytes = (taken[name] for name in ("instance", "cpu", "vcpus", "memory"))
    assert (existence.volume, processors.volume, mebibytes.volume) == (1, 1, 64.0)
    assert (
        int(before["vcpu.0.time"]) + int(before["vcpu.0.wait"])
        <= time.volume
        <= int(after["vcpu.0.time"]) + int(after["vcpu.0.wait"])
    )
    assert (time.project_id, time.user_id) == ("project-1", "user-1")
    states = [time.resource_metadata[name] for name in ("status", "state", "power_state")]
    assert states == ["active", "active", "running"]


@pytest_twisted.ensureDeferred
async def test_guest_that_is_shut_off_exists_and_uses_nothing(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("alpha"):
        libvirtd.virsh("destroy", "alpha")
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            cycle = FakeCycle({IHypervisor: hypervisor})
            taken = [one for pollster in (instance, cpu, vcpus, memory) for one in await pollster.poll(cycle)]
    assert {(one.name, one.volume, one.resource_metadata["status"]) for one in taken} == {
        ("instance", 1, "stopped"),
        ("instance:m1.tiny", 1, "stopped"),
        ("power.state", 5, "stopped"),
        ("disk.root.size", 1, "stopped"),
        ("disk.ephemeral.size", 0, "stopped"),
        ("vcpus", 0, "stopped"),
        ("memory", 0, "stopped"),
    }


@pytest_twisted.ensureDeferred
async def test_guest_whose_emulator_hangs_delays_the_others_by_one_time_limit(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("healthy"), libvirtd.guest("sick"):
        async with hypervisor_at(libvirtd.uri, timeout_seconds=3.0) as hypervisor:
            whole = await domain_named(hypervisor, "healthy")
            with libvirtd.hanging("sick"):
                domains = {domain.name: domain for domain in await hypervisor.domains()}
                assert set(domains["healthy"].stats) == set(whole.stats)
                assert set(domains["sick"].stats) < set(whole.stats)
                assert (hypervisor.abandoned_calls, hypervisor.stuck_threads) == (1, 1)

                assert hypervisor.readiness().ready
                assert hypervisor.readiness().reason.endswith("; hung domains: sick")
                assert len(hypervisor.hung) == 1
                assert set(hypervisor.unreadable.values()) == {"domain hung"}
                assert len(hypervisor.unreadable) == 1

                await hypervisor.domains()
                assert hypervisor.abandoned_calls == 1, "libvirt knows by now who is busy"
            await until(lambda: hypervisor.stuck_threads == 0)
            assert set((await domain_named(hypervisor, "sick")).stats) == set(whole.stats)
            assert "hung" not in hypervisor.readiness().reason
            assert hypervisor.unreadable == {}


@pytest_twisted.ensureDeferred
async def test_libvirtd_that_hangs_is_unavailable_until_it_continues(libvirtd: Libvirtd) -> None:
    async with hypervisor_at(libvirtd.uri, timeout_seconds=0.5, stuck_limit=3) as hypervisor:
        await until(lambda: hypervisor.readiness().ready)
        with libvirtd.frozen():
            with pytest.raises(Unavailable):
                await hypervisor.domains()
            assert not hypervisor.readiness().ready
            await until(lambda: hypervisor.stuck_threads == 3)
            with pytest.raises(Unavailable, match="3 calls hang; no more calls are made"):
                await hypervisor.domains()
        await until(lambda: hypervisor.readiness().ready and hypervisor.stuck_threads == 0)


@pytest_twisted.ensureDeferred
async def test_keep_alive_frees_a_call_that_hangs_in_a_dead_connection(
    libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meter.hypervisor.events.KEEP_ALIVE_SECONDS", 3)  # much later than the time limit of a call
    monkeypatch.setattr("meter.hypervisor.events.KEEP_ALIVE_MISSED", 1)
    hypervisor = LibvirtHypervisor(
        libvirtd.uri,
        clock=IReactorTime(reactor),
        reactor_threads=IReactorFromThreads(reactor),
        timeout_seconds=0.5,
    )
    await answered(hypervisor)
    abandoned = hypervisor.abandoned_calls
    with libvirtd.frozen():
        with pytest.raises(Unavailable):
            await hypervisor.domains()
        assert hypervisor.abandoned_calls == abandoned + 2
        await until(lambda: hypervisor.stuck_threads == 1)  # the other hangs in opening its connection
    await until(lambda: hypervisor.stuck_threads == 0)
    assert await answered(hypervisor) == []
    await hypervisor.stopService()


@pytest_twisted.ensureDeferred
async def test_libvirtd_may_start_after_the_service(libvirtd: Libvirtd) -> None:
    await deferToThread(libvirtd.stop)
    try:
        async with hypervisor_at(libvirtd.uri) as hypervisor:
            with pytest.raises(Unavailable, match="Failed to connect socket"):
                await hypervisor.domains()
            assert not hypervisor.readiness().ready
            await deferToThread(libvirtd.start)
            await until(lambda: hypervisor.readiness().ready)
            assert await hypervisor.domains() == []
    finally:
        if not libvirtd.running:
            libvirtd.start()


@pytest_twisted.ensureDeferred
async def test_restart_of_libvirtd_between_two_polls_is_not_an_error(libvirtd: Libvirtd) -> None:
    with libvirtd.guest("alpha") as uuid:
        hypervisor = LibvirtHypervisor(
            libvirtd.uri, clock=IReactorTime(reactor), reactor_threads=IReactorFromThreads(reactor)
        )
        try:
            assert [domain.uuid for domain in await hypervisor.domains()] == [uuid]
            await deferToThread(libvirtd.stop)
            await deferToThread(libvirtd.start)
            assert [domain.uuid for domain in await hypervisor.domains()] == [uuid]
        finally:
            await hypervisor.stopService()


@pytest_twisted.ensureDeferred
async def test_service_is_not_ready_while_libvirtd_is_down(libvirtd: Libvirtd) -> None:
    async with hypervisor_at(libvirtd.uri) as hypervisor:
        await until(lambda: hypervisor.readiness().ready)
        await deferToThread(libvirtd.stop)
        try:
            await until(lambda: not hypervisor.readiness().ready)
            assert libvirtd.uri in hypervisor.readiness().reason
        finally:
            await deferToThread(libvirtd.start)
        await until(lambda: hypervisor.readiness().ready)


@pytest_twisted.ensureDeferred
async def test_test_driver_of_libvirt_gives_the_basic_statistics() -> None:
    async with hypervisor_at("test:///default") as hypervisor:
        [domain] = await hypervisor.domains()
    info = open_read_only("test:///default").lookupByName("test").info()
    assert domain.name == "test"
    assert domain.stats["state.state"] == info[0]
    assert domain.stats["balloon.current"] == info[2]
    assert domain.stats["vcpu.current"] == info[3]
    assert isinstance(domain.stats["cpu.time"], int)
