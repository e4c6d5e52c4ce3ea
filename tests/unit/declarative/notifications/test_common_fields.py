"""Fields that several definitions have in common are read once for each notification, and only where they are the same."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from meter.declarative.notifications import DefinedListener
from meter.declarative.notifications import read_definitions
from meter.declarative.notifications.common_fields import CommonFields
from meter.notification import Notification

FILE = """
[metadata.server]
flavor = "$.payload.flavor"

[deletion.server]
event_types = ["server.deleted"]

[[meter]]
name = "server"
event_types = ["server.*"]
unit = "server"
resource = "$.payload.id"
project = "$.payload.project"
metadata = "server"
deletion = "server"

[[meter]]
name = "server.memory"
event_types = ["server.*"]
unit = "MiB"
volume = "$.payload.memory"
resource = "$.payload.id"
project = "$.payload.project"
metadata = "server"
deletion = "server"

[[meter]]
name = "server.port"
event_types = ["server.*"]
unit = "port"
each = "$.payload.ports[*]"
resource = "$.each"
metadata = "server"
"""


@pytest.fixture
def listener(tmp_path: Path) -> DefinedListener:
    path = tmp_path / "servers.toml"
    path.write_text(FILE)
    return DefinedListener("servers", read_definitions(path).definitions, ["openstack"])


def heard(event_type: str = "server.made", **payload: Any) -> Notification:
    server = {"id": "s1", "project": "p1", "flavor": "small", "memory": 512, "ports": ["a", "b"]}
    return Notification(
        "id", event_type, "gate.north", "INFO", datetime(2026, 11, 22, 12, tzinfo=UTC), {**server, **payload}
    )


def test_common_fields_are_read_once_for_all_definitions_and_again_for_each_element(
    listener: DefinedListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = CommonFields.read

    def counting(self: CommonFields, scope: Any, root: Any) -> Any:
        reads.append(root.get("each"))
        return read(self, scope, root)

    monkeypatch.setattr(CommonFields, "read", counting)
    samples = list(listener.samples(heard()))
    assert [(sample.name, sample.resource_id) for sample in samples] == [
        ("server", "s1"),
        ("server.memory", "s1"),
        ("server.port", "a"),
        ("server.port", "b"),
    ]
    assert reads == [None, "a", "b"]


@pytest.mark.parametrize("event_type", ["server.made", "server.deleted"])
def test_samples_share_one_mapping_of_metadata(listener: DefinedListener, event_type: str) -> None:
    samples = list(listener.samples(heard(event_type)))
    assert len({id(sample.resource_metadata) for sample in samples if sample.resource_id == "s1"}) == 1
    assert len({id(sample.resource_metadata) for sample in samples if sample.resource_id != "s1"}) == 1


def test_metadata_of_an_element_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "disks.toml"
    path.write_text(
        '[metadata.disk]\nkind = "$.each.kind"\n\n[[meter]]\nname = "disk"\nevent_types = ["server.*"]\nunit = "GiB"\n'
        'volume = "$.each.size"\nresource = "$.payload.id"\neach = "$.payload.disks[*]"\nmetadata = "disk"\n'
    )
    listener = DefinedListener("disks", read_definitions(path).definitions, ["openstack"])
    samples = listener.samples(heard(disks=[{"kind": "ssd", "size": 1}, {"kind": "hdd", "size": 2}]))
    assert [(sample.volume, sample.resource_metadata["kind"]) for sample in samples] == [(1, "ssd"), (2, "hdd")]


def test_bad_common_field_fails_each_definition_that_has_it_and_no_other(listener: DefinedListener) -> None:
    results = list(listener.results(heard(project=7)))
    assert [result.reason for result in results] == ["payload.project must be a non-empty text, not 7"] * 2 + [""]


def test_definition_with_another_owner_does_not_share(tmp_path: Path) -> None:
    path = tmp_path / "servers.toml"
    path.write_text(FILE.replace('project = "$.payload.project"', 'project = "$.payload.payer"', 1))
    listener = DefinedListener("servers", read_definitions(path).definitions, ["openstack"])
    samples = list(listener.samples(heard(payer="p2")))
    assert [sample.project_id for sample in samples] == ["p2", "p1", None, None]
