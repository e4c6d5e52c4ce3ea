"""Statistics of samples, in plain Python: where the meaning of an aggregate is in doubt, read it here.

A *step* leads from one sample to the next one that matches: of the same run of a meter, unit and resource for what grew,
of the same meter, unit and resource for what lasted. :mod:`meter.counter_runs` says what a run is. What grew in a step counts in
the row of the later sample, and what lasted in the row of the earlier one, wherever windows or groups change in between:
so the rows of a finer question add up to the row of a coarser one.
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
from meter.testing.filters import METADATA
from meter.testing.filters import values_at

SECONDS_IN_HOUR = 3600

Key = tuple[datetime, str]
"""What tells samples apart: time and id."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps between samples, by the :data:`Key` of the sample that they count for.

    ``before`` has the sample of the same run before, ``following`` the next of the same meter, unit and resource.
    ``continued`` has samples that another one of the same run follows.
    ``arrived`` has first samples of a run by host whose resource had a sample by another host before.
    """

    before: Mapping[Key, StoredSample]
    following: Mapping[Key, StoredSample]
    continued: Set[Key]
    arrived: Set[Key]


def compute_statistics(query: StatisticsQuery, rows: Sequence[StoredSample]) -> list[Statistics]:
    """Return a row per window, unit and group, in that order, of samples that are given oldest first."""
    cells: defaultdict[tuple[Any, ...], list[StoredSample]] = defaultdict(list)
    try:
        for row in rows:
            group = tuple(group_value(row, grouping) for grouping in query.groupby)
            cells[_window_start(query, rows[0], row), row.unit, group].append(row)
        steps = steps_between(rows)
        answer = [_statistics(query, start, group, cell, steps) for (start, _, group), cell in cells.items()]
    except OverflowError as error:
        raise RequestError(f"a period of {query.period} s leads beyond the year 9999") from error
    answer.sort(key=lambda one: (one.period_start, one.unit, [value or "" for value in one.group.values()]))
    return answer


def steps_between(rows: Iterable[StoredSample]) -> Steps:
    """Return the steps between ``rows``, which are given oldest first."""
    before: dict[Key, StoredSample] = {}
    following: dict[Key, StoredSample] = {}
    continued: set[Key] = set()
    arrived: set[Key] = set()
    resources: defaultdict[tuple[str, str, str], list[StoredSample]] = defaultdict(list)
    for row in rows:
        resources[row.name, row.unit, row.resource_id].append(row)
    for samples in resources.values():
        following.update({_key(earlier): later for earlier, later in itertools.pairwise(samples)})
        runs: defaultdict[Run, list[StoredSample]] = defaultdict(list)
        first_of_kind: dict[RunKind, datetime] = {}
        for row in samples:
            run = run_of(row.type, row.metadata)
            first = first_of_kind.setdefault(run.kind, row.timestamp)
            if run not in runs and run.kind in (RunKind.INSTANCE_HOST, RunKind.HOST) and first < row.timestamp:
                arrived.add(_key(row))
            runs[run].append(row)
        for of_run in runs.values():
            before.update({_key(later): earlier for earlier, later in itertools.pairwise(of_run)})
            continued.update(map(_key, of_run[:-1]))
    return Steps(before, following, continued, arrived)


def _key(row: StoredSample) -> Key:
    return row.timestamp, row.message_id


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
    steps: Steps,
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
            return percentile(sorted(volumes), fraction(aggregate))
        case "increase":
            return sum(_grown(row, steps) for row in rows)
        case "rate":
            return _rate(rows, steps)
        case "integral":
            return sum(_lasted(row, steps) for row in rows if _key(row) in steps.following)


def _grown(row: StoredSample, steps: Steps) -> float:
    """Return what a cumulative meter grew up to ``row``: since the sample before, or since its arrival on a host."""
    if _key(row) in steps.arrived:
        return float(row.volume)
    earlier = steps.before.get(_key(row))
    return 0.0 if earlier is None else growth(earlier, row)


def growth(earlier: StoredSample, later: StoredSample) -> float:
    """Return how much a cumulative meter grew from one sample of a run to the next.

    A lower volume was counted from zero, unless the run is declared: then the counter did not drop, and it grew by nothing.
    """
    difference = float(later.volume) - float(earlier.volume)
    if difference >= 0:
        return difference
    return 0.0 if run_of(later.type, later.metadata).kind is RunKind.DECLARED else float(later.volume)


def _lasted(row: StoredSample, steps: Steps) -> float:
    """Return a gauge's volume times the hours it lasted, until the next sample.

    It lasted for :data:`~meter.counter_runs.INTERVALS_CARRIED` polling intervals at most, unless the interval is unknown, or a
    later sample is of the same declared run: then the resource lived in between, whatever came between the two.
    """
    seconds = (steps.following[_key(row)].timestamp - row.timestamp).total_seconds()
    interval = interval_of(row.metadata)
    lived = run_of(row.type, row.metadata).kind is RunKind.DECLARED and _key(row) in steps.continued
    if interval and not lived:
        seconds = min(seconds, INTERVALS_CARRIED * interval)
    return float(row.volume) * seconds / SECONDS_IN_HOUR


def _rate(rows: Sequence[StoredSample], steps: Steps) -> float:
    """Return the sum over resources of what grew per second, in the time between samples of its runs; 0 where in none."""
    grown: defaultdict[str, float] = defaultdict(float)
    seconds: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        grown[row.resource_id] += _grown(row, steps)
        if (earlier := steps.before.get(_key(row))) is not None:
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
