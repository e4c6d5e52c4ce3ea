"""Statistics of samples, in plain Python: where the meaning of an aggregate is in doubt, read it here.

A *step* leads from one sample of a resource to the next one that matches. What grew in a step counts in the row of the
later sample, and what lasted in the row of the earlier one, wherever windows or groups change in between: so the rows
of a finer question add up to the row of a coarser one.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.interfaces import RequestError
from meter.matching import METADATA
from meter.matching import values_at
from meter.query import Aggregate
from meter.query import Grouping
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredSample

SECONDS_IN_HOUR = 3600

Neighbours = Mapping[str, StoredSample]
"""A sample of the same meter, unit and resource, by the id of the sample it is next to."""


def reckoned(query: StatisticsQuery, rows: Sequence[StoredSample]) -> list[Statistics]:
    """Return a row per window, unit and group, in that order, of samples that are given oldest first."""
    cells: defaultdict[tuple[Any, ...], list[StoredSample]] = defaultdict(list)
    try:
        for row in rows:
            group = tuple(group_value(row, grouping) for grouping in query.groupby)
            cells[_window_start(query, rows[0], row), row.unit, group].append(row)
        series: defaultdict[tuple[str, str, str], list[StoredSample]] = defaultdict(list)
        for row in rows:
            series[row.name, row.unit, row.resource_id].append(row)
        pairs = [pair for samples in series.values() for pair in itertools.pairwise(samples)]
        before = {later.message_id: earlier for earlier, later in pairs}
        following = {earlier.message_id: later for earlier, later in pairs}
        answer = [
            _statistics(query, start, group, cell, before, following) for (start, _, group), cell in cells.items()
        ]
    except OverflowError as error:
        raise RequestError(f"a period of {query.period} s leads beyond the year 9999") from error
    answer.sort(key=lambda one: (one.period_start, one.unit, [value or "" for value in one.group.values()]))
    return answer


def group_value(row: StoredSample, grouping: Grouping) -> str | None:
    """Return the value of ``row`` that ``grouping`` names: an id, or metadata as text (JSON where it is no text)."""
    if not grouping.startswith(METADATA):
        value: str | None = getattr(row, grouping)
        return value
    found = next(values_at(row.metadata, grouping.removeprefix(METADATA)), None)
    return found if found is None or isinstance(found, str) else json.dumps(found)


def _window_start(query: StatisticsQuery, oldest: StoredSample, row: StoredSample) -> datetime | None:
    if query.period is None:
        return None
    origin = query.filter.start or oldest.timestamp
    period = timedelta(seconds=query.period)
    return origin + (row.timestamp - origin) // period * period


def _statistics(
    query: StatisticsQuery,
    start: datetime | None,
    group: tuple[str | None, ...],
    rows: Sequence[StoredSample],
    before: Neighbours,
    following: Neighbours,
) -> Statistics:
    """Make the row of one window, unit and group from its samples, oldest first."""
    first, last = rows[0].timestamp, rows[-1].timestamp
    return Statistics(
        unit=rows[0].unit,
        group=dict(zip(query.groupby, group, strict=True)),
        period=query.period or 0,
        period_start=first if start is None else start,
        period_end=last if start is None else start + timedelta(seconds=query.period or 0),
        first=first,
        last=last,
        values={aggregate.label: _value(aggregate, rows, before, following) for aggregate in query.aggregates},
    )


def _value(aggregate: Aggregate, rows: Sequence[StoredSample], before: Neighbours, following: Neighbours) -> float:
    volumes = [float(row.volume) for row in rows]
    match aggregate.function:
        case "max":
            return max(volumes)
        case "min":
            return min(volumes)
        case "sum":
            return sum(volumes)
        case "avg":
            return sum(volumes) / len(volumes)
        case "count":
            return len(volumes)
        case "stddev":  # of the population, not of a sample of it
            return statistics.pstdev(volumes)
        case "cardinality":
            values = {getattr(row, aggregate.param or "resource_id") for row in rows}
            return len(values - {None})
        case "percentile":
            return percentile(sorted(volumes), fraction(aggregate))
        case "increase":
            return sum(growth(before[row.message_id], row) for row in rows if row.message_id in before)
        case "rate":
            return _rate(rows, before)
        case "integral":
            return sum(lasting(row, following[row.message_id]) for row in rows if row.message_id in following)


def growth(earlier: StoredSample, later: StoredSample) -> float:
    """Return how much a cumulative meter grew from one sample to the next; a lower volume was counted from zero."""
    difference = float(later.volume) - float(earlier.volume)
    return difference if difference >= 0 else float(later.volume)


def lasting(earlier: StoredSample, later: StoredSample) -> float:
    """Return a gauge's volume times the hours it lasted, until the next sample."""
    return float(earlier.volume) * (later.timestamp - earlier.timestamp).total_seconds() / SECONDS_IN_HOUR


def _rate(rows: Sequence[StoredSample], before: Neighbours) -> float:
    """Return the sum over resources of what grew per second, in the time in which it was seen to; 0 where in none."""
    grown: defaultdict[str, float] = defaultdict(float)
    seconds: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        if row.message_id in before:
            earlier = before[row.message_id]
            grown[row.resource_id] += growth(earlier, row)
            seconds[row.resource_id] += (row.timestamp - earlier.timestamp).total_seconds()
    return sum(grown[resource_id] / seconds[resource_id] for resource_id in grown if seconds[resource_id])


def fraction(aggregate: Aggregate) -> float:
    """Return the parameter of a percentile as a number from 0 to 1."""
    try:
        percent = float(aggregate.param or "")
    except ValueError:
        percent = math.nan
    if not 0 <= percent <= 100:
        raise RequestError(f"percentile takes a number from 0 to 100, not {aggregate.param!r}")
    return percent / 100


def percentile(volumes: Sequence[float], part: float) -> float:
    """Return the volume below which ``part`` of the sorted ``volumes`` lies, between two of them where need be."""
    position = part * (len(volumes) - 1)
    below = math.floor(position)
    above = math.ceil(position)
    return volumes[below] + (volumes[above] - volumes[below]) * (position - below)
