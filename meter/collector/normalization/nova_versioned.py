"""Nova's two forms of notifications as one: what listeners hear is the unversioned form, and each fact has one id.

Nova publishes ``compute.instance.create.end`` on ``notifications.*`` and the same fact as ``instance.create.end``, an
object of objects, on ``versioned_notifications.*``; an operator enables either or both. Told in one form, both give the
same samples. Both carry the id of the request they belong to but different ids and times of their own: an id made of
request, event and resource is the same for both, and so is the time (:mod:`meter.collector.normalization.nova_times`), so that what is heard
twice is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meter.collector.normalization.nova_times import in_whole_seconds
from meter.collector.normalization.nova_times import shared_time
from meter.notification import Notification

OBJECT_NAME = "nova_object.name"
OBJECT_DATA = "nova_object.data"

INSTANCE_ACTIONS = {
    name: f"compute.instance.{name}"
    for name in (
        "create",
        "delete",
        "evacuate",
        "pause",
        "power_off",
        "power_on",
        "reboot",
        "rebuild",
        "rescue",
        "resize",
        "restore",
        "resume",
        "shelve",
        "shelve_offload",
        "shutdown",
        "snapshot",
        "soft_delete",
        "suspend",
        "trigger_crash_dump",
        "unpause",
        "unrescue",
        "unshelve",
    )
} | {
    "live_migration_post": "compute.instance.live_migration._post",
    "live_migration_post_dest": "compute.instance.live_migration.post.dest",
    "live_migration_pre": "compute.instance.live_migration.pre",
    "live_migration_rollback": "compute.instance.live_migration._rollback",
    "live_migration_rollback_dest": "compute.instance.live_migration.rollback.dest",
    "resize_confirm": "compute.instance.resize.confirm",
    "resize_finish": "compute.instance.finish_resize",
    "resize_prep": "compute.instance.resize.prep",
    "resize_revert": "compute.instance.resize.revert",
}
"""Actions of ``instance.<action>.start``, ``.end`` and ``.error``, and what they are in the unversioned form."""

EVENT_TYPES = {
    "instance.exists": "compute.instance.exists",
    "instance.update": "compute.instance.update",
    "instance.volume_attach.end": "compute.instance.volume.attach",
    "instance.volume_detach.end": "compute.instance.volume.detach",
    "metrics.update": "compute.metrics.update",
}
"""The others that have both forms. What Nova says in the versioned form only keeps its name."""

RENAMED = {"instance_id": "uuid", "hostname": "host_name", "state_description": "task_state"}
"""Fields of an instance that have another name in the unversioned form, and their name in the versioned one."""

FLAVOR_FIELDS = {
    "instance_type": "name",
    "instance_flavor_id": "flavorid",
    "memory_mb": "memory_mb",
    "vcpus": "vcpus",
    "root_gb": "root_gb",
    "ephemeral_gb": "ephemeral_gb",
}
EMPTY_WHEN_NULL = ("state_description", "launched_at", "deleted_at", "terminated_at")
"""Fields that are null in the versioned form where they are an empty text in the other."""


def normalize(heard: Notification) -> Notification:
    """Return ``heard`` in the unversioned form, with id and time that both forms share; what is not Nova's as it is."""
    payload = heard.payload
    if isinstance(payload, dict) and OBJECT_NAME in payload:
        heard = replace(_unversioned(heard), may_differ=("timestamp",))
    if heard.event_type.startswith(("compute.instance.", "compute.metrics.")) and isinstance(heard.payload, dict):
        heard = _with_shared_id(replace(heard, payload=in_whole_seconds(heard.payload)))
        return replace(heard, timestamp=shared_time(heard))
    return heard


def unversioned_event_type(event_type: str) -> str:
    """Return what ``instance.resize_finish.end`` is called in the unversioned form, or the same where it has none."""
    if event_type in EVENT_TYPES:
        return EVENT_TYPES[event_type]
    kind, _, rest = event_type.partition(".")
    action, _, phase = rest.rpartition(".")
    if kind == "instance" and action in INSTANCE_ACTIONS:
        return f"{INSTANCE_ACTIONS[action]}.{phase}"
    return event_type


def _unversioned(heard: Notification) -> Notification:
    payload = _flat(heard.payload)
    event_type = unversioned_event_type(heard.event_type)
    if not isinstance(payload, dict):
        return replace(heard, event_type=event_type, payload=payload)
    if event_type.startswith("compute.instance."):
        payload |= _instance(payload)
    elif event_type == "compute.metrics.update":
        payload["metrics"] = [_metric(metric) for metric in _list(payload.get("metrics"))]
    service, _, host = heard.publisher_id.partition(":")
    return replace(
        heard,
        event_type=event_type,
        publisher_id=f"{service.removeprefix('nova-')}.{host}" if host else heard.publisher_id,
        payload=payload,
    )


def _flat(value: Any) -> Any:
    """Return ``value`` with every object replaced by what it holds."""
    if isinstance(value, dict):
        if OBJECT_NAME in value:
            return _flat(value.get(OBJECT_DATA, {}))
        return {name: _flat(element) for name, element in value.items()}
    return [_flat(element) for element in value] if isinstance(value, list) else value


def _instance(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an instance under their unversioned names; what is missing stays missing."""
    flavor = _mapping(payload.get("flavor"))
    fields = {name: payload[source] for name, source in RENAMED.items() if source in payload}
    fields |= {name: flavor[source] for name, source in FLAVOR_FIELDS.items() if source in flavor}
    sizes = [flavor.get("root_gb"), flavor.get("ephemeral_gb")]
    if all(type(size) is int for size in sizes):
        fields["disk_gb"] = sum(sizes)
    if "image_uuid" in payload:
        fields["image_meta"] = {"base_image_ref": payload["image_uuid"]}
    fields |= _mapping(payload.get("audit_period"))
    fields |= _mapping(payload.get("state_update"))
    present = {**payload, **fields}
    return fields | {name: "" for name in EMPTY_WHEN_NULL if name in present and present[name] is None}


def _metric(metric: Any) -> Any:
    """The versioned form has whole percents where the other has fractions."""
    value = metric.get("value") if isinstance(metric, dict) else None
    if isinstance(value, int) and str(metric.get("name", "")).endswith("percent"):
        return {**metric, "value": value / 100}
    return metric


def _with_shared_id(heard: Notification) -> Notification:
    """Give one id to all that is said of one event of one resource within one request.

    Without the id of a request the notification keeps its own id. An audit also has the end of its period, to the
    second, an update the states it goes from and to, an attached volume its id: one request may cause several.
    """
    payload = heard.payload
    request = heard.context.get("request_id")
    resource = payload.get("instance_id") or payload.get("nodename")
    if not isinstance(request, str) or not request or not isinstance(resource, str):
        return heard
    parts = [request, heard.event_type, resource]
    if heard.event_type == "compute.instance.exists":
        parts.append(str(payload.get("audit_period_ending"))[:19].replace(" ", "T"))
    elif heard.event_type == "compute.instance.update":
        parts += [str(payload.get(name) or "") for name in ("old_state", "state", "old_task_state", "new_task_state")]
    elif heard.event_type.startswith("compute.instance.volume."):
        parts.append(str(payload.get("volume_id")))
    elif heard.event_type == "compute.metrics.update":
        parts.append(str(payload.get("host")))
    return replace(heard, message_id="\0".join(parts))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
