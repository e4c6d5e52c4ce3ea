"""Instances and their size, from Nova's notifications ``compute.instance.*``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Self

from zope.interface import implementer

from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IListener
from meter.interfaces import ISurroundings
from meter.interfaces import Topic
from meter.notification import Notification
from meter.sample import MeterDefinition
from meter.sample import Sample

VOLUMES = {
    MeterDefinition("instance", "gauge", "instance"): None,
    MeterDefinition("memory", "gauge", "MB"): "memory_mb",
    MeterDefinition("vcpus", "gauge", "vcpu"): "vcpus",
    MeterDefinition("disk.root.size", "gauge", "GB"): "root_gb",
    MeterDefinition("disk.ephemeral.size", "gauge", "GB"): "ephemeral_gb",
}
"""The field of the payload that each meter's volume comes from; without one the volume is 1."""

METADATA = {
    "instance_id": "instance_id",
    "display_name": "display_name",
    "hostname": "hostname",
    "instance_host": "host",
    "instance_type": "instance_type",
    "reservation_id": "reservation_id",
    "availability_zone": "availability_zone",
    "architecture": "architecture",
    "os_type": "os_type",
    "kernel_id": "kernel_id",
    "ramdisk_id": "ramdisk_id",
    "image_ref_url": "image_ref_url",
    "image_meta": "image_meta",
    "status": "state",
    "state": "state",
    "task_state": "state_description",
    "memory_mb": "memory_mb",
    "vcpus": "vcpus",
    "disk_gb": "disk_gb",
    "root_gb": "root_gb",
    "ephemeral_gb": "ephemeral_gb",
    "created_at": "created_at",
    "launched_at": "launched_at",
    "deleted_at": "deleted_at",
}
"""Metadata and the field of the payload it is taken from, as it is; what a payload does not have is left out."""

FLAVOR = {
    "id": "instance_flavor_id",
    "name": "instance_type",
    "vcpus": "vcpus",
    "ram": "memory_mb",
    "disk": "root_gb",
    "ephemeral": "ephemeral_gb",
}
"""The same for ``flavor``."""

UNSETTLED = frozenset({"compute.instance.create.start", "compute.instance.update", "compute.instance.delete.samples"})
"""What tells nothing of an instance that is: one that is only wanted, any change of a detail, and samples of others."""

USER_METADATA_PREFIX = "metering."
LONGEST_USER_METADATA = 256
_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})?")
_TOO_LARGE = 2**63


@implementer(IListener)
@dataclass(frozen=True, slots=True)
class InstanceListener:
    """Says how many instances there are, and how large, whenever Nova tells of one as it is."""

    name: str = "nova.instance"
    meters: tuple[MeterDefinition, ...] = tuple(VOLUMES)
    options: None = None
    topics: tuple[Topic, ...] = (Topic("nova"),)
    event_types: tuple[str, ...] = ("compute.instance.*",)

    def configured(self, options: None) -> Self:
        """Return itself: there is nothing to choose."""
        return self

    async def enabled(self, here: ISurroundings) -> Enabled | Disabled:
        """Return :class:`Enabled`: hearing nothing costs nothing."""
        return Enabled()

    def samples(self, notification: Notification) -> Iterator[Sample]:
        """Yield a sample of each meter, or none where nothing is settled yet."""
        if notification.event_type in UNSETTLED or notification.event_type.endswith(".error"):
            return
        payload = notification.payload
        if not isinstance(payload, dict):
            raise ValueError(f"payload must be a mapping, not a {type(payload).__name__}")
        resource_id = _text(payload, "instance_id")
        user_id = _text(payload, "user_id")
        project_id = _text(payload, "tenant_id")
        metadata = _metadata(notification, payload)
        for meter, source in VOLUMES.items():
            yield Sample(
                name=meter.name,
                type=meter.type,
                unit=meter.unit,
                volume=1 if source is None else _number(payload, source),
                resource_id=resource_id,
                user_id=user_id,
                project_id=project_id,
                timestamp=notification.timestamp,
                resource_metadata=metadata,
            )


def _metadata(notification: Notification, payload: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {
        **_taken(METADATA, payload),
        "flavor": _taken(FLAVOR, payload),
        "host": notification.publisher_id.partition(".")[2] or notification.publisher_id,
        "event_type": notification.event_type,
    }
    image = payload.get("image_meta")
    if isinstance(image, dict) and "base_image_ref" in image:
        metadata["image_ref"] = image["base_image_ref"]
    if user_metadata := _user_metadata(payload.get("metadata")):
        metadata["user_metadata"] = user_metadata
    return metadata


def _taken(sources: Mapping[str, str], payload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: payload[source] for name, source in sources.items() if source in payload}


def _user_metadata(metadata: Any) -> dict[str, str]:
    """Return what the instance's user marked for metering: ``metering.cost.centre`` becomes ``cost_centre``."""
    if isinstance(metadata, list):  # Nova before 2013 sent pairs
        pairs = [(pair.get("key"), pair.get("value")) for pair in metadata if isinstance(pair, dict)]
    elif isinstance(metadata, dict):
        pairs = list(metadata.items())
    else:
        pairs = []
    return {
        name.removeprefix(USER_METADATA_PREFIX).replace(".", "_"): str(value)[:LONGEST_USER_METADATA]
        for name, value in pairs
        if isinstance(name, str) and name.startswith(USER_METADATA_PREFIX) and name != USER_METADATA_PREFIX
    }


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"payload.{name} must be a non-empty text, not {_shown(payload, name)}")
    return value


def _number(payload: Mapping[str, Any], name: str) -> int | float:
    """Return a field as a number; texts such as ``"64"`` and ``"1.5"`` are numbers to some services."""
    value = payload.get(name)
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value) if "." in value else int(value)
    # 0 <= NaN is false: NaN, infinity and huge integers are refused here too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _TOO_LARGE:
        raise ValueError(f"payload.{name} must be a number from 0 to 2**63 - 1, not {_shown(payload, name)}")
    return value


def _shown(payload: Mapping[str, Any], name: str) -> str:
    """Show a field of unknown size in an error without growing the error with it."""
    value = payload.get(name, "missing")
    if isinstance(value, dict | list):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value[:60] if isinstance(value, str) else value) if name in payload else "missing"
