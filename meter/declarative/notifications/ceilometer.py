"""Converts entries of Ceilometer's ``meters.yaml``, which has other names for some fields, into Meter's definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meter.declarative.notifications.models import BadDefinition

_RENAMED = {"event_type": "event_types", "resource_id": "resource", "project_id": "project", "user_id": "user"}
_FALLBACKS = {"user": ["$.ctxt.user_id", "$.ctxt.user"], "project": ["$.ctxt.project_id", "$.ctxt.tenant_id"]}


def from_ceilometer(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of ``metric`` in ``meters.yaml`` as a table of a definition; raises :class:`BadDefinition`.

    As in Ceilometer, a missing user or project is that of the request, and without a volume there is no sample.
    """
    table = {_RENAMED.get(name, name): value for name, value in entry.items()}
    for name, fallback in _FALLBACKS.items():
        table[name] = [*(_as_list(table[name]) if table.get(name) else []), *fallback]
    volume = table.get("volume")
    if isinstance(volume, dict):
        paths = volume.get("fields")
        if volume.get("plugin") != "timedelta" or not isinstance(paths, list) or len(paths) != 2:
            raise BadDefinition(["volume: should be a path, a number, or two fields with plugin: timedelta"])
        table["volume"] = {"from": paths[0], "to": paths[1]}
        table["requires"] = paths
    elif isinstance(volume, str) and "lookup" not in table:
        table["requires"] = [volume]
    if "timestamp" in table:
        table["optional"] = ["user", "project", "timestamp"]
    else:
        table["optional"] = ["user", "project"]
    if isinstance(table.get("lookup"), str):
        table["lookup"] = [table["lookup"]]
    table["lookup"] = [_RENAMED.get(name, name) for name in table.get("lookup", [])]
    return table | {"ceilometer": True}


def _as_list(written: Any) -> list[Any]:
    return written if isinstance(written, list) else [written]
