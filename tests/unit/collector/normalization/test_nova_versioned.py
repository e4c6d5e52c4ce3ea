"""Versioned and unversioned notifications of one event give the same samples once; different events stay different."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from meter.collector.normalization.nova_times import MAX_REMEMBERED_ID
from meter.collector.normalization.nova_times import FirstTimes
from meter.collector.normalization.nova_versioned import normalize
from meter.collector.normalization.nova_versioned import unversioned_event_type
from meter.listeners.nova import booting_listener
from meter.listeners.nova import flavor_listener
from meter.listeners.nova import instance_listener
from meter.listeners.nova import node_listener
from meter.notification import Notification
from meter.notification import notification
from tests.metered import with_stable_ids

NOTIFICATIONS = Path(__file__).parents[3] / "data" / "notifications"


def content(name: str) -> dict[str, Any]:
    message: dict[str, Any] = json.loads((NOTIFICATIONS / f"{name}.json").read_text())["message"]
    return message


def captured(name: str) -> Notification:
    return normalize(notification(content(name)))


PAIRS = [
    ("nova.compute.instance.create.end", "nova-versioned.instance.create.end"),
    ("nova.compute.instance.delete.end", "nova-versioned.instance.delete.end"),
    ("nova.compute.instance.exists.1", "nova-versioned.instance.exists"),
    ("nova.compute.instance.update.1", "nova-versioned.instance.update"),
    ("nova.compute.metrics.update", "nova-versioned.metrics.update"),
]


@pytest.mark.parametrize(("unversioned", "versioned"), PAIRS)
def test_versioned_and_unversioned_notification_of_one_event_have_one_id(unversioned: str, versioned: str) -> None:
    one, other = captured(unversioned), captured(versioned)
    assert content(unversioned)["message_id"] != content(versioned)["message_id"]
    assert (one.event_type, one.message_id) == (other.event_type, other.message_id)


@pytest.mark.parametrize(("unversioned", "versioned"), PAIRS)
def test_versioned_and_unversioned_notification_give_the_same_samples(unversioned: str, versioned: str) -> None:
    told = []
    first_times = FirstTimes()
    for name in (unversioned, versioned):
        heard = first_times.apply(captured(name))
        made = [
            sample
            for listener in (instance_listener, flavor_listener, booting_listener, node_listener)
            for sample in listener.samples(heard)
        ]
        samples = with_stable_ids(heard, made)
        told.append(
            [
                (
                    each.message_id,
                    each.name,
                    each.volume,
                    each.unit,
                    each.user_id,
                    each.project_id,
                    each.resource_id,
                    each.timestamp,
                )
                for each in samples
            ]
        )
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("nova.compute.instance.create.end", "2026-11-22T16:11:24+00:00"),  # the launch
        ("nova.compute.instance.delete.end", "2026-11-22T16:10:46+00:00"),  # the deletion
        ("nova.compute.instance.exists.1", "2026-11-22T16:15:40+00:00"),  # the end of the audited period
        ("nova.compute.instance.update.1", "2026-11-22T16:10:44+00:00"),
        ("nova.compute.metrics.update", "2026-11-22T15:47:54+00:00"),  # the readings
        ("nova.compute.instance.power_off.end", "2026-11-22T16:12:53.186721+00:00"),  # only its own
    ],
)
def test_time_of_an_event_is_the_one_in_both_payloads(name: str, time: str) -> None:
    assert captured(name).timestamp.isoformat() == time


@pytest.mark.parametrize(
    ("event", "change"),
    [
        ("create.end", {"launched_at": ""}),
        ("create.end", {"launched_at": 7}),
        ("create.end", {"launched_at": "soon"}),
        ("create.end", {"launched_at": "2026-11-22T17:11:24"}),  # an hour after it was told
        ("create.end", {"launched_at": "2026-11-21T16:11:24"}),  # a day before
        ("delete.end", {"deleted_at": "", "terminated_at": ""}),
        ("exists.1", {"audit_period_ending": None}),
    ],
)
def test_missing_or_implausible_time_leaves_the_timestamp_of_the_notification(
    event: str, change: dict[str, Any]
) -> None:
    odd = copy.deepcopy(content(f"nova.compute.instance.{event}"))
    odd["payload"] |= change
    own = notification(odd)
    assert normalize(own).timestamp == own.timestamp


def test_deletion_after_a_soft_deletion_has_the_later_time() -> None:
    reclaimed = copy.deepcopy(content("nova.compute.instance.delete.end"))
    reclaimed["payload"] |= {"deleted_at": "2026-11-22T12:00:00.5", "terminated_at": "2026-11-22T16:10:46.9"}
    assert normalize(notification(reclaimed)).timestamp.isoformat() == "2026-11-22T16:10:46+00:00"


def test_second_notification_of_an_event_without_a_time_gets_the_time_of_the_first() -> None:
    times = FirstTimes(most=2)
    first = captured("nova.compute.instance.power_off.end")
    later = replace(first, timestamp=first.timestamp + timedelta(milliseconds=7))
    assert times.apply(first).timestamp == times.apply(later).timestamp == first.timestamp
    for number in range(2):
        other = replace(first, message_id=f"other {number}")
        assert times.apply(other) is other
    assert times.apply(later) is later, "what is long past is forgotten"


def test_metadata_of_both_formats_are_equal() -> None:
    one, other = (
        next(iter(instance_listener.samples(captured(name)))).resource_metadata
        for name in ("nova.compute.instance.exists.1", "nova-versioned.instance.exists")
    )
    ways_of_writing = {"created_at", "launched_at", "image_ref_url", "image_meta"}
    assert {key: one[key] for key in one.keys() - ways_of_writing} == {
        key: other[key] for key in other.keys() - ways_of_writing
    }
    assert other["image_ref"] == one["image_ref"] == "6de405a4-cdeb-438c-92cb-3bb028091897"


def test_two_audits_of_one_instance_have_two_ids() -> None:
    assert (
        captured("nova.compute.instance.exists.1").message_id != captured("nova.compute.instance.exists.2").message_id
    )


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("nova.compute.instance.exists.1", {"audit_period_ending": "2026-11-22 16:16:40.781671"}),
        ("nova.compute.instance.exists.1", {"instance_id": "another"}),
        ("nova.compute.instance.update.1", {"new_task_state": "deleting"}),
        ("nova.compute.instance.volume.attach", {"volume_id": "another"}),
        ("nova.compute.metrics.update", {"nodename": "another"}),
    ],
)
def test_different_events_of_one_request_have_different_ids(name: str, change: dict[str, Any]) -> None:
    other = copy.deepcopy(content(name))
    other["payload"] |= change
    assert normalize(notification(other)).message_id != captured(name).message_id


def test_notification_without_a_request_keeps_its_own_id() -> None:
    lonely = content("nova.compute.instance.exists.1")
    del lonely["_context_request_id"]
    assert normalize(notification(lonely)).message_id == lonely["message_id"]


@pytest.mark.parametrize(
    ("versioned", "unversioned"),
    [
        ("instance.create.end", "compute.instance.create.end"),
        ("instance.power_off.end", "compute.instance.power_off.end"),
        ("instance.resize_finish.end", "compute.instance.finish_resize.end"),
        ("instance.resize_revert.start", "compute.instance.resize.revert.start"),
        ("instance.volume_attach.end", "compute.instance.volume.attach"),
        ("instance.live_migration_post_dest.end", "compute.instance.live_migration.post.dest.end"),
        ("instance.exists", "compute.instance.exists"),
        # Only this form has these: they stay what they are, and nobody's.
        ("instance.volume_attach.start", "instance.volume_attach.start"),
        ("instance.lock", "instance.lock"),
        ("flavor.create", "flavor.create"),
    ],
)
def test_versioned_event_types_get_unversioned_names(versioned: str, unversioned: str) -> None:
    assert unversioned_event_type(versioned) == unversioned


def test_notification_of_another_service_is_unchanged() -> None:
    volume = notification(content("openstack.volume.exists"))
    assert normalize(volume) is volume


@pytest.mark.parametrize(
    "payload",
    [
        {"nova_object.name": "X"},
        {"nova_object.name": "X", "nova_object.data": None},
        {"nova_object.name": "X", "nova_object.data": []},
        {"nova_object.name": "X", "nova_object.data": {"flavor": 7, "audit_period": [], "metrics": {}}},
    ],
)
@pytest.mark.parametrize("event_type", ["instance.create.end", "metrics.update"])
def test_versioned_object_without_data_is_accepted(event_type: str, payload: Any) -> None:
    odd = content("nova-versioned.instance.create.end") | {"event_type": event_type, "payload": payload}
    assert normalize(notification(odd)).event_type.startswith("compute.")


def test_remembered_ids_are_bounded_in_length_and_still_recognized() -> None:
    times = FirstTimes()
    first = captured("nova.compute.instance.power_off.end")
    for letter in ("x", "y", "\ud800"):
        long = replace(first, message_id=letter * 1_000_000)
        later = replace(long, timestamp=first.timestamp + timedelta(seconds=1))
        applied = [times.apply(each) for each in (long, later)]
        assert {(each.message_id, each.timestamp) for each in applied} == {(long.message_id, first.timestamp)}
    assert len(times._times) == 3
    assert max(map(len, times._times)) <= MAX_REMEMBERED_ID
