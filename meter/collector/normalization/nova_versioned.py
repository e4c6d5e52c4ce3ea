"""Converts Nova's versioned notifications into unversioned ones, with one id for both notifications of an event.

Nova publishes ``compute.instance.create.end`` on ``notifications.*`` and the same event as ``instance.create.end``, with
nested objects, on ``versioned_notifications.*``; an operator enables either or both. Listeners receive the unversioned
form of both, so both give the same samples. The two have different message ids and timestamps but the same request id. An
id made of request, event and resource is the same for both, and so is the time
(:mod:`meter.collector.normalization.nova_times`), so the store keeps one sample of each event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

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
"""Versioned actions, as in ``instance.<action>.start``, ``.end`` and ``.error``, and their unversioned names."""

EVENT_TYPES = {
    "instance.exists": "compute.instance.exists",
    "instance.update": "compute.instance.update",
    "instance.volume_attach.end": "compute.instance.volume.attach",
    "instance.volume_detach.end": "compute.instance.volume.detach",
    "metrics.update": "compute.metrics.update",
}
"""Other event types with an unversioned name. Event types that exist only as versioned ones keep their name."""

RENAMED = {"instance_id": "uuid", "hostname": "host_name", "state_description": "task_state"}
"""Unversioned names of instance fields, and their versioned names, where these differ."""

FLAVOR_FIELDS = {
    "instance_type": "name",
    "instance_flavor_id": "flavorid",
    "memory_mb": "memory_mb",
    "vcpus": "vcpus",
    "root_gb": "root_gb",
    "ephemeral_gb": "ephemeral_gb",
}
EMPTY_WHEN_NULL = ("state_description", "launched_at", "deleted_at", "terminated_at")
"""Fields that are null in versioned payloads and an empty text in unversioned ones."""


def normalize(notification: Notification) -> Notification:
    """Return a notification of Nova as an unversioned one with the shared id and time, any other unchanged."""
    payload = notification.payload
    if isinstance(payload, dict) and OBJECT_NAME in payload:
        notification = _unversioned(notification)
    if notification.event_type.startswith(("compute.instance.", "compute.metrics.")) and isinstance(
        notification.payload, dict
    ):
        notification = replace(notification, payload=in_whole_seconds(notification.payload))
        # An audit is about a period, and contains the state at the time of its sending.
        sent = notification.timestamp if notification.event_type == "compute.instance.exists" else None
        return replace(
            notification, message_id=_shared_id(notification), timestamp=shared_time(notification), sent=sent
        )
    return notification


def unversioned_event_type(event_type: str) -> str:
    """Return the unversioned name of an event type such as ``instance.resize_finish.end``; without one, the same name."""
    if event_type in EVENT_TYPES:
        return EVENT_TYPES[event_type]
    kind, _, rest = event_type.partition(".")
    action, _, phase = rest.rpartition(".")
    if kind == "instance" and action in INSTANCE_ACTIONS:
        return f"{INSTANCE_ACTIONS[action]}.{phase}"
    return event_type


def _unversioned(notification: Notification) -> Notification:
    payload = _unwrap(notification.payload)
    event_type = unversioned_event_type(notification.event_type)
    if not isinstance(payload, dict):
        return replace(notification, event_type=event_type, payload=payload)
    if event_type.startswith("compute.instance."):
        payload |= _instance_fields(payload)
    elif event_type == "compute.metrics.update":
        payload["metrics"] = [_metric(metric) for metric in _list(payload.get("metrics"))]
    service, _, host = notification.publisher_id.partition(":")
    return replace(
        notification,
        event_type=event_type,
        publisher_id=f"{service.removeprefix('nova-')}.{host}" if host else notification.publisher_id,
        payload=payload,
    )


def _unwrap(value: Any) -> Any:
    """Return ``value`` with every versioned object replaced by its data."""
    if isinstance(value, dict):
        if OBJECT_NAME in value:
            return _unwrap(value.get(OBJECT_DATA, {}))
        return {name: _unwrap(element) for name, element in value.items()}
    return [_unwrap(element) for element in value] if isinstance(value, list) else value


def _instance_fields(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an instance under their unversioned names, those that are there."""
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
    """Return the metric with percentages as fractions: versioned ones are whole percents."""
    value = metric.get("value") if isinstance(metric, dict) else None
    if isinstance(value, int) and str(metric.get("name", "")).endswith("percent"):
        return {**metric, "value": value / 100}
    return metric


def _shared_id(notification: Notification) -> str:
    """Return the id of a notification made of request, event type and resource.

    Without a request id it keeps its own id. One request can cause several audits, updates and volume attachments, so
    their ids also contain the end of the audit period in seconds, the states before and after, and the volume's id.
    """
    payload = notification.payload
    request = notification.context.get("request_id")
    resource = payload.get("instance_id") or payload.get("nodename")
    if not isinstance(request, str) or not request or not isinstance(resource, str):
        return notification.message_id
    parts = [request, notification.event_type, resource]
    if notification.event_type == "compute.instance.exists":
        parts.append(str(payload.get("audit_period_ending"))[:19].replace(" ", "T"))
    elif notification.event_type == "compute.instance.update":
        parts += [str(payload.get(name) or "") for name in ("old_state", "state", "old_task_state", "new_task_state")]
    elif notification.event_type.startswith("compute.instance.volume."):
        parts.append(str(payload.get("volume_id")))
    elif notification.event_type == "compute.metrics.update":
        parts.append(str(payload.get("host")))
    return "\0".join(parts)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
