"""The page ``/usage``: a meter over time by project, resource, user or flavor, and the same as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.web.charts.bars import Bar
from meter.api.web.charts.bars import BarRow
from meter.api.web.charts.bars import bar_rows
from meter.api.web.charts.time_series import ChartSeries
from meter.api.web.charts.time_series import TimeSeriesChart
from meter.api.web.csv_page import CSV
from meter.api.web.csv_page import Cell
from meter.api.web.csv_page import csv_response
from meter.api.web.meter_usage.api_links import statistics_url
from meter.api.web.meter_usage.groups import GroupWindows
from meter.api.web.meter_usage.groups import RankedUsage
from meter.api.web.meter_usage.groups import ranked_usage
from meter.api.web.meter_usage.groups import usage_windows
from meter.api.web.meter_usage.links import group_link
from meter.api.web.meter_usage.links import range_links
from meter.api.web.meter_usage.names import WITHOUT
from meter.api.web.meter_usage.names import group_names
from meter.api.web.meter_usage.view import GROUPINGS
from meter.api.web.meter_usage.view import USAGE_PARAMETERS
from meter.api.web.meter_usage.view import UsageView
from meter.api.web.meter_usage.view import usage_view
from meter.api.web.meter_usage.windows import possible_windows
from meter.api.web.operation import page
from meter.api.web.page import page_response
from meter.daemon.concurrent import all_of

DEFAULT_RANGE = "24h"

COLUMNS = ("start", "end", "meter", "measure", "unit", "group_by", "group_id", "group_name", "value")


@dataclass(frozen=True, slots=True)
class UsageAnswer:
    """The groups of a view, their windows, and the names of the groups by id."""

    ranked: RankedUsage
    windows: Sequence[GroupWindows]
    names: Mapping[str, str]

    def name_of(self, view: UsageView, group: str | None) -> str:
        """Return what the group is called."""
        return WITHOUT[view.group] if group is None else self.names.get(group, group)

    @property
    def rest_name(self) -> str:
        """What the groups that are not shown are called."""
        return f"{self.ranked.rest_groups} others"


async def usage(context: RequestContext) -> RawResponse:
    """Handle ``/usage``."""
    view = await _view(context)
    answer = await _answer(context, view)
    shown = {} if answer is None else {"chart": _chart(view, answer), "rows": _bars(view, answer), "answer": answer}
    values: dict[str, Any] = {"chart": None, "rows": (), "answer": None, **shown}
    return await page_response(
        context,
        "usage.html",
        "Usage",
        view=view,
        path="/usage",
        groupings=GROUPINGS,
        windows=sorted({*possible_windows(view.range), view.window}),
        ranges=range_links(view, "/usage", context.now),
        csv_url=view.url("/usage.csv"),
        json_url=statistics_url(view, by_window=True),
        **values,
    )


async def usage_csv(context: RequestContext) -> RawResponse:
    """Handle ``/usage.csv``: a line per window and group that has samples."""
    view = await _view(context)
    answer = await _answer(context, view)
    rows = [] if answer is None else _csv_rows(view, answer)
    return csv_response("usage.csv", COLUMNS, rows)


async def _view(context: RequestContext) -> UsageView:
    return await usage_view(context, context.arguments["group"], DEFAULT_RANGE, window=context.arguments["window"])


async def _answer(context: RequestContext, view: UsageView) -> UsageAnswer | None:
    """Return what ``view`` shows, ``None`` without samples."""
    if view.meters.chosen is None:
        return None
    ranked = await ranked_usage(context, view)
    if ranked is None:
        return None
    ids = [each.id for each in ranked.shown if each.id is not None]
    windows, names = await all_of(usage_windows(context, view, ranked), group_names(context, view, ids))
    return UsageAnswer(ranked, windows, names)


def _chart(view: UsageView, answer: UsageAnswer) -> TimeSeriesChart:
    shown = len(answer.ranked.shown)
    series = [
        ChartSeries(answer.name_of(view, each.id), each.values, group_link(view, each.id))
        for each in answer.windows[:shown]
    ]
    series += [ChartSeries(answer.rest_name, each.values, rest=True) for each in answer.windows[shown:]]
    return TimeSeriesChart(
        key="usage-over-time",
        title=f"{view.measure.label} of {view.meters.name}",
        unit=view.measure.unit_of(answer.ranked.unit),
        start=view.range.start,
        step=view.window,
        series=series,
        stacked=view.measure.additive,
    )


def _bars(view: UsageView, answer: UsageAnswer) -> Sequence[BarRow]:
    bars = [
        Bar(answer.name_of(view, each.id), each.value, each.id, group_link(view, each.id))
        for each in answer.ranked.shown
    ]
    if answer.ranked.rest is not None:
        bars.append(Bar(answer.rest_name, answer.ranked.rest.value, rest=True))
    return bar_rows(bars, answer.ranked.total)


def _csv_rows(view: UsageView, answer: UsageAnswer) -> list[Sequence[Cell]]:
    unit = view.measure.unit_of(answer.ranked.unit)
    shown = len(answer.ranked.shown)
    rows: list[Sequence[Cell]] = []
    for n, each in enumerate(answer.windows):
        name = answer.name_of(view, each.id) if n < shown else answer.rest_name
        for window, value in enumerate(each.values):
            if value is not None:
                start = view.range.start + timedelta(seconds=window * view.window)
                end = start + timedelta(seconds=view.window)
                what = (view.meters.name, view.measure.function, unit, view.group)
                rows.append((start, end, *what, each.id, name, value))
    return rows


PAGES = (
    page("/usage", usage, "Usage of a meter over time, by group.", *USAGE_PARAMETERS),
    page(
        "/usage.csv", usage_csv, "Usage of a meter over time, by group, as CSV.", *USAGE_PARAMETERS, media_types=(CSV,)
    ),
)
