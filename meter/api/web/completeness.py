"""The page ``/completeness``: what is missing, as a heat map, the gaps of its cells, and whether the period may be closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import NamedTuple

from meter.api.handlers.completeness import MAX_GAP_DAYS
from meter.api.handlers.segments import until_now
from meter.api.operation import MARKER
from meter.api.rendering import completeness as rendering
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web.charts.heat_map import HeatMap
from meter.api.web.charts.heat_map import heat_map
from meter.api.web.completeness_view import DAY
from meter.api.web.completeness_view import CompletenessView
from meter.api.web.completeness_view import completeness_view
from meter.api.web.links import view_link
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.api.web.page_part import page_part
from meter.api.web.page_range import END
from meter.api.web.page_range import RANGE
from meter.api.web.page_range import RANGES
from meter.api.web.page_range import START
from meter.api.web.resources import project_names
from meter.completeness.ledger.causes import EXPLANATIONS
from meter.completeness_query import AuditedPeriod
from meter.completeness_query import CompletenessRow
from meter.query import SampleFilter

MAX_ROWS = 10_000
"""Agents or projects that are compared to find those of which most is missing."""

PAGE_ROWS = 40
"""Rows of a map, at most: as many as have their marks on it."""

PAGE_GAPS = 50
MAX_AUDITS = 20

PARAMETERS = (
    Parameter("by", "string", "Rows of the map: agent (for administrators) or project."),
    RANGE,
    START,
    END,
    Parameter("project", "string", "Only samples of the project with this id."),
    Parameter("meter", "string", "Only samples of this meter."),
    Parameter("row", "string", "The agent, or the id of the project, whose gaps are shown."),
    Parameter("at", "string", "The begin of the hour or day of the row whose gaps are shown."),
    Parameter("gaps", "boolean", "Whether the gaps of the whole period are shown."),
    MARKER,
    Parameter("gap_marker", "string", "Start of the page of gaps."),
)


class CompletenessMap(NamedTuple):
    """The map and the numbers of its rows, worst first; ``rest`` rows are on further pages."""

    map: HeatMap
    rows: Sequence[CompletenessRow]
    rest: int


class ShownGaps(NamedTuple):
    """The numbers of the selected cell, row or period, and a page of its gaps."""

    row: CompletenessRow
    gaps: Sequence[rendering.CompletenessGap]
    next_link: str | None


async def completeness(context: RequestContext) -> RawResponse:
    """Handle ``/completeness``."""
    requester = context.requester
    context.store.check(SampleFilter())
    view = completeness_view(context.arguments, context.now, is_admin=requester.is_admin)
    now = until_now(context, None)
    (total,) = await context.store.completeness(view.query(), now, 1)
    found = sorted(
        await context.store.completeness(view.query(group=view.group), now, MAX_ROWS),
        key=lambda row: (-row.missing, row.group or ""),
    )
    names = await project_names(context, {row.group for row in found}) if view.by == "project" else {}
    shown = await page_part(_map(context, view, found, names, now))
    gaps = await page_part(_gaps(context, view, now)) if view.shows_gaps else None
    closing = await page_part(context.store.closable(view.query(), now))
    unmetered = await page_part(context.store.unmetered())
    audits = await page_part(_audits(context, view))
    rows = 0 if shown.value is None else len(shown.value.rows)
    following = view.offset + rows
    return await page_response(
        context,
        "completeness.html",
        "Completeness",
        view=view,
        ranges=[(each, _range_link(view, each)) for each in RANGES],
        by_links=[(each, view_link("/completeness", by=each, meter=view.meter)) for each in ("agent", "project")],
        total=total,
        causes=Counter(total.causes).most_common(),
        skipped=Counter(total.skipped).most_common() if requester.is_admin else [],
        explanations=EXPLANATIONS,
        count=len(found),
        shown=shown,
        row_name=lambda key: _row_name(key, names),
        next_link=view.link(marker=str(following)) if rows and len(found) > following else None,
        first_link=view.link() if view.offset else None,
        gaps=gaps,
        closing=None
        if closing.value is None
        else rendering.closable_period(closing.value, for_admin=requester.is_admin),
        closing_problem=closing.problem,
        unmetered=unmetered,
        audits=audits,
        by_day=view.step == DAY,
    )


async def _map(
    context: RequestContext,
    view: CompletenessView,
    found: Sequence[CompletenessRow],
    names: Mapping[str, str],
    now: datetime,
) -> CompletenessMap:
    page = found[view.offset : view.offset + PAGE_ROWS]
    keys = [row.group or "" for row in page]
    cells: Sequence[CompletenessRow] = ()
    if keys:
        by = "day" if view.step == DAY else "hour"
        columns = (view.end - view.start) // view.step
        query = view.query(group=view.group, groups=tuple(keys), by=by)
        cells = await context.store.completeness(query, now, len(keys) * columns)
    drawn = heat_map(
        keys,
        {(row.group or "", row.start): row for row in cells},
        view.start,
        view.end,
        view.step,
        name=lambda key: _row_name(key, names),
        link=view.link,
    )
    return CompletenessMap(drawn, page[: len(drawn.rows)], max(0, len(found) - view.offset - len(drawn.rows)))


async def _gaps(context: RequestContext, view: CompletenessView, now: datetime) -> ShownGaps:
    query = view.selected()
    (row,) = await context.store.completeness(query, now, 1)
    found = []
    if row.missing and query.end - query.start <= timedelta(days=MAX_GAP_DAYS):
        found = list(await context.store.completeness_gaps(query, now, view.gap_offset + PAGE_GAPS + 1))
    shown = found[view.gap_offset : view.gap_offset + PAGE_GAPS]
    following = view.gap_offset + PAGE_GAPS
    changes = {"gaps": "true"} if view.all_gaps else {}
    link = view.link(view.row, view.at, gap_marker=str(following), **changes) if len(found) > following else None
    for_admin = context.requester.is_admin
    return ShownGaps(row, [rendering.gap(each, for_admin=for_admin) for each in shown], link)


async def _audits(context: RequestContext, view: CompletenessView) -> Sequence[AuditedPeriod]:
    start = max(view.start, view.end - timedelta(days=MAX_GAP_DAYS))
    return (await context.store.audited_periods(start, view.end))[:MAX_AUDITS]


def _range_link(view: CompletenessView, name: str) -> str:
    return view_link("/completeness", by=view.by, range=name, project=view.project_id, meter=view.meter)


def _row_name(key: str, names: Mapping[str, str]) -> str:
    """Return what a row is called: the name of a project, or the agent, or the id."""
    return names.get(key, key) or "without project"


PAGES = (page("/completeness", completeness, "What is missing, by agent or project, and why.", *PARAMETERS),)
