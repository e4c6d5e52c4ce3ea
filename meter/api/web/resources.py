"""The page ``/resources``: all resources, or those that are searched for, with their kinds, states and owners."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from meter.api.handlers.segments import until_now
from meter.api.handlers.segments import visible_lives
from meter.api.operation import MARKER
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web.charts.life_line import state_look
from meter.api.web.links import view_link
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.api.web.page_part import page_part
from meter.api.web.resource_search import MAX_SEARCHED
from meter.api.web.resource_search import find_resources
from meter.api.web.resource_search import kind_of
from meter.api.web.resource_search import name_of
from meter.api.web.resource_search import search_of
from meter.completeness.identities.identity_history import period_at
from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.resource_lives import ResourceLife
from meter.identity_names import IdentityKey
from meter.query import In
from meter.query import SampleFilter
from meter.query import StoredResource

DELETED = "deleted"
"""What is shown as the state of a resource that has ended."""

MAX_LIVES = 400
"""Lives of a page: the ids of its resources can be those of several kinds."""

PARAMETERS = (
    Parameter("id", "string", "Only resources whose id begins so."),
    Parameter("name", "string", "Only resources whose name contains this text."),
    Parameter("kind", "string", f"Only resources of this kind: {', '.join(KINDS)}."),
    Parameter("project", "string", "Only resources of the project with this id."),
    Parameter("meter", "string", "Only resources with samples of this meter."),
    MARKER,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedResource:
    """A row of the page. ``state`` is the last one, *deleted* after the end, ``None`` if nothing tells it."""

    id: str
    name: str | None
    kind: str | None
    state: str | None
    project_id: str | None
    project_name: str | None
    first_sample: datetime
    last_sample: datetime
    meters: int


async def resources(context: RequestContext) -> RawResponse:
    """Handle ``/resources``."""
    search = search_of(context.arguments)
    found = await find_resources(context, search)
    lives = await page_part(_lives(context, found.resources))
    names = await project_names(context, {each.project_id for each in found.resources})
    given = {
        "id": search.prefix,
        "name": search.name,
        "kind": search.kind,
        "project": search.project,
        "meter": search.meter,
    }
    return await page_response(
        context,
        "resources.html",
        "Resources",
        search=search,
        kinds=tuple(KINDS),
        rows=[_listed(each, (lives.value or {}).get(each.resource_id), names) for each in found.resources],
        problem=lives.problem,
        next_link=None if found.marker is None else view_link("/resources", **given, marker=found.marker),
        first_link=view_link("/resources", **given) if search.marker else None,
        searched=found.searched,
        max_searched=MAX_SEARCHED,
        view_link=view_link,
        state_look=state_look,
    )


async def project_names(context: RequestContext, ids: set[str | None]) -> Mapping[str, str]:
    """Return what projects are called now, by their ids, as far as the requester may know it."""
    keys = {IdentityKey("project", each) for each in ids if each}
    now = until_now(context, None)
    histories = (await page_part(context.store.name_histories(keys))).value or {} if keys else {}
    periods = {key.id: period_at(names, now) for key, names in histories.items()}
    return {id: period.name for id, period in periods.items() if period is not None}


async def _lives(context: RequestContext, rows: Sequence[StoredResource]) -> Mapping[str, ResourceLife]:
    """Return the lives of resources by their ids."""
    if not rows:
        return {}
    ids = In("resource_id", tuple(each.resource_id for each in rows))
    end = until_now(context, None)
    filter = SampleFilter(expression=ids)
    found, _ = await visible_lives(context, filter, None, end, tuple(KINDS.values()), MAX_LIVES)
    return {each.resource_id: each for each in found}


def _listed(row: StoredResource, life: ResourceLife | None, names: Mapping[str, str]) -> ListedResource:
    last = life.segments[-1] if life is not None else None
    kind = kind_of(row)
    return ListedResource(
        id=row.resource_id,
        name=name_of(row.metadata) or (last.name if last is not None else None),
        kind=life.kind if life is not None else kind.name if kind is not None else None,
        state=None if last is None else last.state if last.ended is None else DELETED,
        project_id=row.project_id,
        project_name=names.get(row.project_id or ""),
        first_sample=row.first_sample,
        last_sample=row.last_sample,
        meters=len(set(row.meters)),
    )


PAGES = (page("/resources", resources, "Resources and their states.", *PARAMETERS),)
