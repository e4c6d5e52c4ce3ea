"""Lives of the domains of a plain libvirt host, with real libvirtds and guests, from what the compute agent's pollsters sample."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from datetime import datetime
from itertools import groupby
from itertools import pairwise

import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread

from meter.completeness.lives.kinds import INSTANCE
from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.resource_lives import lives
from meter.query import SampleFilter
from meter.sample import Sample
from meter.sample import with_reserved
from meter.signing_keys import keyring
from meter.testing import MemoryStore
from tests.integration.test_compute_libvirtd import Agent
from tests.integration.test_compute_libvirtd import hypervisor_at
from tests.integration.test_compute_libvirtd import until
from tests.servers.libvirt import Libvirtd
from tests.signed import received

INTERVAL = 300
"""The polling interval that the samples state. The test polls more often."""

KEYS = keyring(["secret"])


def now() -> datetime:
    return datetime.now(UTC)


async def lived(samples: Iterable[Sample], resource: str) -> list[LifeSegment]:
    store = MemoryStore()
    stated = [
        replace(sample, resource_metadata=with_reserved(sample.resource_metadata, interval=INTERVAL))
        for sample in samples
    ]
    await store.write([received(sample, KEYS, "test") for sample in stated])
    filter = SampleFilter(equals={"resource_id": resource})
    found = [each async for each in lives(store, filter, None, now(), kinds=[KINDS[INSTANCE]])]
    assert [each.resource_id for each in found] == [resource]
    assert list(found[0].contradictions) == []
    return list(found[0].segments)


@pytest_twisted.ensureDeferred
async def test_domain_lives_from_its_first_poll_to_its_undefinition(libvirtd: Libvirtd) -> None:
    times: dict[str, tuple[datetime, datetime]] = {}
    states = {"suspend": 3, "resume": 1, "destroy": 5}
    async with hypervisor_at(libvirtd.uri) as hypervisor:
        agent = Agent(hypervisor, "hv1", IReactorTime(reactor))
        await agent.poll()
        with libvirtd.guest("life") as uuid:

            async def polled(state: int, known: int) -> None:
                """Poll until the event of this state is sampled."""
                while not any(
                    sample.name == "power.state" and sample.volume == state and "event" in sample.resource_metadata
                    for sample in agent.samples[known:]
                ):
                    await agent.poll()

            await agent.poll()
            for command, state in states.items():
                known, before = len(agent.samples), now()
                await deferToThread(libvirtd.virsh, command, "life")
                await polled(state, known)
                times[command] = (before, now())  # virsh may return before the event arrives, whose time is that
                await agent.poll()
            before = now()
            await deferToThread(libvirtd.virsh, "undefine", "life")
        await until(lambda: hypervisor.absence(uuid).since is not None)
        times["undefine"] = (before, now())
        await agent.poll()
    segments = await lived(agent.samples, uuid)

    assert [each.state for each in segments] == ["active", "paused", "active", "stopped"]
    for each, (before, after) in zip(segments, times.values(), strict=True):
        assert each.ended is not None
        assert before <= each.ended <= after
        assert (each.ended_told_by, each.ended_within) == ("event", 0.0)
    assert {each.project_id for each in segments} == {"project-1"}


@pytest_twisted.ensureDeferred
async def test_migrating_domain_lives_once(libvirtd: Libvirtd, libvirtd_elsewhere: Libvirtd) -> None:
    clock = IReactorTime(reactor)
    with libvirtd.guest("roamer") as uuid, libvirtd.guest("stayer") as stayer:
        async with hypervisor_at(libvirtd.uri) as source, hypervisor_at(libvirtd_elsewhere.uri) as target:
            agents = [Agent(source, "hv1", clock), Agent(target, "hv2", clock)]
            for agent in agents:
                await agent.poll()
            migration = deferToThread(
                libvirtd.virsh,
                *("migrate", "--live", "--p2p", "--tunnelled", "--unsafe", "--undefinesource", "--persistent"),
                *("roamer", libvirtd_elsewhere.uri),
            )
            while not migration.called:
                for agent in agents:
                    await agent.poll()
            await migration
            arrived = False
            while not arrived:
                arrived = any(sample.resource_id == uuid for sample in await agents[1].poll())
            for agent in agents:
                await agent.poll()
            await deferToThread(libvirtd_elsewhere.virsh, "destroy", "roamer")
            await deferToThread(libvirtd_elsewhere.virsh, "undefine", "roamer")
            await until(lambda: target.absence(uuid).since is not None)
            for agent in agents:
                await agent.poll()
    samples = [sample for agent in agents for sample in agent.samples]

    segments = await lived(samples, uuid)
    # A poll may find the domain in the pause at the end of its migration, or not.
    states = [state for state, _ in groupby(each.state for each in segments if each.state != "paused")]
    assert states in (["active", "stopped"], ["active"])
    assert all(one.ended == other.began for one, other in pairwise(segments))
    assert segments[-1].ended_told_by == "event"
    [remaining] = await lived(samples, stayer)
    assert (remaining.state, remaining.ended) == ("active", None)
