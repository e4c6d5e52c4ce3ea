"""Deleted resources measure 0 from their deletion on, transfers change the owner at once, and restored instances exist."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from meter.collector.conversion import parse_notification
from meter.completeness.lives.segments import seconds_by_state_and_flavor
from meter.completeness.lives.segments import segments
from meter.message import seal
from meter.plugins.registry import LISTENER
from meter.plugins.registry import find
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample import Sample
from meter.signing_keys import keyring
from meter.testing import MemoryStore
from tests.metered import with_stable_ids
from tests.signed import received

DATA = Path(__file__).parents[2] / "data"
LISTENERS = [decision.plugin for decision in find([LISTENER])]
KEYS = keyring(["secret"])
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def case(name: str) -> Any:
    return json.loads((DATA / "cases" / f"{name}.json").read_text())


def captured(name: str, seconds: float = 0, **payload: Any) -> dict[str, Any]:
    content: dict[str, Any] = copy.deepcopy(
        json.loads((DATA / "notifications" / f"{name}.json").read_text())["message"]
    )
    content["payload"] |= payload
    content["message_id"] += f" {seconds}"
    return content


def said(event_type: str, seconds: float, payload: Any, **context: Any) -> dict[str, Any]:
    return {
        "message_id": f"{event_type} {seconds}",
        "event_type": event_type,
        "publisher_id": "service.host1",
        "priority": "INFO",
        "timestamp": (NOON + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(),
        "payload": payload,
        **{f"_context_{name}": value for name, value in context.items()},
    }


def made(notifications: Sequence[dict[str, Any]]) -> list[Sample]:
    samples = []
    for content in notifications:
        notification = parse_notification(seal(content))
        for listener in LISTENERS:
            if any(fnmatchcase(notification.event_type, pattern) for pattern in listener.event_types):
                samples += with_stable_ids(notification, list(listener.samples(notification)))
    return samples


async def stored(notifications: Sequence[dict[str, Any]]) -> MemoryStore:
    store = MemoryStore()
    await store.write([received(sample, KEYS, "test") for sample in made(notifications)])
    return store


async def integral(store: MemoryStore, meter: str) -> float:
    query = StatisticsQuery(filter=SampleFilter(equals={"meter": meter}), aggregates=(Aggregate("integral"),))
    [row] = await store.statistics(query)
    return row.values["integral"]


# --- instances -----------------------------------------------------------------------------------------------------


def instance(event: str, seconds: float, **payload: Any) -> dict[str, Any]:
    content = captured("nova.compute.instance.exists.1", seconds)
    for name in ("audit_period_beginning", "audit_period_ending"):
        del content["payload"][name]
    content["payload"] |= {"launched_at": NOON.replace(tzinfo=None).isoformat(), **payload}
    return {
        **content,
        "event_type": f"compute.instance.{event}",
        "timestamp": (NOON + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(),
        "_context_request_id": f"req-{event}-{seconds}",
    }


def audit(seconds: float, **payload: Any) -> dict[str, Any]:
    ending = (NOON + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    return instance("exists", seconds + 5, audit_period_ending=ending, **payload)


DELETED = {"state": "deleted", "deleted_at": "2026-11-22T12:05:04", "terminated_at": "2026-11-22T12:05:03"}
LIVED_HOURS = 304 / 3600


@pytest.mark.parametrize(
    "life",
    [
        [instance("create.end", 1), instance("delete.end", 305, **DELETED)],
        [instance("create.end", 1), instance("delete.end", 305, **DELETED), audit(3600, **DELETED)],
        [instance("create.end", 1), audit(3600, **DELETED)],  # only the audit tells of the end
        [audit(3600, **DELETED), instance("create.end", 1), audit(7200, **DELETED)],
        # Deleted while its host was away: Nova leaves the last state.
        [instance("create.end", 1), audit(3600, **(DELETED | {"state": "error"}))],
    ],
)
@pytest_twisted.ensureDeferred
async def test_deleted_instance_is_billed_until_its_deletion(life: list[dict[str, Any]]) -> None:
    store = await stored(life)
    assert await integral(store, "vcpus") == pytest.approx(LIVED_HOURS)
    assert await integral(store, "memory") == pytest.approx(64 * LIVED_HOURS)
    assert await integral(store, "instance:m1.tiny") == pytest.approx(LIVED_HOURS)
    ends = [row for row in await store.samples(SampleFilter(equals={"meter": "vcpus"}), 10) if row.volume == 0]
    assert {row.timestamp for row in ends} == {NOON + timedelta(seconds=304)}
    rows = await store.samples(SampleFilter(equals={"meter": "instance"}), 10)
    [lived] = segments(rows)
    assert (lived.state, lived.began, lived.ended) == ("active", NOON, NOON + timedelta(seconds=304))


@pytest.mark.parametrize(
    ("deleted_at", "end"),
    [
        ("2026-11-22T12:05:04", 304.0),
        ("", 600.0),  # nothing is told: the notification's own time
        ("2027-01-01T00:00:00", 600.0),  # not to be believed: nothing may be billed into the future
        ("soon", 600.0),
        ("1970-01-01T00:00:00", 600.0),  # before it was made: its whole life would be billed as 0
        ("0001-01-01 00:00:00", 600.0),
    ],
)
def test_zero_sample_has_the_time_of_the_deletion(deleted_at: str, end: float) -> None:
    told = instance("delete.end", 600, state="deleted", deleted_at=deleted_at, terminated_at="")
    for sample in made([told]):
        assert (sample.volume, sample.timestamp) == (0, NOON + timedelta(seconds=end))


def test_restored_instance_is_active_for_732_hours_and_soft_deleted_for_two() -> None:
    samples = [sample for sample in made(case("soft_delete_restore")) if sample.name == "instance"]
    assert [sample.volume for sample in samples] == [1] * len(samples)
    found = segments([Told(sample) for sample in samples])
    may, june = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    seconds = seconds_by_state_and_flavor(found, may, june)
    assert seconds == {("active", "tiny.one"): 732 * 3600 - 21, ("soft-delete", "tiny.one"): 2 * 3600 + 1}


class Told:
    """A sample as the store returns it."""

    def __init__(self, sample: Sample) -> None:
        self.timestamp = sample.timestamp
        self.volume = sample.volume
        self.metadata = sample.resource_metadata


def test_reclaimed_instance_ends_when_it_is_reclaimed() -> None:
    soft = {"state": "soft-delete", "deleted_at": "2026-11-22T12:10:00", "terminated_at": ""}
    life = [
        instance("create.end", 1),
        instance("soft_delete.end", 600, **soft),
        audit(3600, **soft),
        instance(
            "delete.end", 7200, state="deleted", deleted_at=soft["deleted_at"], terminated_at="2026-11-22T14:00:00"
        ),
    ]
    found = segments([Told(sample) for sample in made(life) if sample.name == "instance"])
    assert [(each.state, each.ended) for each in found] == [
        ("active", NOON + timedelta(seconds=600)),
        ("soft-delete", NOON + timedelta(seconds=7200)),
    ]


# --- volumes and the rest ------------------------------------------------------------------------------------------


def volume(event: str, seconds: float, **payload: Any) -> dict[str, Any]:
    content = captured("openstack.volume.create.end", seconds, **payload)
    return {
        **content,
        "event_type": f"volume.{event}",
        "timestamp": (NOON + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(),
    }


DAY = {"audit_period_beginning": "2026-11-22 00:00:00+00:00", "audit_period_ending": "2026-11-22 23:59:59+00:00"}


@pytest_twisted.ensureDeferred
async def test_volume_that_existed_for_four_seconds_is_billed_for_them() -> None:
    store = await stored(
        [
            volume("create.end", 0),
            volume("delete.start", 3.2, status="deleting"),
            volume("delete.end", 3.7, status="deleted"),
            volume("exists", 700, status="deleted", **DAY),
            volume("exists", 4300, status="deleted", **DAY),
        ]
    )
    assert await integral(store, "volume.size") == pytest.approx(2 * 3.7 / 3600)
    assert await integral(store, "volume") == pytest.approx(3.7 / 3600)


def test_audit_ends_a_deleted_volume_with_the_audit_period() -> None:
    told = volume("exists", 13 * 3600, status="deleted", **DAY)
    assert {sample.timestamp for sample in made([told]) if sample.volume == 0} == {
        datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)
    }


OWNED = {"project_id": "p", "tenant_id": "p"}


@pytest.mark.parametrize(
    ("meter", "living", "end"),
    [
        (
            "snapshot.size",
            said("snapshot.create.end", 0, {"snapshot_id": "x", "volume_size": 4, "deleted": "", **OWNED}),
            said("snapshot.exists", 60, {"snapshot_id": "x", "volume_size": 4, "deleted": "True", **OWNED}),
        ),
        (
            "backup.size",
            said("backup.create.end", 0, {"backup_id": "x", "size": 4, **OWNED}),
            said("backup.delete.end", 60, {"backup_id": "x", "size": 4, **OWNED}),
        ),
        (
            "manila.share.size",
            said("share.create.end", 0, {"share_id": "x", "size": 4, **OWNED}),
            said("share.delete.end", 60, {"share_id": "x", "size": 4, **OWNED}),
        ),
        (
            "image.size",
            said("image.upload", 0, {"id": "x", "size": 4, "owner": "p", "status": "active"}),
            said(
                "image.delete",
                61,
                {"id": "x", "size": 4, "owner": "p", "status": "deleted", "deleted_at": "2026-11-22T12:01:00Z"},
            ),
        ),
        *(
            (
                meter,
                said(f"{kind}.create.end", 0, {kind: {"id": "x", **OWNED}}),
                said(f"{kind}.delete.end", 60, payload, project_id="p"),
            )
            for meter, kind in [
                ("ip.floating", "floatingip"),
                ("network", "network"),
                ("subnet", "subnet"),
                ("port", "port"),
                ("router", "router"),
                ("network.services.lb.vip", "vip"),
                ("network.services.lb.pool", "pool"),
                ("network.services.firewall", "firewall"),
                ("network.services.vpn", "vpnservice"),
            ]
            for payload in (
                {f"{kind}_id": "x", kind: {"id": "x", **OWNED}},
                {f"{kind}_id": "x"},
                {f"{kind}_id": "x", kind: {}},
                {f"{kind}_id": "x", kind: None},
            )
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_deleted_resource_measures_zero_from_its_deletion(
    meter: str, living: dict[str, Any], end: dict[str, Any]
) -> None:
    store = await stored([living, end, {**end, "message_id": "again", "timestamp": "2026-11-22T18:00:00"}])
    rows = await store.samples(SampleFilter(equals={"meter": meter, "project_id": "p"}), 10)
    assert {row.resource_id for row in rows} == {"x"}
    [row] = await store.statistics(
        StatisticsQuery(
            filter=SampleFilter(equals={"meter": meter, "project_id": "p"}), aggregates=(Aggregate("integral"),)
        )
    )
    assert row.values["integral"] == pytest.approx(rows[-1].volume / 60)


@pytest.mark.parametrize("payload", [{}, {"size": None}])
@pytest_twisted.ensureDeferred
async def test_image_deleted_without_a_size_measures_zero(payload: dict[str, Any]) -> None:
    image = {"id": "x", "owner": "p"}
    gone = image | payload | {"status": "deleted", "deleted_at": "2026-11-22T12:01:00Z"}
    store = await stored(
        [said("image.upload", 0, image | {"size": 4, "status": "active"}), said("image.delete", 61, gone)]
    )
    assert await integral(store, "image.size") == pytest.approx(4 / 60)


@pytest.mark.parametrize("late", [500, 4000])
@pytest_twisted.ensureDeferred
async def test_deleted_instance_is_not_billed_for_what_is_said_afterwards(late: float) -> None:
    """Another notification with a clock that is ahead, an audit that read an old state; then the deletion again."""
    life = [instance("create.end", 1), instance("delete.end", 305, **DELETED)]
    store = await stored([*life, instance("power_off.end", late), audit(7200), audit(10800, **DELETED)])
    assert await integral(store, "vcpus") == pytest.approx(LIVED_HOURS)
    assert await integral(store, "disk.root.size") == pytest.approx(LIVED_HOURS)


@pytest_twisted.ensureDeferred
async def test_audit_tells_a_size_from_its_sending_on() -> None:
    """Resized ten seconds after the audited hour; the audit, sent at 13:00:30, already has the new size."""
    small, large = {"vcpus": 1}, {"vcpus": 4}
    told = [
        instance("create.end", 0, **small),
        instance("finish_resize.end", 3610, **large),
        {**audit(3600, **large), "timestamp": "2026-11-22T13:00:30"},
        instance("power_off.end", 7200, **large),
    ]
    store = await stored(told)
    assert await integral(store, "vcpus") == pytest.approx((3610 * 1 + 3590 * 4) / 3600)
    [existed] = [each for each in made(told[2:3]) if each.name == "instance"]
    assert existed.timestamp == NOON + timedelta(hours=1)


# --- owners --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_transfer_changes_the_owner_at_once() -> None:
    samples = made([case("volume-transfer-accept")])
    assert {(each.name, each.volume, each.project_id, each.user_id, each.resource_id) for each in samples} == {
        ("volume", 1, "proj-b", "usr-b", "vol-1"),
        ("volume.size", 10, "proj-b", "usr-b", "vol-1"),
    }


@pytest.mark.parametrize(
    ("told", "meter"),
    [
        (
            said("snapshot.transfer.accept.end", 0, {"snapshot_id": "x", "volume_size": 1, "tenant_id": "b"}),
            "snapshot.size",
        ),
        (said("share.transfer.accept.end", 0, {"share_id": "x", "size": 1, "project_id": "b"}), "manila.share.size"),
        (said("image.update", 0, {"id": "x", "size": 1, "owner": "b", "status": "active"}), "image.size"),
        (said("floatingip.update.end", 0, {"floatingip": {"id": "x", "project_id": "b"}}), "ip.floating"),
        (said("port.update.end", 0, {"port": {"id": "x", "project_id": "b"}}), "port"),
    ],
)
def test_resource_belongs_to_its_new_owner_from_the_transfer(told: dict[str, Any], meter: str) -> None:
    assert [each.project_id for each in made([told]) if each.name == meter] == ["b"]
    assert [each.user_id for each in made([told]) if each.name == meter] == [None]


# --- actions that audits repeat ------------------------------------------------------------------------------------


def repeated(kind: str, resource: dict[str, Any], action: str, at: str, seconds: float) -> list[dict[str, Any]]:
    """Return the notification of Cinder's audit about a creation or deletion, with a period of length zero."""
    period = {"audit_period_beginning": at, "audit_period_ending": at}
    return [said(f"{kind}.{action}.{phase}", seconds, resource | period) for phase in ("start", "end")]


