"""GPUs that flavors ask for, in versioned notifications captured from Nova 32.2 with extra specs put into their flavors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from zope.interface.verify import verifyObject

from meter.collector.normalization.nova_versioned import normalize
from meter.flavor_gpus import FlavorGpuOptions
from meter.interfaces import IListener
from meter.listeners.nova import flavor_gpus_listener
from meter.notification import Notification
from meter.notification import notification

NOTIFICATIONS = Path(__file__).parents[2] / "data" / "notifications"
KEPT = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
PROJECT = "b6e8cc20ee9c457e83f13218eca89c43"


def captured(name: str, specs: dict[str, str], event_type: str = "") -> Notification:
    content = json.loads((NOTIFICATIONS / f"{name}.json").read_text())["message"]
    content["payload"]["nova_object.data"]["flavor"]["nova_object.data"]["extra_specs"] = specs
    content["event_type"] = event_type or content["event_type"]
    return normalize(notification(content))


def told(heard: Notification) -> list[tuple[str, float]]:
    return [(each.name, each.volume) for each in flavor_gpus_listener.samples(heard)]


def test_listener_provides_its_interface() -> None:
    assert verifyObject(IListener, flavor_gpus_listener)


def test_versioned_notifications_tell_what_the_flavor_asks_for() -> None:
    heard = captured("nova-versioned.instance.create.end", {"pci_passthrough:alias": "gpu:2", "resources:VGPU": "1"})
    assert told(heard) == [("flavor.gpus", 2), ("flavor.vgpus", 1)]
    for sample in flavor_gpus_listener.samples(heard):
        assert (sample.resource_id, sample.project_id) == (KEPT, PROJECT)
        assert sample.resource_metadata["extra_specs"] == {"pci_passthrough:alias": "gpu:2", "resources:VGPU": "1"}
    assert told(captured("nova-versioned.instance.exists", {"resources:VGPU": "1"})) == [("flavor.vgpus", 1)]


def test_deletion_ends_them_with_0() -> None:
    assert told(captured("nova-versioned.instance.delete.end", {"resources:VGPU": "1"})) == [("flavor.vgpus", 0)]


def test_flavor_without_gpus_has_samples_only_after_a_resize() -> None:
    assert told(captured("nova-versioned.instance.exists", {})) == []
    resized = captured("nova-versioned.instance.create.end", {}, "instance.resize_finish.end")
    assert told(resized) == [("flavor.gpus", 0), ("flavor.vgpus", 0)]


def test_unversioned_notifications_and_updates_tell_nothing() -> None:
    content = json.loads((NOTIFICATIONS / "nova.compute.instance.create.end.json").read_text())["message"]
    assert told(normalize(notification(content))) == []
    assert told(captured("nova-versioned.instance.update", {"resources:VGPU": "1"})) == []


def test_count_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="VGPU 'one' times"):
        told(captured("nova-versioned.instance.exists", {"resources:VGPU": "one"}))


def test_options_name_the_aliases() -> None:
    heard = captured("nova-versioned.instance.exists", {"pci_passthrough:alias": "a100:1"})
    configured = flavor_gpus_listener.configured(FlavorGpuOptions(gpu_aliases=("a100",)))
    assert [(each.name, each.volume) for each in configured.samples(heard)] == [("flavor.gpus", 1)]
