"""One event that a service publishes twice, at two times, is stored once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.notifications import NotificationConsumer
from meter.interfaces import Delivery
from meter.message import seal
from meter.plugins.registry import LISTENER
from meter.plugins.registry import find
from meter.query import SampleFilter
from meter.query import StoredSample
from meter.query import WriteResult
from meter.testing import MemoryStore
from tests.unit.collector.test_notifications import Bus
from tests.unit.collector.test_notifications import Metrics
from tests.unit.completeness.test_deletion_and_ownership import KEYS
from tests.unit.completeness.test_deletion_and_ownership import NOON
from tests.unit.completeness.test_deletion_and_ownership import instance
from tests.unit.completeness.test_deletion_and_ownership import repeated
from tests.unit.completeness.test_deletion_and_ownership import said


def collected(*published: Sequence[dict[str, Any]]) -> MemoryStore:
    """Return a store with the samples of collectors, one for each sequence of notifications; none may be refused."""
    store = MemoryStore()
    results: list[WriteResult] = []
    for contents in published:
        bus = Bus()
        consumer = NotificationConsumer(
            find([LISTENER]), bus, KEYS, DeadLetterPublisher(bus, Clock()), source="test", metrics=Metrics()
        )
        for content in contents:
            delivery = Delivery(body=seal(content), exchange="nova", routing_key="notifications.info")
            Deferred.fromCoroutine(consumer.receive(delivery))
        assert bus.dead == []
        Deferred.fromCoroutine(store.write(bus.messages)).addCallback(results.append)
    assert [each.refused for each in results] == [()] * len(published)
    return store


def rows_of(store: MemoryStore, meter: str) -> list[StoredSample]:
    rows: list[StoredSample] = []
    Deferred.fromCoroutine(store.samples(SampleFilter(equals={"meter": meter}), 100)).addCallback(rows.extend)
    return rows


VOLUME = {"volume_id": "x", "size": 2, "tenant_id": "a", "user_id": "u", "status": "available"}
TODAY = VOLUME | {"size": 3, "tenant_id": "b"}
"""The volume at the time of the audit, after it was extended and transferred."""

TOLD_AT_ONCE = [
    said(f"volume.{action}", at, VOLUME)
    for action, at in (("create.start", 0.2), ("create.end", 1.7), ("delete.start", 299.1), ("delete.end", 300.4))
]
AUDIT = [
    *repeated("volume", TODAY, "create", "2026-11-22 12:00:00+00:00", 3600),
    *repeated("volume", TODAY, "delete", "2026-11-22 12:05:00+00:00", 3600),
]


@pytest.mark.parametrize("published", [TOLD_AT_ONCE + AUDIT, AUDIT + TOLD_AT_ONCE], ids=["audit last", "audit first"])
def test_audit_repeating_an_action_gives_duplicates(
    published: list[dict[str, Any]],
) -> None:
    for store in (collected(published), collected(published[:4], published[4:])):
        for action in ("create.start", "create.end", "delete.start", "delete.end"):
            assert len(rows_of(store, f"volume.{action}")) == 1
        assert len(rows_of(store, "volume.size")) == 4


@pytest.mark.parametrize("action", ["create", "delete"])
def test_repeated_start_of_a_failed_action_is_a_duplicate(action: str) -> None:
    published = [said(f"volume.{action}.start", at, VOLUME | {"size": size}) for at, size in ((0, 2), (86_400, 3))]
    published.append(said(f"volume.{action}.end", 86_405, VOLUME))
    store = collected(published[:1], published[1:], published)
    assert [len(rows_of(store, f"volume.{action}.{phase}")) for phase in ("start", "end")] == [1, 1]


@pytest.mark.parametrize(
    ("kind", "size", "gone"),
    [
        ("volume", "size", {"status": "deleted"}),
        ("snapshot", "volume_size", {"status": "deleted", "deleted": "True", "deleted_at": "2026-11-22T12:05:00"}),
        ("backup", "size", {"status": "deleted"}),
    ],
)
def test_resource_deleted_before_the_audit_existed_from_its_creation(
    kind: str, size: str, gone: dict[str, Any]
) -> None:
    resource = {f"{kind}_id": "x", size: 4, "tenant_id": "p", **gone}
    audit = repeated(kind, resource, "create", "2026-11-22 12:00:00+00:00", 3600)
    audit += repeated(kind, resource, "delete", "2026-11-22 12:05:00+00:00", 3600)

    rows = sorted(rows_of(collected(audit), f"{kind}.size"), key=lambda row: row.timestamp)

    assert {(row.timestamp - NOON, row.volume) for row in rows} == {
        (timedelta(0), 4),
        (timedelta(minutes=5), 0),
    }


def in_two_forms(action: str) -> list[dict[str, Any]]:
    """Return both notifications of one event with ``notification_format = both``, the second some milliseconds later."""
    plain = instance(action, 10)
    payload = plain["payload"]
    flavor = {"name": "m1.tiny"} | {name: payload[name] for name in ("vcpus", "memory_mb", "root_gb", "ephemeral_gb")}
    data = {name: payload[name] for name in ("tenant_id", "user_id", "state")}
    data |= {
        "uuid": payload["instance_id"],
        "flavor": {"nova_object.name": "FlavorPayload", "nova_object.data": flavor},
    }
    versioned = {
        **plain,
        "message_id": "another",
        "event_type": f"instance.{action}",
        "timestamp": (NOON + timedelta(seconds=10.013)).replace(tzinfo=None).isoformat(),
        "payload": {"nova_object.name": "InstanceActionPayload", "nova_object.data": data},
    }
    return [plain, versioned]


@pytest.mark.parametrize("action", ["power_off.end", "shelve_offload.end", "evacuate", "delete.start"])
@pytest.mark.parametrize("order", [1, -1], ids=["unversioned first", "versioned first"])
def test_event_received_by_two_collectors_in_both_formats_is_stored_once(action: str, order: int) -> None:
    store = collected(*([each] for each in in_two_forms(action)[::order]))
    for meter in ("vcpus", "memory", "instance"):
        assert len(rows_of(store, meter)) == 1


@pytest.mark.parametrize("order", [1, -1], ids=["unversioned first", "versioned first"])
def test_redelivery_of_both_formats_in_another_order_gives_duplicates(order: int) -> None:
    published = in_two_forms("power_off.end")[::order]
    assert len(rows_of(collected(published, published[::-1], published[1:], published[:1]), "vcpus")) == 1


@pytest.mark.parametrize(
    ("event", "meter"),
    [
        (instance("power_off.end", 10), "memory"),
        (said("volume.resize.end", 10, VOLUME), "volume.size"),
        (said("image.update", 10, {"id": "x", "size": 4, "owner": "p", "status": "active"}), "image.size"),
        (said("port.update.end", 10, {"port": {"id": "x", "project_id": "b"}}), "port"),
    ],
    ids=lambda each: each if isinstance(each, str) else each["event_type"],
)
def test_envelope_sent_again_with_another_time_gives_duplicates(event: dict[str, Any], meter: str) -> None:
    """A broker or an operator that publishes a notification again may give it the time of that; another collector reads it."""
    again = event | {"timestamp": (NOON + timedelta(minutes=9)).replace(tzinfo=None).isoformat()}
    [row] = rows_of(collected([event], [again]), meter)
    assert row.timestamp == NOON + timedelta(seconds=10)
