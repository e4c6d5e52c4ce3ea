"""Lives from captured notifications of each service, from polls of the same resources, and from both."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace

from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.resource_lives import ResourceLife
from meter.completeness.lives.resource_lives import lives
from meter.message import MeteringMessage
from meter.query import SampleFilter
from meter.sample import Sample
from meter.testing import MemoryStore
from tests.signed import received
from tests.unit.completeness.test_deletion_and_ownership import KEYS
from tests.unit.completeness.test_deletion_and_ownership import NOON
from tests.unit.completeness.test_deletion_and_ownership import captured
from tests.unit.completeness.test_deletion_and_ownership import case
from tests.unit.completeness.test_deletion_and_ownership import instance
from tests.unit.completeness.test_deletion_and_ownership import made

INTERVAL = 300.0
HOUR = 3600.0


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def moved(name: str, hours: float, event_type: str | None = None, **payload: Any) -> dict[str, Any]:
    """A captured notification with another time, event type and payload."""
    content = captured(name, hours, **payload)
    content["timestamp"] = at(hours).replace(tzinfo=None).isoformat()
    return content | ({"event_type": event_type} if event_type else {})


def volume(hours: float, event: str, **payload: Any) -> dict[str, Any]:
    return moved(
        "openstack.volume.create.end",
        hours,
        f"volume.{event}",
        **{"created_at": at(0).isoformat(), "volume_id": "v", "tenant_id": "p1", "size": 10, **payload},
    )


def floating_ip(hours: float, event: str, **body: Any) -> dict[str, Any]:
    content = moved("neutron.floatingip.create.end", hours, f"floatingip.{event}")
    content["payload"]["floatingip"] |= {"id": "f", "project_id": "p1", "tenant_id": "p1", "status": "DOWN", **body}
    content["payload"]["floatingip"] |= {"created_at": at(0).isoformat()}
    return content


def image(hours: float, event: str, **payload: Any) -> dict[str, Any]:
    return moved(
        "glance.image.upload",
        hours,
        f"image.{event}",
        **{"id": "m", "owner": "p1", "status": "active", "size": 7, "created_at": at(0).isoformat(), **payload},
    )


def snapshot(hours: float, event: str, **payload: Any) -> dict[str, Any]:
    return moved(
        "openstack.snapshot.create.end",
        hours,
        f"snapshot.{event}",
        **{"snapshot_id": "s", "created_at": at(0).isoformat(), "tenant_id": "p1", "volume_size": 5, **payload},
    )


LIVES: dict[str, tuple[str, Sequence[dict[str, Any]], list[tuple[Any, ...]]]] = {
    "volume": (
        "volume",
        [
            volume(0, "create.start", status="creating"),
            volume(0.01, "create.end", status="available"),
            volume(1, "attach.end", status="in-use"),
            volume(2, "detach.end", status="available"),
            volume(3, "resize.end", status="available", size=20),
            volume(4, "transfer.accept.end", status="available", size=20, tenant_id="p2"),
            volume(5, "delete.end", status="deleting", size=20, tenant_id="p2"),
        ],
        [
            ("creating", 10, "p1", 0, 0.01),
            ("available", 10, "p1", 0.01, 1),
            ("in-use", 10, "p1", 1, 2),
            ("available", 10, "p1", 2, 3),
            ("available", 20, "p1", 3, 4),
            ("available", 20, "p2", 4, 5),
        ],
    ),
    "snapshot": (
        "snapshot",
        [snapshot(0, "create.end", status="available"), snapshot(2, "delete.end", status="deleting")],
        [("available", 5, "p1", 0, 2)],
    ),
    "image": (
        "image",
        [image(0, "upload"), image(2, "delete", status="deleted", deleted=True, deleted_at=at(2).isoformat())],
        [("active", 7, "p1", 0, 2)],
    ),
    "floating_ip": (
        "floating_ip",
        [floating_ip(0, "create.end"), floating_ip(1, "update.end", status="ACTIVE"), floating_ip(3, "delete.end")],
        [("DOWN", None, "p1", 0, 1), ("ACTIVE", None, "p1", 1, 3)],
    ),
}


def polls(kind: str, life: Sequence[tuple[Any, ...]], phase: float) -> tuple[list[Sample], list[ListedTime]]:
    """What the central agent samples and lists of a resource with this life."""
    resource = {"volume": "v", "snapshot": "s", "image": "m", "floating_ip": "f"}[kind]
    meters = {
        "volume": ("volume", "volume.size"),
        "snapshot": ("volume.snapshot.size",),
        "image": ("image", "image.size"),
        "floating_ip": ("ip.floating",),
    }[kind]
    samples: list[Sample] = []
    when, seen = at(0) + timedelta(seconds=phase), []
    while when < at(life[-1][4]):
        for state, size, project, began, ended in life:
            if at(began) <= when < at(ended):
                metadata = {
                    **{"status": state, "name": "n", "created_at": at(life[0][3]).isoformat()},
                    "_meter": {"interval": INTERVAL, "run": "exists"},
                }
                samples += [
                    Sample(
                        name=meter,
                        type="gauge",
                        unit="u",
                        volume=size if meter.endswith("size") else 1,
                        resource_id=resource,
                        project_id=project,
                        timestamp=when,
                        resource_metadata=metadata,
                    )
                    for meter in meters
                ]
                seen.append(when)
        when += timedelta(seconds=INTERVAL)
    listed = ListedTime(
        agent="meter-central@c1",
        host="c1",
        pollster=KINDS[kind].polled[0],
        resource_id=resource,
        project_id=None,
        interval=INTERVAL,
        first=seen[0],
        last=seen[-1],
        gone=when,
        unlisted_seconds=INTERVAL,
    )
    return samples, [listed]


async def found(samples: Iterable[Sample], listed: Sequence[ListedTime] = ()) -> list[ResourceLife]:
    store = MemoryStore()
    messages: list[MeteringMessage] = [received(sample, KEYS, "test") for sample in samples]
    await store.write(messages)
    store.listed_times += listed
    return [each async for each in lives(store, SampleFilter(), None, at(2000))]


def segments(found: Sequence[LifeSegment]) -> list[tuple[Any, ...]]:
    return [
        (
            *(each.state, each.size, each.project_id),
            (each.began - NOON) / timedelta(hours=1),
            None if each.ended is None else (each.ended - NOON) / timedelta(hours=1),
        )
        for each in found
    ]


@pytest.mark.parametrize("name", LIVES)
@pytest_twisted.ensureDeferred
async def test_notifications_polls_and_both_tell_the_same_life(name: str) -> None:
    kind, notifications, expected = LIVES[name]
    [notified] = await found(made(notifications))
    assert notified.kind == kind
    assert segments(notified.segments) == expected
    assert {each.began_told_by for each in notified.segments} == {"event"}

    # What lasts for less than an interval is not polled.
    lasting = [
        (state, size, project, 0 if n == 0 else began, ended)
        for n, (state, size, project, began, ended) in enumerate(each for each in expected if each[4] - each[3] > 0.1)
    ]
    for phase in (0.0, 40.0, 299.0):
        samples, listed = polls(kind, lasting, phase)
        [polled] = await found(samples, listed)
        assert [each[:3] for each in segments(polled.segments)] == [each[:3] for each in lasting]
        for each, (_, _, _, began, ended) in zip(polled.segments, lasting, strict=True):
            assert each.ended is not None
            assert timedelta() <= each.began - at(began) <= timedelta(seconds=INTERVAL)
            assert timedelta() <= each.ended - at(ended) <= timedelta(seconds=INTERVAL)
        [both] = await found([*made(notifications), *samples], listed)
        assert segments(both.segments) == expected
        assert list(both.contradictions) == []


@pytest_twisted.ensureDeferred
async def test_volume_that_is_transferred_has_its_new_owner_at_once() -> None:
    [notification] = [case("volume-transfer-accept")]
    [life] = await found(made([notification]))
    assert [(each.project_id, each.user_id, each.size, each.state) for each in life.segments] == [
        ("proj-b", "usr-b", 10, "available")
    ]
    # It was created at 10:00:00 and accepted at 10:00:21.
    assert (life.segments[0].began.second, life.segments[0].began_within) == (0, 0.0)


@pytest_twisted.ensureDeferred
async def test_instance_that_is_soft_deleted_and_restored_exists_all_the_time() -> None:
    samples = [sample for sample in made(case("soft_delete_restore")) if sample.name == "instance"]
    [life] = await found(samples)
    end = datetime.fromisoformat("2026-06-01T00:00:00+00:00")
    start = datetime.fromisoformat("2026-05-01T00:00:00+00:00")
    hours = {state: seconds / HOUR for (state, _), seconds in life.seconds(start, end).items()}
    assert hours == {"active": pytest.approx(732, abs=1), "soft-delete": pytest.approx(2, abs=0.01)}


@pytest_twisted.ensureDeferred
async def test_shelved_instance_is_not_ended_by_its_host() -> None:
    """Nova undefines the domain of a shelved instance: the compute agent ends its gauges with 0."""

    def polled(hours: float, volume: int = 1) -> Sample:
        return Sample(
            name="instance",
            type="gauge",
            unit="instance",
            volume=volume,
            resource_id=shelved["payload"]["instance_id"],
            project_id=shelved["payload"]["tenant_id"],
            timestamp=at(hours),
            resource_metadata={"state": "active", "instance_host": "hv1", "_meter": {"interval": INTERVAL}},
        )

    shelved = instance("shelve_offload.end", 2 * HOUR, state="shelved_offloaded")
    notifications = [
        instance("create.end", 1, state="active"),
        shelved,
        instance("unshelve.end", 4 * HOUR, state="active"),
    ]
    samples = [sample for sample in made(notifications) if sample.name == "instance"]
    [life] = await found([*samples, *(polled(n / 12) for n in range(1, 24)), polled(2.001, 0)])
    assert [(each.state, each.ended) for each in life.segments] == [
        ("active", at(2)),
        ("shelved_offloaded", at(4)),
        ("active", None),
    ]
    assert list(life.contradictions) == []


@pytest_twisted.ensureDeferred
async def test_samples_of_unknown_origin_tell_nothing() -> None:
    sample = Sample(
        name="volume", type="gauge", unit="volume", volume=1, resource_id="v", timestamp=at(0), project_id="p1"
    )
    foreign = {"event_type": "database.instance.create", "state": "active"}
    assert await found([sample, replace(sample, name="instance", resource_metadata=foreign)]) == []
