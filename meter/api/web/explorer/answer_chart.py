"""Statistics by window as a chart: the first aggregate, of the groups with the largest values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

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
