"""Answers as charts: the first aggregate of statistics by window, and values of PromQL, of the groups or series that are largest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from meter.api.prometheus.results import METRIC_NAME
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import MatrixSeries
from meter.api.prometheus.results import Point
from meter.api.request.prometheus import parse_duration
from meter.api.request.prometheus import parse_time
from meter.api.web.charts.time_series import ChartSeries
from meter.api.web.charts.time_series import TimeSeriesChart
from meter.query import Statistics

MAX_SERIES = 10

MAX_ANSWER_WINDOWS = 2000
"""Windows that a chart of an answer has; an answer of more has no chart."""


def answer_chart(meter: str, rows: Sequence[Statistics], period: int) -> TimeSeriesChart | None:
    """Return the chart of ``rows``, statistics by window of ``period`` seconds; ``None`` if they have too many windows."""
    start = min(row.period_start for row in rows)
    last = max(row.period_start for row in rows)
    windows = round((last - start) / timedelta(seconds=period)) + 1
    if windows > MAX_ANSWER_WINDOWS:
        return None
    label = next(iter(rows[0].values))
    found: dict[tuple[str, ...], dict[int, float]] = {}
    units: dict[str, None] = {}
    for row in rows:
        units[row.unit] = None
        key = (*(value or "–" for value in row.group.values()), row.unit)
        found.setdefault(key, {})[round((row.period_start - start) / timedelta(seconds=period))] = row.values[label]
    largest = sorted(found, key=lambda key: -sum(found[key].values()))[:MAX_SERIES]
    several = len(units) > 1
    series = [
        ChartSeries(", ".join(key if several else key[:-1]) or label, [found[key].get(n) for n in range(windows)])
        for key in largest
    ]
    shown = f", the {MAX_SERIES} largest of {len(found)} groups" if len(found) > MAX_SERIES else ""
    return TimeSeriesChart(
        key="answer-chart",
        title=f"{label} of {meter}{shown}",
        unit="" if several else next(iter(units)),
        start=start,
        step=period,
        series=series,
        zoom=True,
    )


def promql_chart(pairs: Mapping[str, str], series: Sequence[MatrixSeries]) -> TimeSeriesChart | None:
    """Return the chart of ``series``, the answer to ``query_range`` with ``pairs``; ``None`` if they have too many points.

    A value is drawn over the step before its time: it is about what was until then.
    """
    step = parse_duration("step", pairs["step"])
    first = parse_time("start", pairs["start"])
    points = round((parse_time("end", pairs["end"]) - first) / step) + 1
    if points > MAX_ANSWER_WINDOWS:
        return None
    shown = sorted(series, key=lambda each: -_size(each.points))[:MAX_SERIES]
    lines = []
    for each in shown:
        values: list[float | None] = [None] * points
        for point in each.points:
            values[round((point.time - first) / step)] = point.value
        lines.append(ChartSeries(_labels_text(each.labels) or pairs["query"], values))
    largest = f", the {MAX_SERIES} largest of {len(series)} series" if len(series) > MAX_SERIES else ""
    return TimeSeriesChart(
        key="answer-chart",
        title=f"{pairs['query']}{largest}",
        unit="",
        start=datetime.fromtimestamp(first - step, UTC),
        step=step,
        series=lines,
    )


def _size(points: Sequence[Point]) -> float:
    return max((abs(each.value) for each in points if math.isfinite(each.value)), default=0.0)


def _labels_text(labels: Labels) -> str:
    name = dict(labels).get(METRIC_NAME, "")
    others = ", ".join(f"{key}={value}" for key, value in labels if key != METRIC_NAME)
    return f"{name} {others}".strip()
