"""Notifications captured from real services give the samples in the tables of meters; expectations are written by hand."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from meter.collector.normalization.nova_versioned import normalize
from meter.notification import Notification
from meter.notification import notification
from meter.plugins.registry import LISTENER
from meter.plugins.registry import find
from meter.sample import Sample

NOTIFICATIONS = Path(__file__).parents[2] / "data" / "notifications"
LISTENERS = [decision.plugin for decision in find([LISTENER])]

A = "b6e8cc20ee9c457e83f13218eca89c43"  # project demo-a
B = "d222ebc061f2407690de641c61f649d5"  # project demo-b
ADMINS = "d42c0f86fcc746498ec43eb3dc916fdc"
ANN = "4cc236f0eb364412abb1024bc6ffbdf3"
BOB = "9fecdd6ceafe4078b51ed3cabc6ec96a"
ADMIN = "9e5702fb56d84928866a8035c543bac3"
PLACEMENT = "f2333cab45ab4693a8147c7bfad6553c"
IMAGE = "0765225a-bc37-41ba-8954-a95d7eaffc48"
KEPT = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
WALK = "5b118a0a-feb7-4e48-aff9-4633aa41ccf3"
TEMPORARY = "3f279275-2fcc-4669-a97c-095a4ae6c26d"
HUGE = "fab42a3e-a90c-4edc-9f99-c5de837036bd"

Row = tuple[str, str, float, str]
Expected = tuple[str | None, str | None, str, list[Row]]
"""User, project and resource, then meter, type, volume and unit of each sample."""


def instance(flavor: str, memory: int, vcpus: int, root: int, ephemeral: int) -> list[Row]:
    return [
        ("instance", "gauge", 1, "instance"),
        ("memory", "gauge", memory, "MiB"),
        ("vcpus", "gauge", vcpus, "vcpu"),
        ("disk.root.size", "gauge", root, "GiB"),
        ("disk.ephemeral.size", "gauge", ephemeral, "GiB"),
        (f"instance:{flavor}", "gauge", 1, "instance"),
    ]


NODE: list[Row] = [
    ("compute.node.cpu.frequency", "gauge", 800, "MHz"),
    ("compute.node.cpu.user.time", "cumulative", 26728850000000, "ns"),
    ("compute.node.cpu.kernel.time", "cumulative", 5664160000000, "ns"),
    ("compute.node.cpu.idle.time", "cumulative", 1592705190000000, "ns"),
    ("compute.node.cpu.iowait.time", "cumulative", 6121490000000, "ns"),
    ("compute.node.cpu.user.percent", "gauge", 1, "percent"),
    ("compute.node.cpu.kernel.percent", "gauge", 0, "percent"),
    ("compute.node.cpu.idle.percent", "gauge", 97, "percent"),
    ("compute.node.cpu.iowait.percent", "gauge", 0, "percent"),
    ("compute.node.cpu.percent", "gauge", 2, "percent"),
]

TINY = instance("m1.tiny", 64, 1, 1, 0)
SMALL = instance("m1.small", 128, 2, 1, 1)
GONE = [(meter, kind, 0, unit) for meter, kind, _, unit in instance("m1.bigdisk", 64, 1, 5_000_000, 0)]


def kept(seconds: float) -> list[Row]:
    return [*TINY, ("compute.instance.booting.time", "gauge", seconds, "sec")]


SIZED: list[Row] = [("image", "gauge", 1, "image"), ("image.size", "gauge", 3145728, "B")]

EXPECTED: dict[str, Expected] = {
    "glance.image.create": (None, None, "", []),
    "glance.image.update.1": (
        None,
        A,
        IMAGE,
        [("image", "gauge", 1, "image"), ("image.update", "delta", 1, "image")],
    ),
    "glance.image.update.2": (None, A, IMAGE, [*SIZED, ("image.update", "delta", 1, "image")]),
    "glance.image.upload": (None, A, IMAGE, [*SIZED, ("image.upload", "delta", 1, "image")]),
    "glance.image.delete": (
        None,
        A,
        IMAGE,
        [("image", "gauge", 0, "image"), ("image.size", "gauge", 0, "B"), ("image.delete", "delta", 1, "image")],
    ),
    "keystone.identity.authenticate.1": (
        PLACEMENT,
        None,
        PLACEMENT,
        [("identity.authenticate.success", "delta", 1, "user")],
    ),
    "keystone.identity.authenticate.2": (
        PLACEMENT,
        None,
        PLACEMENT,
        [("identity.authenticate.success", "delta", 1, "user")],
    ),
    "keystone.identity.project.deleted": (
        ADMIN,
        ADMINS,
        "f91097185fa64433b7b5006b19668f27",
        [("identity.project.deleted", "delta", 1, "project")],
    ),
    "keystone.identity.user.created": (ADMIN, ADMINS, ANN, [("identity.user.created", "delta", 1, "user")]),
    "neutron.floatingip.create.end": (
        ANN,
        A,
        "eba4ce5b-7481-4a5d-834f-b626554b258c",
        [("ip.floating", "gauge", 1, "ip"), ("ip.floating.create", "delta", 1, "ip")],
    ),
    "neutron.floatingip.delete.end": (
        ANN,
        A,
        "1450db1f-eb7b-4471-846e-dc950300393d",
        [("ip.floating", "gauge", 0, "ip")],
    ),
    "neutron.floatingip.exists": (
        None,
        B,
        "075d2339-1976-46bc-ad8e-85ded36a1d5f",
        [("ip.floating", "gauge", 1, "ip")],
    ),
    "neutron.network.create.end": (
        ADMIN,
        ADMINS,
        "e51036c9-ee36-4cb7-bc8d-81d9a26bb46e",
        [("network", "gauge", 1, "network"), ("network.create", "delta", 1, "network")],
    ),
    "neutron.network.exists": (
        None,
        ADMINS,
        "e51036c9-ee36-4cb7-bc8d-81d9a26bb46e",
        [("network", "gauge", 1, "network")],
    ),
    "neutron.port.create.end": (
        ANN,
        A,
        "3da8c7d9-4c4c-46de-b767-e4c5d1cc47ce",
        [("port", "gauge", 1, "port"), ("port.create", "delta", 1, "port")],
    ),
    "neutron.router.create.end": (
        ANN,
        A,
        "8ff9c4b8-3588-49fe-b888-3809eaf2e365",
        [("router", "gauge", 1, "router"), ("router.create", "delta", 1, "router")],
    ),
    "neutron.subnet.create.end": (
        ADMIN,
        ADMINS,
        "ddd22651-443f-47cf-a6de-d884c4af7525",
        [("subnet", "gauge", 1, "subnet"), ("subnet.create", "delta", 1, "subnet")],
    ),
    # 16:11:11 to 16:11:24.273236; the versioned form leaves out the fraction, so both do.
    "nova.compute.instance.create.end": (ANN, A, KEPT, kept(13.0)),
    "nova-versioned.instance.create.end": (ANN, A, KEPT, kept(13.0)),
    "nova.compute.instance.create.start": (None, None, "", []),
    "nova.compute.instance.create.error": (None, None, "", []),
    "nova.compute.instance.update.1": (None, None, "", []),
    "nova.compute.instance.update.2": (None, None, "", []),
    "nova-versioned.instance.update": (None, None, "", []),
    "nova.compute.instance.delete.end": (ANN, A, HUGE, GONE),
    "nova-versioned.instance.delete.end": (ANN, A, HUGE, GONE),
    "nova.compute.instance.exists.1": (ANN, A, WALK, TINY),
    "nova-versioned.instance.exists": (ANN, A, WALK, TINY),
    "nova.compute.instance.exists.2": (ANN, A, WALK, SMALL),
    "nova.compute.instance.finish_resize.end": (ANN, A, WALK, SMALL),
    "nova.compute.instance.volume.attach": (ANN, A, WALK, SMALL),
    "nova.compute.instance.power_off.end": (ANN, A, TEMPORARY, TINY),
    "nova.compute.instance.shutdown.end": (ANN, A, TEMPORARY, TINY),
    "nova.compute.metrics.update": (None, None, "fake1_fake1", NODE),
    "nova-versioned.metrics.update": (None, None, "fake1_fake1", NODE),
    "nova.scheduler.select_destinations.start": (None, None, "", []),
    "openstack.snapshot.create.end": (
        ANN,
        A,
        "922de342-93a6-4670-a134-980d559353cc",
        [
            ("snapshot", "gauge", 1, "snapshot"),
            ("snapshot.size", "gauge", 2, "GiB"),
            ("snapshot.create.end", "delta", 1, "snapshot"),
        ],
    ),
    "openstack.snapshot.exists": (
        ANN,
        A,
        "19b8feb1-6048-4680-b703-fbc4827c60a9",
        [
            ("snapshot", "gauge", 0, "snapshot"),
            ("snapshot.size", "gauge", 0, "GiB"),
            ("snapshot.exists", "delta", 1, "snapshot"),
        ],
    ),
    "openstack.volume.create.end": (
        ANN,
        A,
        "78d88b8f-30cc-4c7f-901b-427bed51c1ea",
        [
            ("volume", "gauge", 1, "volume"),
            ("volume.size", "gauge", 2, "GiB"),
            ("volume.create.end", "delta", 1, "volume"),
        ],
    ),
    "openstack.volume.delete.end": (
        ANN,
        A,
        "18d156f1-cb9b-42be-9120-f3abb7c7c92c",
        [
            ("volume", "gauge", 0, "volume"),
            ("volume.size", "gauge", 0, "GiB"),
            ("volume.delete.end", "delta", 1, "volume"),
        ],
    ),
    "openstack.volume.exists": (
        BOB,
        B,
        "e9af964e-0c71-4827-81ff-ee0b137a2013",
        [
            ("volume", "gauge", 1, "volume"),
            ("volume.size", "gauge", 3, "GiB"),
            ("volume.exists", "delta", 1, "volume"),
        ],
    ),
    "openstack.volume.resize.end": (
        ANN,
        A,
        "e70460b0-519e-4502-a256-d90f6475545d",
        [
            ("volume", "gauge", 1, "volume"),
            ("volume.size", "gauge", 3, "GiB"),
            ("volume.resize.end", "delta", 1, "volume"),
        ],
    ),
    "swift.objectstore.http.request.1": (ANN, A, A, [("storage.api.request", "delta", 1, "request")]),
    "swift.objectstore.http.request.2": (ANN, A, A, [("storage.api.request", "delta", 1, "request")]),
    "swift.objectstore.http.request.3": (
        ANN,
        A,
        A,
        [("storage.api.request", "delta", 1, "request"), ("storage.objects.incoming.bytes", "delta", 10, "B")],
    ),
}


def captured(name: str) -> Notification:
    return normalize(notification(json.loads((NOTIFICATIONS / f"{name}.json").read_text())["message"]))


def samples_of(notification: Notification) -> list[Sample]:
    """Return the samples of all listeners that want the notification."""
    return [
        sample
        for listener in LISTENERS
        if any(fnmatchcase(notification.event_type, pattern) for pattern in listener.event_types)
        for sample in listener.samples(notification)
    ]


@pytest.mark.parametrize("name", EXPECTED)
def test_captured_notification_gives_the_documented_samples(name: str) -> None:
    user, project, resource, rows = EXPECTED[name]
    samples = samples_of(captured(name))
    assert sorted((each.name, each.type, each.volume, each.unit) for each in samples) == sorted(rows)
    assert {(each.user_id, each.project_id, each.resource_id) for each in samples} == (
        {(user, project, resource)} if rows else set()
    )


def test_bytes_read_of_an_image_are_counted_for_reader_and_owner() -> None:
    download, serve = samples_of(captured("glance.image.send"))
    assert (download.name, download.type, download.volume, download.unit) == ("image.download", "delta", 3145728, "B")
    assert (download.user_id, download.project_id, download.resource_id) == (ANN, A, IMAGE)
    assert (serve.name, serve.type, serve.volume, serve.unit) == ("image.serve", "delta", 3145728, "B")
    assert (serve.user_id, serve.project_id, serve.resource_id) == (None, A, IMAGE)


def test_every_captured_notification_has_expected_samples() -> None:
    names = {path.stem for path in NOTIFICATIONS.glob("*.json")}
    assert names - {"glance.image.send"} == set(EXPECTED)


@pytest.mark.parametrize(
    ("name", "some"),
    [
        (
            "openstack.volume.exists",
            {
                "display_name": "vol-b-6b031417",
                "status": "in-use",
                "volume_type": "deb67a40-afea-4334-8744-a670479b05fe",
                "instance_id": "c555d02d-fa0a-482d-b773-75cbf8097ad3",
                "host": "block1",
                "event_type": "volume.exists",
            },
        ),
        (
            "swift.objectstore.http.request.3",
            {
                "path": f"v1/AUTH_{A}/c-6b0310a8/obj-1",
                "version": "v1",
                "container": "c-6b0310a8",
                "object": "obj-1",
                "method": "put",
                "http_header_x_object_meta_color": "blue",
            },
        ),
        ("neutron.network.create.end", {"name": "public", "router_external": True, "mtu": 1500}),
        (
            "glance.image.upload",
            {
                "name": "img-6b0310a8",
                "disk_format": "raw",
                "properties": {"hw_disk_bus": "virtio", "os_distro": "none"},
            },
        ),
    ],
)
def test_metadata_describe_the_resource(name: str, some: dict[str, Any]) -> None:
    for sample in samples_of(captured(name)):
        assert {key: sample.resource_metadata[key] for key in some} == some


def test_sample_has_the_time_of_the_measurement() -> None:
    for form in ("nova.compute.metrics.update", "nova-versioned.metrics.update"):
        times = {sample.timestamp.isoformat() for sample in samples_of(captured(form))}
        assert times == {"2026-11-22T15:47:54+00:00"}
