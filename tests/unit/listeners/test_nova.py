"""Nova's instance notifications, as captured from Nova 32.2, give the samples in the tables of meters."""

from __future__ import annotations

import json
import re
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from zope.interface.verify import verifyObject

from meter.interfaces import Enabled
from meter.interfaces import IListener
from meter.interfaces import Topic
from meter.listeners.nova import instance_listener
from meter.notification import Notification
from meter.notification import notification
from meter.sample import Sample
from meter.testing import FakePluginContext

NOTIFICATIONS = Path(__file__).parents[2] / "data" / "notifications"

PROJECT = "b6e8cc20ee9c457e83f13218eca89c43"
USER = "4cc236f0eb364412abb1024bc6ffbdf3"

Volumes = list[tuple[str, str, str, float]]


def captured(name: str, **changes: Any) -> Notification:
    """A captured notification, with fields of its payload changed; ``...`` removes a field."""
    content = json.loads((NOTIFICATIONS / f"nova.compute.instance.{name}.json").read_text())["message"]
    for field, value in changes.items():
        if value is ...:
            del content["payload"][field]
        else:
            content["payload"][field] = value
    return notification(content)


def samples(heard: Notification) -> list[Sample]:
    return list(instance_listener.samples(heard))


def readings(heard: Notification) -> Volumes:
    return [(sample.name, sample.type, sample.unit, sample.volume) for sample in samples(heard)]


def test_nova_listener_provides_the_interface() -> None:
    assert verifyObject(IListener, instance_listener)
    assert instance_listener.name == "nova.instance"
    assert instance_listener.topics == (Topic("nova"),)
    assert instance_listener.configured(None) is instance_listener


@pytest_twisted.ensureDeferred
async def test_nova_listener_is_always_enabled() -> None:
    assert await instance_listener.enabled(FakePluginContext()) == Enabled()


@pytest.mark.parametrize(
    ("name", "instance", "expected"),
    [
        (
            "create.end",
            "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac",
            [
                ("instance", "gauge", "instance", 1),
                ("memory", "gauge", "MiB", 64),
                ("vcpus", "gauge", "vcpu", 1),
                ("disk.root.size", "gauge", "GiB", 1),
                ("disk.ephemeral.size", "gauge", "GiB", 0),
            ],
        ),
        (
            "finish_resize.end",
            "5b118a0a-feb7-4e48-aff9-4633aa41ccf3",
            [
                ("instance", "gauge", "instance", 1),
                ("memory", "gauge", "MiB", 128),
                ("vcpus", "gauge", "vcpu", 2),
                ("disk.root.size", "gauge", "GiB", 1),
                ("disk.ephemeral.size", "gauge", "GiB", 1),
            ],
        ),
        (
            "delete.end",
            "fab42a3e-a90c-4edc-9f99-c5de837036bd",
            [
                ("instance", "gauge", "instance", 0),
                ("memory", "gauge", "MiB", 0),
                ("vcpus", "gauge", "vcpu", 0),
                ("disk.root.size", "gauge", "GiB", 0),
                ("disk.ephemeral.size", "gauge", "GiB", 0),
            ],
        ),
    ],
)
def test_notification_gives_five_samples_of_its_instance(name: str, instance: str, expected: Volumes) -> None:
    heard = captured(name)
    assert readings(heard) == expected
    for sample in samples(heard):
        assert (sample.resource_id, sample.user_id, sample.project_id) == (instance, USER, PROJECT)


@pytest.mark.parametrize("name", ["exists.1", "exists.2", "power_off.end"])
def test_every_notification_about_an_existing_instance_gives_samples(name: str) -> None:
    assert len(samples(captured(name))) == 5


@pytest.mark.parametrize("name", ["create.start", "create.error", "update.1"])
def test_notification_without_an_existing_instance_gives_no_sample(name: str) -> None:
    assert samples(captured(name)) == []


def test_sample_has_the_time_of_the_notification() -> None:
    assert {sample.timestamp for sample in samples(captured("create.end"))} == {
        datetime(2026, 11, 22, 16, 11, 24, 782734, tzinfo=UTC)
    }


