"""The page ``/resource``: the life line of one resource, its meters, what is missing of it, its metadata and its samples."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from typing import NamedTuple

from twisted.internet.threads import deferToThread

from meter.api.errors import ApiError
from meter.api.handlers.completeness import MAX_DAYS
from meter.api.handlers.completeness import MAX_GAP_DAYS
from meter.api.handlers.segments import until_now
from meter.api.handlers.segments import visible_lives
from meter.api.handlers.v2 import stored_resource
from meter.api.operation import MARKER
from meter.api.rendering import completeness as rendering
from meter.api.rendering.flattening import flatten
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.paging import parse_sample_marker
from meter.api.request.paging import sample_marker
from meter.api.responses import RawResponse
from meter.api.web.charts.life_line import LifeLine
from meter.api.web.charts.life_line import life_line
from meter.api.web.charts.life_line import state_look
from meter.api.web.links import view_link
from meter.api.web.newest_values import newest_values
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.api.web.page_part import page_part
from meter.api.web.page_range import END
from meter.api.web.page_range import RANGE
from meter.api.web.page_range import RANGES
from meter.api.web.page_range import START
from meter.api.web.page_range import PageRange
from meter.api.web.page_range import page_range
from meter.api.web.resource_chart import charted_meter
from meter.api.web.resource_chart import resource_chart
from meter.api.web.resource_search import name_of
from meter.api.web.resources import project_names
from meter.completeness.ledger.causes import EXPLANATIONS
from meter.completeness.lives.kinds import KINDS
from meter.completeness.lives.observation import LifeSegment
from meter.completeness.lives.resource_lives import ResourceLife
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.query import IdField
from meter.query import SampleFilter
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample

PAGE_SAMPLES = 100
MAX_METERS = 200
MAX_SEGMENTS = 100
"""Segments in the table, the newest ones."""

MANY_SEGMENTS = 500
"""A life of more segments is drawn in a thread."""

MAX_GAPS = 50
MAX_METADATA = 200
"""Members of the metadata that are shown."""

ID = Parameter("id", "string", "The id of the resource.")
PARAMETERS = (
    ID,
    RANGE,
    START,
    END,
    Parameter("meter", "string", "Only samples of this meter."),
    MARKER,
)


class ShownMeter(NamedTuple):
    """A meter of the resource, and its newest sample, ``None`` if that is older than many samples of other meters."""

    meter: StoredMeter
    newest: StoredSample | None


@dataclass(frozen=True, slots=True)
class ShownLife:
    """The life of the resource as one kind: its line, and the newest segments in the period, newest first."""

    kind: str
    unit: str | None
    line: LifeLine
    segments: Sequence[LifeSegment]
    omitted: int
    contradictions: int


class ResourceCompleteness(NamedTuple):
    """What is expected and missing of the resource in the period, and the gaps; ``more``: there are further gaps."""

    row: CompletenessRow
    gaps: Sequence[rendering.CompletenessGap]
    more: bool


async def resource(context: RequestContext) -> RawResponse:
    """Handle ``/resource``."""
    arguments = context.arguments
    id = arguments["id"] or ""
    if not id:
        raise ApiError(400, "A resource is shown by its id: /resource?id=…")
    found = await stored_resource(context, id)
    shown = page_range(arguments, context.now, "7d")
    meter = arguments["meter"] or None
    marker = arguments["marker"] or None
    lives = await page_part(_lives(context, id, shown))
    meters = await page_part(_meters(context, found))
    completeness = await page_part(_completeness(context, id, shown))
    samples, following = await _samples(context, id, meter, marker)
    owners = {each.project_id for life in lives.value or () for each in life.segments}
    names = await project_names(context, {found.project_id, *owners})
    charted = charted_meter([each.meter for each in meters.value or ()], meter)
    chart = None if charted is None else await page_part(resource_chart(context, id, charted, shown))
    metadata = flatten(found.metadata)
    name = name_of(found.metadata)
    same: dict[str, Any] = {"id": id, "range": arguments["range"], "start": arguments["start"], "end": arguments["end"]}
    ranges = [(each, view_link("/resource", id=id, range=each, meter=meter)) for each in RANGES]
    return await page_response(
        context,
        "resource.html",
        name or id,
        id=id,
        name=name,
        resource=found,
        project_name=names.get(found.project_id or ""),
        shown=shown,
        ranges=ranges,
        lives=[await _shown(each, shown, context, names) for each in lives.value or ()],
        lives_problem=lives.problem,
        meters=meters,
        chart=chart,
        completeness=completeness,
        explanations=EXPLANATIONS,
        metadata=list(metadata.items())[:MAX_METADATA],
        omitted_metadata=max(0, len(metadata) - MAX_METADATA),
        samples=samples,
        meter=meter,
        marker=marker,
        same=same,
        next_link=None if following is None else view_link("/resource", **same, meter=meter, marker=following),
        view_link=view_link,
        state_look=state_look,
    )


async def _lives(context: RequestContext, id: str, shown: PageRange) -> list[ResourceLife]:
    filter = SampleFilter(equals={"resource_id": id})
    end = until_now(context, shown.end)
    if shown.start >= end:
        return []
    found, _ = await visible_lives(context, filter, shown.start, end, tuple(KINDS.values()), 1)
    return found


async def _shown(life: ResourceLife, shown: PageRange, context: RequestContext, names: Mapping[str, str]) -> ShownLife:
    if len(life.segments) > MANY_SEGMENTS:
        return await deferToThread(_shown_life, life, shown, context, names)
    return _shown_life(life, shown, context, names)


def _shown_life(life: ResourceLife, shown: PageRange, context: RequestContext, names: Mapping[str, str]) -> ShownLife:
    now = until_now(context, None)
    end = min(shown.end, now)
    within = [each for each in life.segments if each.seconds(shown.start, end) > 0]
    unit = KINDS[life.kind].unit
    line = life_line(within, shown.start, shown.end, now, unit=unit, owner_name=names.get)
    newest = within[::-1][:MAX_SEGMENTS]
    return ShownLife(life.kind, unit, line, newest, len(within) - len(newest), len(life.contradictions))


async def _meters(context: RequestContext, found: StoredResource) -> list[ShownMeter]:
    id = found.resource_id
    meters = await context.store.meters(SampleFilter(equals={"resource_id": id}), MAX_METERS, False)
    newest = await newest_values(context, id, [each.name for each in meters])
    return [ShownMeter(each, newest.get((each.name, each.unit))) for each in meters]


async def _completeness(context: RequestContext, id: str, shown: PageRange) -> ResourceCompleteness | None:
    """Return what is missing, ``None`` if the period is in the future or longer than that of a question."""
    now = until_now(context, None)
    if shown.start >= now or shown.end - shown.start > timedelta(days=MAX_DAYS):
        return None
    query = CompletenessQuery(start=shown.start, end=shown.end, resource_id=id)
    rows = await context.store.completeness(query, now, 1)
    gaps = []
    if rows[0].missing and shown.end - shown.start <= timedelta(days=MAX_GAP_DAYS):
        gaps = list(await context.store.completeness_gaps(query, now, MAX_GAPS + 1))
    for_admin = context.requester.is_admin
    rendered = [rendering.gap(each, for_admin=for_admin) for each in gaps[:MAX_GAPS]]
    return ResourceCompleteness(rows[0], rendered, len(gaps) > MAX_GAPS)


async def _samples(
    context: RequestContext, id: str, meter: str | None, marker: str | None
) -> tuple[Sequence[StoredSample], str | None]:
    equals: dict[IdField, str | None] = {"resource_id": id}
    if meter is not None:
        equals["meter"] = meter
    after = None if marker is None else parse_sample_marker(marker)
    rows = await context.store.samples(SampleFilter(equals=equals), PAGE_SAMPLES + 1, (), after)
    following = sample_marker(rows[PAGE_SAMPLES - 1]) if len(rows) > PAGE_SAMPLES else None
    return rows[:PAGE_SAMPLES], following


PAGES = (page("/resource", resource, "One resource: its life, meters, completeness and samples.", *PARAMETERS),)
