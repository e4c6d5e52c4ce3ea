"""What groups are called: names of projects and users, display names of resources, beside their ids."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from typing import Any

from meter.api.request.context import RequestContext
from meter.api.web.meter_usage.view import UsageView
from meter.identity_names import IdentityKey
from meter.identity_report import IdentityKind
from meter.query import In
from meter.query import SampleFilter

WITHOUT: Mapping[str, str] = {
    "project": "no project",
    "user": "no user",
    "flavor": "no flavor",
    "resource": "no resource",
    "none": "all",
}
"""What samples without a group are called, by the grouping."""


async def group_names(context: RequestContext, view: UsageView, ids: Collection[str]) -> Mapping[str, str]:
    """Return the names of those of ``ids``, groups of ``view``, that have one, by id.

    The name of a resource is that of its newest sample of the meter in the range: to look at all of its meters takes much longer.
    """
    if not ids:
        return {}
    if view.group in ("project", "user"):
        kind: IdentityKind = "project" if view.group == "project" else "user"
        histories = await context.store.name_histories([IdentityKey(kind, each) for each in ids])
        return {key.id: names[-1].name for key, names in histories.items() if names}
    if view.group == "resource":
        filter = SampleFilter(
            equals={"meter": view.meters.name},
            start=view.filter.start,
            end=view.filter.end,
            expression=In("resource_id", tuple(ids)),
        )
        rows = await context.store.resources(filter, len(ids))
        named = {row.resource_id: display_name(row.metadata) for row in rows}
        return {key: name for key, name in named.items() if name}
    return {}


def display_name(metadata: Mapping[str, Any]) -> str:
    """Return what people call a resource with ``metadata``, empty if they say nothing of it."""
    for key in ("display_name", "name"):
        if isinstance(metadata.get(key), str) and metadata[key]:
            return str(metadata[key])
    return ""
