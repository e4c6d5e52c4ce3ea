"""Search for resources by id, name, kind, project and meter: a page of them, in bounded work for any number of resources."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

from meter.api.errors import invalid_input
from meter.api.request.context import RequestContext
from meter.api.request.paging import after_key_marker
from meter.api.request.paging import key_marker
from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.kinds import kind_of_meter
from meter.completeness.lives.kinds import meters_of
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import IdField
from meter.query import In
from meter.query import SampleFilter
from meter.query import StoredResource

PAGE_RESOURCES = 100
"""Resources of a page."""

SEARCHED_RESOURCES = 1000
"""Resources whose names are read with one question."""

MAX_SEARCHED = 5000
"""Resources whose names are read for one page; the next page goes on after them."""

LAST_CHARACTER = "\U0010ffff"

NAME_KEYS = tuple(dict.fromkeys(key for kind in KINDS.values() for key in kind.named))


@dataclass(frozen=True, slots=True)
class ResourceSearch:
    """What is searched for; empty texts restrict nothing. ``prefix`` is the beginning of the id, ``name`` a part of the name, in any case."""

    prefix: str = ""
    name: str = ""
    kind: str = ""
    project: str = ""
    meter: str = ""
    marker: str | None = None

    @property
    def is_restricted(self) -> bool:
        """Whether it is for a part of the resources."""
        return any((self.prefix, self.name, self.kind, self.project, self.meter))


@dataclass(frozen=True, slots=True)
class FoundResources:
    """A page of resources, ordered by id. ``marker`` is that of the next page, ``None`` after the last one.

    ``searched`` is the number of resources whose names were read, if ``name`` is searched for.
    """

    resources: Sequence[StoredResource]
    marker: str | None
    searched: int = 0


def search_of(arguments: Mapping[str, Any]) -> ResourceSearch:
    """Return the search that the arguments of a page name; :class:`ApiError` 400 for an unknown kind."""
    texts = {name: arguments[name] or "" for name in ("name", "kind", "project", "meter")}
    if texts["kind"] and texts["kind"] not in KINDS:
        raise invalid_input("kind", texts["kind"], f"it must be one of {', '.join(KINDS)}.")
    return ResourceSearch(prefix=arguments["id"] or "", marker=arguments["marker"] or None, **texts)


async def find_resources(context: RequestContext, search: ResourceSearch) -> FoundResources:
    """Return a page of the resources that match ``search``."""
    if search.name:
        found = await _named(context, search)
    else:
        rows = await context.store.resources(_filter(search, search.marker), PAGE_RESOURCES + 1)
        found = FoundResources(rows[:PAGE_RESOURCES], _marker(rows, PAGE_RESOURCES))
    if not found.resources or not (search.kind or search.name):
        return found
    # They were found by samples of some meters; they are shown with those of all, or of the meter that is searched for.
    ids = In("resource_id", tuple(each.resource_id for each in found.resources))
    whole = _filter(replace(search, kind="", name="", prefix=""), None)
    return replace(found, resources=await context.store.resources(replace(whole, expression=ids), PAGE_RESOURCES))


def name_of(metadata: Mapping[str, Any]) -> str | None:
    """Return what a resource is called by its metadata, ``None`` if they do not say."""
    return next((text for key in NAME_KEYS if isinstance(text := metadata.get(key), str) and text), None)


def kind_of(resource: StoredResource) -> ResourceKind | None:
    """Return the kind of a resource by its meters, ``None`` if they are those of no kind."""
    return next((kind for meter in resource.meters if (kind := kind_of_meter(meter)) is not None), None)


async def _named(context: RequestContext, search: ResourceSearch) -> FoundResources:
    wanted = search.name.casefold()
    matching: list[StoredResource] = []
    marker, searched = search.marker, 0
    while True:
        rows = await context.store.resources(_filter(search, marker), SEARCHED_RESOURCES + 1)
        for each in rows[:SEARCHED_RESOURCES]:
            searched += 1
            if wanted in (name_of(each.metadata) or "").casefold():
                matching.append(each)
            if len(matching) == PAGE_RESOURCES:
                last = each is rows[-1]
                return FoundResources(matching, None if last else key_marker(each.resource_id), searched)
            if context.slices.over:
                await context.slices.pause()
        marker = _marker(rows, SEARCHED_RESOURCES)
        if marker is None or searched >= MAX_SEARCHED:
            return FoundResources(matching, marker, searched)


def _marker(rows: Sequence[StoredResource], size: int) -> str | None:
    return key_marker(rows[size - 1].resource_id) if len(rows) > size else None


def _filter(search: ResourceSearch, marker: str | None) -> SampleFilter:
    equals: dict[IdField, str | None] = {}
    parts: list[Expression] = []
    if search.project:
        equals["project_id"] = search.project
    if search.kind:
        parts.append(In("meter", KINDS[search.kind].meters))
    elif search.name:
        parts.append(In("meter", meters_of(KINDS.values())))
    elif search.meter:
        equals["meter"] = search.meter
    if search.prefix:
        parts += [
            Comparison("resource_id", ">=", search.prefix),
            Comparison("resource_id", "<", search.prefix + LAST_CHARACTER),
        ]
    if marker is not None:
        parts.append(after_key_marker(marker, ("resource_id",)))
    return SampleFilter(equals=equals, expression=And(tuple(parts)) if parts else None)
