"""The reference for statistics, in plain Python: what each aggregate means.

A *step* leads from one matching sample to the next: for ``increase`` and ``rate`` within a run (:mod:`meter.counter_runs`) of a
meter, unit and resource, for ``integral`` within a meter, unit and resource. The increase of a step belongs to the window and
group of its later sample, its integral to those of its earlier sample. Thus the rows of finer windows or groups add up to
the row of a coarser one.
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
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.counter_runs import INTERVALS_CARRIED
from meter.counter_runs import Run
from meter.counter_runs import RunKind
from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.interfaces import RequestError
from meter.query import Aggregate
from meter.query import Grouping
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredSample
from meter.testing.filters import METADATA_PREFIX
from meter.testing.filters import values_at

SECONDS_IN_HOUR = 3600

Key = tuple[datetime, str]
"""The timestamp and message id of a sample."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps between samples, by the :data:`Key` of the sample whose window and group they belong to.

    ``previous`` has the previous sample of the same run, ``next`` the next one of the same meter, unit and resource.
    ``continued`` has the samples that are not the last of their run. ``migrated`` has the first sample of each run that is
    defined by its host, if the resource had a sample on another host before.
    """

    previous: Mapping[Key, StoredSample]
    next: Mapping[Key, StoredSample]
    continued: Set[Key]
    migrated: Set[Key]


def compute_statistics(query: StatisticsQuery, rows: Sequence[StoredSample]) -> list[Statistics]:
    """Return a row per window, unit and group, in that order. ``rows`` are the matching samples, oldest first."""
    cells: defaultdict[tuple[Any, ...], list[StoredSample]] = defaultdict(list)
    try:
        for row in rows:
            group = tuple(group_value(row, grouping) for grouping in query.groupby)
            cells[_window_start(query, rows[0], row), row.unit, group].append(row)
        steps = steps_between(rows)
        statistics_rows = [_statistics(query, start, group, cell, steps) for (start, _, group), cell in cells.items()]
    except OverflowError as error:
        raise RequestError(f"windows of {query.period} s extend beyond the year 9999") from error
    statistics_rows.sort(key=lambda row: (row.period_start, row.unit, [value or "" for value in row.group.values()]))
    return statistics_rows


def steps_between(rows: Iterable[StoredSample]) -> Steps:
    """Return the steps between ``rows``, which are in the order oldest first."""
    previous: dict[Key, StoredSample] = {}
    next_: dict[Key, StoredSample] = {}
    continued: set[Key] = set()
    migrated: set[Key] = set()
    resources: defaultdict[tuple[str, str, str], list[StoredSample]] = defaultdict(list)
    for row in rows:
        resources[row.name, row.unit, row.resource_id].append(row)
    for samples in resources.values():
        next_.update({_key(earlier): later for earlier, later in itertools.pairwise(samples)})
        runs: defaultdict[Run, list[StoredSample]] = defaultdict(list)
        first_of_kind: dict[RunKind, datetime] = {}
        for row in samples:
            run = run_of(row.type, row.metadata)
            first = first_of_kind.setdefault(run.kind, row.timestamp)
            if run not in runs and run.kind in (RunKind.INSTANCE_HOST, RunKind.HOST) and first < row.timestamp:
                migrated.add(_key(row))
            runs[run].append(row)
        for of_run in runs.values():
            previous.update({_key(later): earlier for earlier, later in itertools.pairwise(of_run)})
            continued.update(map(_key, of_run[:-1]))
    return Steps(previous, next_, continued, migrated)


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
            return sum(_integral(row, steps) for row in rows if _key(row) in steps.next)


def _increase(row: StoredSample, steps: Steps) -> float:
    """Return the increase of a cumulative meter that belongs to ``row``: since the previous sample, or since a migration."""
    if _key(row) in steps.migrated:
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


def _integral(row: StoredSample, steps: Steps) -> float:
    """Return the volume of a gauge times the hours until the next sample.

    The hours are limited to :data:`~meter.counter_runs.INTERVALS_CARRIED` polling intervals, unless the interval is unknown or
    a later sample belongs to the same declared run: then the resource existed in between.
    """
    seconds = (steps.next[_key(row)].timestamp - row.timestamp).total_seconds()
    interval = interval_of(row.metadata)
    existed = run_of(row.type, row.metadata).kind is RunKind.DECLARED and _key(row) in steps.continued
    if interval and not existed:
        seconds = min(seconds, INTERVALS_CARRIED * interval)
    return float(row.volume) * seconds / SECONDS_IN_HOUR


def _rate(rows: Sequence[StoredSample], steps: Steps) -> float:
    """Return the sum over resources of increase per second between samples of the same run; 0 if there are no steps."""
    increase: defaultdict[str, float] = defaultdict(float)
    seconds: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        increase[row.resource_id] += _increase(row, steps)
        if (earlier := steps.previous.get(_key(row))) is not None:
            seconds[row.resource_id] += (row.timestamp - earlier.timestamp).total_seconds()
    return sum(increase[resource_id] / seconds[resource_id] for resource_id in increase if seconds[resource_id])


def percentile(volumes: Sequence[float], part: float) -> float:
    """Return the volume at the fraction ``part`` (0 to 1) of the sorted ``volumes``, interpolated between neighbours."""
    position = part * (len(volumes) - 1)
    below = math.floor(position)
    above = math.ceil(position)
    return volumes[below] + (volumes[above] - volumes[below]) * (position - below)
