"""``meters.yaml`` of Ceilometer 27.0.0, as published on the package index, works unchanged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meter.collector.normalization.nova_versioned import normalize
from meter.declarative.notifications import DefinedListener
from meter.declarative.notifications import read_definitions
from meter.notification import Notification
from meter.notification import notification

DATA = Path(__file__).parents[3] / "data"
FILE = read_definitions(DATA / "ceilometer-27.0.0-meters.yaml", "meters.yaml")


@pytest.fixture(scope="module")
def listener() -> DefinedListener:
    return DefinedListener("definitions.meters", FILE.definitions, ["openstack"])


def captured(name: str) -> Notification:
    return normalize(notification(json.loads((DATA / "notifications" / f"{name}.json").read_text())["message"]))


def test_every_definition_of_ceilometer_loads() -> None:
    written = (DATA / "ceilometer-27.0.0-meters.yaml").read_text().count("\n  - name:")
    assert FILE.problems == ()
    assert len(FILE.definitions) == written == 38
    assert FILE.definitions[0].origin == "meters.yaml:5"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("glance.image.upload", [("image.size", "gauge", 3145728, "B")]),
        ("glance.image.update.1", []),
        ("glance.image.send", [("image.download", "delta", 3145728, "B"), ("image.serve", "delta", 3145728, "B")]),
        ("openstack.volume.exists", [("volume.size", "gauge", 3, "GiB")]),
        ("openstack.snapshot.create.end", [("snapshot.size", "gauge", 2, "GiB")]),
        ("keystone.identity.authenticate.1", [("identity.authenticate.success", "delta", 1, "user")]),
        ("swift.objectstore.http.request.2", []),
        ("swift.objectstore.http.request.3", [("storage.objects.incoming.bytes", "delta", 10, "B")]),
        (
            "nova.compute.instance.create.end",
            [
                ("memory", "gauge", 64, "MiB"),
                ("vcpus", "gauge", 1, "vcpu"),
                ("compute.instance.booting.time", "gauge", 13.0, "sec"),
                ("disk.root.size", "gauge", 1, "GiB"),
                ("disk.ephemeral.size", "gauge", 0, "GiB"),
            ],
        ),
        ("nova.compute.instance.create.start", []),
        ("nova.compute.instance.update.1", []),
        (
            "nova-versioned.instance.exists",
            [
                ("memory", "gauge", 64, "MiB"),
                ("vcpus", "gauge", 1, "vcpu"),
                ("disk.root.size", "gauge", 1, "GiB"),
                ("disk.ephemeral.size", "gauge", 0, "GiB"),
            ],
        ),
    ],
)
def test_ceilometer_definitions_give_the_samples_of_ceilometer(
    listener: DefinedListener, name: str, expected: list[tuple[str, str, float, str]]
) -> None:
    samples = list(listener.samples(captured(name)))
    assert [(each.name, each.type, each.volume, each.unit) for each in samples] == expected


def test_concatenated_and_multiplied_paths_are_evaluated(listener: DefinedListener) -> None:
    samples = {each.name: each for each in listener.samples(captured("nova.compute.metrics.update"))}
    assert len(samples) == 10
    assert samples["compute.node.cpu.idle.percent"].volume == 97
    assert {each.resource_id for each in samples.values()} == {"fake1_fake1"}


def test_metadata_and_user_metadata_are_extracted(listener: DefinedListener) -> None:
    memory = next(iter(listener.samples(captured("nova.compute.instance.create.end"))))
    assert memory.resource_metadata["flavor_name"] == "m1.tiny"
    assert memory.resource_metadata["user_metadata"] == {"stack": "s1"}
    volume = next(iter(listener.samples(captured("openstack.volume.create.end"))))
    assert volume.resource_metadata["volume_type"] == "deb67a40-afea-4334-8744-a670479b05fe"


def test_owner_missing_in_the_payload_is_that_of_the_request(listener: DefinedListener) -> None:
    heard = captured("nova.compute.instance.create.end")
    booting = next(each for each in listener.samples(heard) if each.name == "compute.instance.booting.time")
    assert booting.user_id == "4cc236f0eb364412abb1024bc6ffbdf3"