def test_metadata_describe_the_instance() -> None:
    first, *others = samples(captured("finish_resize.end", architecture="x86_64", os_type="linux"))
    assert first.resource_metadata == {
        "instance_id": "5b118a0a-feb7-4e48-aff9-4633aa41ccf3",
        "display_name": "walk-6b031417",
        "hostname": "walk-6b031417",
        "host": "fake2",
        "instance_host": "fake2",
        "instance_type": "m1.small",
        "flavor": {
            "id": "abe3151a-a8c4-4cde-a113-42a5e799d6fc",
            "name": "m1.small",
            "vcpus": 2,
            "ram": 128,
            "disk": 1,
            "ephemeral": 1,
        },
        "image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897",
        "image_ref_url": "http://127.0.0.1:19292/images/6de405a4-cdeb-438c-92cb-3bb028091897",
        "image_meta": {
            "min_ram": "0",
            "min_disk": "1",
            "disk_format": "raw",
            "container_format": "bare",
            "base_image_ref": "6de405a4-cdeb-438c-92cb-3bb028091897",
        },
        "status": "resized",
        "state": "resized",
        "task_state": "",
        "architecture": "x86_64",
        "os_type": "linux",
        "availability_zone": "fake",
        "kernel_id": "",
        "ramdisk_id": "",
        "memory_mb": 128,
        "vcpus": 2,
        "disk_gb": 2,
        "root_gb": 1,
        "ephemeral_gb": 1,
        "created_at": "2026-11-22 16:14:52+00:00",
        "launched_at": "2026-11-22T16:15:53.154840",
        "deleted_at": "",
        "reservation_id": "r-j29a34cb",
        "event_type": "compute.instance.finish_resize.end",
        "user_metadata": {"stack": "s1"},
    }
    assert all(other.resource_metadata == first.resource_metadata for other in others)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"metering.cost.centre": "4711", "owner": "me"}, {"cost_centre": "4711"}),
        ({"metering.note": "x" * 300}, {"note": "x" * 256}),
        ([{"key": "metering.stack", "value": "s1"}, {"key": "a", "value": "b"}], {"stack": "s1"}),
        ({"metering.größe": "日本 🚀"}, {"größe": "日本 🚀"}),
        ({"metering.": "nameless"}, None),
        ({"owner": "me"}, None),
        ([], None),
        (None, None),
        ("text", None),
        (..., None),
    ],
)
def test_metadata_with_the_metering_prefix_become_user_metadata(metadata: Any, expected: dict[str, str] | None) -> None:
    sample = samples(captured("create.end", metadata=metadata))[0]
    assert sample.resource_metadata.get("user_metadata") == expected


@pytest.mark.parametrize(("text", "number"), [("64", 64), ("0", 0), ("1.5", 1.5)])
def test_number_written_as_text_is_accepted(text: str, number: float) -> None:
    memory = samples(captured("create.end", memory_mb=text))[1]
    assert (memory.volume, type(memory.volume)) == (number, type(number))


@pytest.mark.parametrize("field", ["memory_mb", "vcpus", "root_gb", "ephemeral_gb"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (..., "missing"),
        (None, "None"),
        ("much", "'much'"),
        ("", "''"),
        ("1e3", "'1e3'"),
        ("٦٤", "'٦٤'"),
        ("-1", "'-1'"),
        (-1, "-1"),
        (True, "True"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (10**400, "an integer of 1329 bits"),
        ("9" * 400, re.escape(repr("9" * 60))),
        ([64], "a list"),
        ({}, "a dict"),
    ],
)
def test_size_that_is_not_a_number_is_refused_by_name(field: str, value: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=rf"payload.{field} must be a number from 0 to 2\*\*63 - 1, not {shown}$"):
        samples(captured("create.end", **{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field in ("instance_id", "tenant_id") for value in (..., None, "", 7, ["x"])]
    + [("user_id", 7), ("user_id", ["x"])],
)
def test_id_that_is_not_a_text_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"payload.{field} must be a non-empty text, not "):
        samples(captured("create.end", **{field: value}))


@pytest.mark.parametrize("value", [..., None, ""])
def test_missing_user_does_not_prevent_the_sample(value: Any) -> None:
    made = samples(captured("create.end", user_id=value))
    assert [sample.name for sample in made] == ["instance", "memory", "vcpus", "disk.root.size", "disk.ephemeral.size"]
    assert {(sample.user_id, sample.project_id) for sample in made} == {(None, PROJECT)}


@pytest.mark.parametrize("payload", [None, [], "text", 1])
def test_payload_that_is_not_a_mapping_is_refused(payload: Any) -> None:
    heard = Notification("id", "compute.instance.exists", "compute.a", "INFO", datetime.now(UTC), payload)
    with pytest.raises(ValueError, match="payload must be a mapping, not a "):
        samples(heard)
