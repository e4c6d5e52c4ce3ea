"""The chart of one meter of a resource: its increase, sum or average in each window of the period."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from datetime import timedelta

from meter.api.request.context import RequestContext
from meter.api.web.charts.time_series import ChartSeries
from meter.api.web.charts.time_series import TimeSeriesChart
from meter.api.web.page_range import PageRange
from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.sample import SampleType

MEASURES: Mapping[SampleType, tuple[AggregateFunction, str]] = {
    "cumulative": ("increase", "Increase"),
    "delta": ("sum", "Sum"),
    "gauge": ("avg", "Average"),
}
"""What is shown of meters of each type, and what it is called."""

PREFERRED = ("cpu", "volume.size", "image.size")
"""Meters that are shown if none is chosen, in this order; otherwise the first one."""


def charted_meter(meters: Sequence[StoredMeter], chosen: str | None) -> StoredMeter | None:
    """Return the meter that is shown: the ``chosen`` one, or one that tells most; ``None`` if there is none."""
    if chosen is not None:
        return next((each for each in meters if each.name == chosen), None)
    by_name = {each.name: each for each in reversed(meters)}
    return next((by_name[name] for name in PREFERRED if name in by_name), meters[0] if meters else None)


async def resource_chart(
    context: RequestContext, resource_id: str, meter: StoredMeter, shown: PageRange
) -> TimeSeriesChart:
    """Return the chart of ``meter`` of a resource; windows without samples are gaps."""
    function, label = MEASURES[meter.type]
    aggregate = Aggregate(function)
    step = shown.window
    windows = -(-shown.seconds // step)
    query = StatisticsQuery(
        filter=SampleFilter(equals={"resource_id": resource_id, "meter": meter.name}, start=shown.start, end=shown.end),
        period=step,
        aggregates=(aggregate,),
    )
    values: list[float | None] = [None] * int(windows)
    for row in await context.store.statistics(query):
        place = (row.period_start - shown.start) // timedelta(seconds=step)
        if row.unit == meter.unit and 0 <= place < len(values):
            values[place] = float(row.values[aggregate.label])
    return TimeSeriesChart(
        key="chart",
        title=f"{label} of {meter.name}",
        unit=meter.unit,
        start=shown.start,
        step=step,
        series=[ChartSeries(meter.name, values)],
    )
