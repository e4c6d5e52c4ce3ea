"""The reference for statistics, in plain Python: what each aggregate means.

A *step* leads from one sample to the next, whether they match the query or not: for ``increase`` and ``rate`` within a run
(:mod:`meter.counter_runs`) of a meter, unit and resource, for ``integral`` within a meter and resource
(:mod:`meter.testing.integral_hours`). Only the range, ``as_of``, the meter and the resource of the query limit which samples there
are. The increase of a step belongs to the window and group of its later sample, its integral to those of its earlier sample, and it
counts if that sample matches. Thus the rows of finer windows, groups or filters add up to the row of a coarser one.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.counter_runs import Run
from meter.counter_runs import RunKind
from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.interfaces import RequestError
from meter.query import Aggregate
from meter.query import Grouping
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredSample
from meter.testing.filters import METADATA_PREFIX
from meter.testing.filters import matches
from meter.testing.filters import values_at
from meter.testing.integral_hours import integral_hours

Key = tuple[datetime, str]
"""The timestamp and message id of a sample."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps between samples, by the :data:`Key` of the sample whose window and group they belong to.

    ``previous`` has the previous sample of the same run. ``from_zero`` has the first sample of each time on a host that is known to
    have counted from zero. ``hours`` are those for which the volume of a gauge counts.
    """

    previous: Mapping[Key, StoredSample]
    from_zero: Set[Key]
    hours: Mapping[Key, float]


def compute_statistics(query: StatisticsQuery, stored: Sequence[StoredSample]) -> list[Statistics]:
    """Return a row per window, unit and group, in that order. ``stored`` are all samples of the store, oldest first."""
    filter = query.filter
    of_steps = SampleFilter(
        equals={field: value for field, value in filter.equals.items() if field in ("meter", "resource_id")},
        start=filter.start,
        end=filter.end,
        after_start=filter.after_start,
        through_end=filter.through_end,
        as_of=filter.as_of,
    )
    earlier = replace(of_steps, start=None, end=filter.start, after_start=False, through_end=filter.after_start)
    before = [] if filter.start is None else [row for row in stored if matches(row, earlier)]
    rows = [row for row in stored if matches(row, filter)]
    cells: defaultdict[tuple[Any, ...], list[StoredSample]] = defaultdict(list)
    try:
        for row in rows:
            group = tuple(group_value(row, grouping) for grouping in query.groupby)
            cells[_window_start(query, rows[0], row), row.unit, group].append(row)
        steps = steps_between([row for row in stored if matches(row, of_steps)], before, filter.start)
        statistics_rows = [_statistics(query, start, group, cell, steps) for (start, _, group), cell in cells.items()]
    except OverflowError as error:
        raise RequestError(f"windows of {query.period} s extend beyond the year 9999") from error
    statistics_rows.sort(key=lambda row: (row.period_start, row.unit, [value or "" for value in row.group.values()]))
    return statistics_rows


def steps_between(rows: Iterable[StoredSample], before: Iterable[StoredSample], start: datetime | None) -> Steps:
    """Return the steps between ``rows``; they and those ``before`` the ``start`` of the range are in the order oldest first."""
    previous: dict[Key, StoredSample] = {}
    from_zero: set[Key] = set()
    of_unit: defaultdict[tuple[str, str, str], list[StoredSample]] = defaultdict(list)
    of_resource: defaultdict[tuple[str, str], list[StoredSample]] = defaultdict(list)
    before_of_resource: defaultdict[tuple[str, str], list[StoredSample]] = defaultdict(list)
    for row in rows:
        of_unit[row.name, row.unit, row.resource_id].append(row)
        of_resource[row.name, row.resource_id].append(row)
    counted_before = set()
    for row in before:
        counted_before.add((row.name, row.unit, row.resource_id, run_of(row.type, row.metadata)))
        before_of_resource[row.name, row.resource_id].append(row)
    for counter, samples in of_unit.items():
        runs: defaultdict[Run, list[StoredSample]] = defaultdict(list)
        for row in samples:
            runs[run_of(row.type, row.metadata)].append(row)
        for of_run in runs.values():
            previous.update({_key(later): earlier for earlier, later in itertools.pairwise(of_run)})
        for kind in (RunKind.INSTANCE_HOST, RunKind.HOST):
            of_kind = [row for row in samples if run_of(row.type, row.metadata).kind is kind]
            from_zero |= _arrivals(of_kind, {run for *name, run in counted_before if tuple(name) == counter})
    hours: dict[Key, float] = {}
    for resource, samples in of_resource.items():
        hours |= {_key(row): counted for row, counted in integral_hours(samples, before_of_resource[resource], start)}
    return Steps(previous, from_zero, hours)


def _arrivals(samples: Sequence[StoredSample], counted_before: Set[Run]) -> set[Key]:
    """Return the samples at which a resource is known to have arrived on a host with a counter of zero.

    ``samples`` have runs of one kind that are defined by their host, those in ``counted_before`` also before the range. A host is
    known to be new if no earlier sample is from it. If the resource was there before, it has returned if the counter of the other host
    was not 0, as it is while a domain arrives, and its own grows now, as that of a domain that has left does not.
    """
    visits = [
        (run, list(visit)) for run, visit in itertools.groupby(samples, lambda row: run_of(row.type, row.metadata))
    ]
    known: set[Run] = set()
    arrived = set()
    for number, (run, visit) in enumerate(visits):
        first = visit[0]
        if number and run not in known:
            from_zero = run not in counted_before and samples[0].timestamp < first.timestamp
        elif number:
            from_zero = _maximum(visits[number - 1][1]) > 0 and _maximum(visit) > float(first.volume)
        else:
            from_zero = False
        if from_zero:
            arrived.add(_key(first))
        known.add(run)
    return arrived


def _maximum(samples: Sequence[StoredSample]) -> float:
    return max(float(row.volume) for row in samples)


def _key(row: StoredSample) -> Key:
    return row.timestamp, row.message_id


def group_value(row: StoredSample, grouping: Grouping) -> str | None:
    """Return the value of ``row`` for ``grouping``: an id, or an element of metadata, as JSON unless it is a text."""
    if not grouping.startswith(METADATA_PREFIX):
        value: str | None = getattr(row, grouping)
        return value
    found = next(values_at(row.metadata, grouping.removeprefix(METADATA_PREFIX)), None)
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
    steps: Steps,
) -> Statistics:
    """Return the row of one window, unit and group. ``rows`` are its samples, oldest first."""
    first, last = rows[0].timestamp, rows[-1].timestamp
    return Statistics(
        unit=rows[0].unit,
        group=dict(zip(query.groupby, group, strict=True)),
        period=query.period or 0,
        period_start=first if start is None else start,
        period_end=last if start is None else start + timedelta(seconds=query.period or 0),
        first=first,
        last=last,
        values={aggregate.label: _value(aggregate, rows, steps) for aggregate in query.aggregates},
    )


def _value(aggregate: Aggregate, rows: Sequence[StoredSample], steps: Steps) -> float:
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
            try:
                return percentile(sorted(volumes), aggregate.fraction)
            except ValueError as error:
                raise RequestError(str(error)) from error
        case "increase":
            return sum(_increase(row, steps) for row in rows)
        case "rate":
            return _rate(rows, steps)
        case "integral":
            return sum(float(row.volume) * steps.hours.get(_key(row), 0.0) for row in rows)
        case "first":
            return min((row.timestamp, float(row.volume)) for row in rows)[1]
        case "last":
            return max((row.timestamp, float(row.volume)) for row in rows)[1]
        case "polling_interval":
            return max(interval_of(row.metadata) for row in rows)


def _increase(row: StoredSample, steps: Steps) -> float:
    """Return the increase of a cumulative meter that belongs to ``row``: since the previous sample, or since its arrival."""
    if _key(row) in steps.from_zero:
        return float(row.volume)
    earlier = steps.previous.get(_key(row))
    return 0.0 if earlier is None else increase_between(earlier, row)


def increase_between(earlier: StoredSample, later: StoredSample) -> float:
    """Return the increase of a cumulative meter from one sample of a run to the next.

    A lower volume means that the counter was reset to zero, except in a declared run, whose counter never drops: there the
    increase is 0.
    """
    difference = float(later.volume) - float(earlier.volume)
    if difference >= 0:
        return difference
    return 0.0 if run_of(later.type, later.metadata).kind is RunKind.DECLARED else float(later.volume)


def _rate(rows: Sequence[StoredSample], steps: Steps) -> float:
    """Return the sum over resources of increase per second between samples of the same run; 0 if there are no steps."""
    increase: defaultdict[str, float] = defaultdict(float)
    seconds: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        increase[row.resource_id] += _increase(row, steps)
        if (earlier := steps.previous.get(_key(row))) is not None and _key(row) not in steps.from_zero:
            seconds[row.resource_id] += (row.timestamp - earlier.timestamp).total_seconds()
    return sum(increase[resource_id] / seconds[resource_id] for resource_id in increase if seconds[resource_id])


def percentile(volumes: Sequence[float], part: float) -> float:
    """Return the volume at the fraction ``part`` (0 to 1) of the sorted ``volumes``, interpolated between neighbours."""
    position = part * (len(volumes) - 1)
    below = math.floor(position)
    above = math.ceil(position)
    return volumes[below] + (volumes[above] - volumes[below]) * (position - below)
