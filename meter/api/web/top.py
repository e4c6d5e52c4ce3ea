"""The page ``/top``: the projects, resources, users or flavors with the most usage of a meter in a range, and the same as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from meter.api.errors import invalid_input
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web.charts.bars import Bar
from meter.api.web.charts.bars import bar_rows
from meter.api.web.csv_page import CSV
from meter.api.web.csv_page import Cell
from meter.api.web.csv_page import csv_response
from meter.api.web.meter_usage.api_links import statistics_url
from meter.api.web.meter_usage.groups import RankedUsage
from meter.api.web.meter_usage.groups import ranked_usage
from meter.api.web.meter_usage.links import group_link
from meter.api.web.meter_usage.links import range_links
from meter.api.web.meter_usage.names import WITHOUT
from meter.api.web.meter_usage.names import group_names
from meter.api.web.meter_usage.view import GROUPINGS
from meter.api.web.meter_usage.view import TOP_PARAMETERS
from meter.api.web.meter_usage.view import UsageView
from meter.api.web.meter_usage.view import usage_view
from meter.api.web.operation import page
from meter.api.web.page import page_response

DEFAULT_RANGE = "30d"

MAX_BARS = 100
"""Groups that the page has."""

MAX_CSV_GROUPS = 1000
"""Groups that the CSV has."""

COLUMNS = (
    *("start", "end", "meter", "measure", "unit", "rank", "group_by", "group_id", "group_name", "value", "share"),
    "samples",
)

GROUPS = tuple(name for name, grouping in GROUPINGS.items() if grouping is not None)


async def top(context: RequestContext) -> RawResponse:
    """Handle ``/top``."""
    view = await _view(context)
    ranked = await _ranked(context, view, MAX_BARS)
    shown = {}
    if ranked is not None:
        names = await group_names(context, view, [each.id for each in ranked.shown if each.id is not None])
        bars = [
            Bar(_name(view, names, each.id), each.value, each.id, group_link(view, each.id)) for each in ranked.shown
        ]
        if ranked.rest is not None:
            bars.append(Bar(f"{ranked.rest_groups} others", ranked.rest.value, rest=True))
        shown = {"ranked": ranked, "rows": bar_rows(bars, ranked.total)}
    values: dict[str, Any] = {"ranked": None, "rows": (), **shown}
    return await page_response(
        context,
        "top.html",
        "Top",
        view=view,
        path="/top",
        groupings=GROUPS,
        ranges=range_links(view, "/top", context.now),
        csv_url=view.url("/top.csv"),
        json_url=statistics_url(view, by_window=False),
        over_time_url=view.url("/usage", group=view.group, by=None),
        **values,
    )


async def top_csv(context: RequestContext) -> RawResponse:
    """Handle ``/top.csv``: a line per group, the largest first, and a last one for all others."""
    view = await _view(context)
    ranked = await _ranked(context, view, MAX_CSV_GROUPS)
    if ranked is None:
        return csv_response("top.csv", COLUMNS, ())
    names = await group_names(context, view, [each.id for each in ranked.shown if each.id is not None])
    return csv_response("top.csv", COLUMNS, _csv_rows(view, ranked, names))


def _csv_rows(view: UsageView, ranked: RankedUsage, names: Mapping[str, str]) -> list[Sequence[Cell]]:
    what = (
        view.range.start,
        view.range.end,
        view.meters.name,
        view.measure.function,
        view.measure.unit_of(ranked.unit),
    )

    def share(value: float) -> float | None:
        return value / ranked.total if ranked.total else None

    rows: list[Sequence[Cell]] = [
        (
            *what,
            n,
            view.group,
            each.id,
            _name(view, names, each.id),
            each.value,
            share(each.value),
            each.samples,
        )
        for n, each in enumerate(ranked.shown, 1)
    ]
    if (rest := ranked.rest) is not None:
        name = f"{ranked.rest_groups} others"
        rows.append((*what, None, view.group, None, name, rest.value, share(rest.value), rest.samples))
    return rows


async def _view(context: RequestContext) -> UsageView:
    by = context.arguments["by"]
    if by is not None and by not in GROUPS:
        raise invalid_input("by", by, f"use {', '.join(GROUPS)}.")
    return await usage_view(context, by, DEFAULT_RANGE, windows=False)


async def _ranked(context: RequestContext, view: UsageView, limit: int) -> RankedUsage | None:
    return None if view.meters.chosen is None else await ranked_usage(context, view, limit)


def _name(view: UsageView, names: Mapping[str, str], group: str | None) -> str:
    return WITHOUT[view.group] if group is None else names.get(group, group)


PAGES = (
    page("/top", top, "Groups with the most usage of a meter.", *TOP_PARAMETERS),
    page("/top.csv", top_csv, "Groups with the most usage of a meter, as CSV.", *TOP_PARAMETERS, media_types=(CSV,)),
)