@pytest.mark.parametrize(
    ("kind", "resource"),
    [
        ("volume", {"volume_id": "x", "size": 2, "tenant_id": "p"}),
        ("snapshot", {"snapshot_id": "x", "volume_size": 2, "tenant_id": "p"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_action_repeated_by_audits_is_counted_once(kind: str, resource: dict[str, Any]) -> None:
    created, deleted = "2026-11-22 12:00:00+00:00", "2026-11-22 12:05:00+00:00"
    life = [said(f"{kind}.create.{phase}", 0, resource) for phase in ("start", "end")]
    life += [said(f"{kind}.delete.{phase}", 300, resource) for phase in ("start", "end")]
    for audit_at in (3600, 7200):
        life += repeated(kind, resource, "create", created, audit_at)
        life += repeated(kind, resource, "delete", deleted, audit_at)
    for told in (life, life[4:8]):  # all of it, and one audit alone
        store = await stored(told)
        for action in ("create.start", "create.end", "delete.start", "delete.end"):
            rows = await store.samples(SampleFilter(equals={"meter": f"{kind}.{action}"}), 10)
            assert [row.volume for row in rows] == [1]
            assert rows[0].timestamp == NOON + timedelta(seconds=0 if "create" in action else 300)
        assert await integral(store, f"{kind}.size") == pytest.approx(2 * 300 / 3600)


@pytest.mark.parametrize("period", [{}, DAY, {"audit_period_beginning": "", "audit_period_ending": ""}])
def test_action_that_is_not_repeated_has_its_own_time(period: dict[str, Any]) -> None:
    told = said("volume.create.end", 60, {"volume_id": "x", "size": 2, "tenant_id": "p"} | period)
    assert {sample.timestamp for sample in made([told])} == {NOON + timedelta(seconds=60)}


def test_actions_of_different_volumes_have_different_ids() -> None:
    ids = {
        parse_notification(seal(said("volume.create.end", 0, payload))).message_id
        for payload in ({"volume_id": "x"}, {"volume_id": "y"}, {"volume_id": None}, [])
    }
    assert len(ids) == 3
