"""The reference for measuring samples: what each kind of usage means, in plain Python with exact fractions.

Each function returns, for the samples of one meter and resource in the time from ``start`` until ``finish``, the exact sum by project and
values, and the unmetered microseconds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from fractions import Fraction
from itertools import groupby

from meter.counter_runs import INTERVALS_CARRIED
from meter.counter_runs import RunKind
from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.query import StoredSample
from meter.rating.book.price_book import Sku
from meter.rating.exact import shortest
from meter.rating.usage.existence import ExistenceSpan
from meter.rating.usage.sku_definition import LONGEST_VALUE
from meter.rating.usage.sku_definition import values_text
from meter.testing.filters import values_at
from meter.testing.integral_hours import is_measured

LOOK_BACK = timedelta(days=45)
MICROSECOND = timedelta(microseconds=1)
SLOT = timedelta(minutes=5)

Key = tuple[str, str]
"""A project, and the values as JSON."""


@dataclass(slots=True)
class MeasuredTotal:
    """The exact sum, not yet in the unit of the SKU, and the unmetered time."""

    total: Fraction = Fraction(0)
    unmetered_microseconds: int = 0


@dataclass(frozen=True, slots=True)
class SampledWindow:
    """Samples of one meter, unit and resource: all that are known, and the time in question; ``spans`` is when the resource existed."""

    sku: Sku
    rows: Sequence[StoredSample]
    start: datetime
    finish: datetime
    spans: Sequence[ExistenceSpan]

    def within(self) -> list[StoredSample]:
        """Return the samples of the time in question, oldest first."""
        return sorted((row for row in self.rows if self.start <= row.timestamp < self.finish), key=_order)

    def with_before(self) -> list[StoredSample]:
        """Return them, and the last one before of each series."""
        last: dict[object, StoredSample] = {}
        for row in sorted(self.rows, key=_order):
            if self.start - LOOK_BACK <= row.timestamp < self.start:
                last[_series(row)] = row
        return sorted([*last.values(), *self.within()], key=_order)

    def with_held(self) -> list[StoredSample]:
        """Return :meth:`with_before`, and what was told before that and still holds because the resource exists."""
        rows = self.with_before()
        exists = any(
            span.began < self.finish and (span.ended is None or span.ended > self.start) for span in self.spans
        )
        if not exists or any(row.timestamp < self.start and not is_measured(row) for row in rows):
            return rows
        earlier = (row for row in self.rows if row.timestamp < self.start - LOOK_BACK and not is_measured(row))
        newest = max(earlier, key=_order, default=None)
        return rows if newest is None or _polled(newest) else [newest, *rows]

    def with_neighbours(self) -> list[StoredSample]:
        """Return them, and all that may be their neighbours."""
        first, last = self.start - LOOK_BACK, self.finish + LOOK_BACK
        return sorted((row for row in self.rows if first <= row.timestamp < last), key=_order)

    def key(self, row: StoredSample, project: str | None = None) -> Key:
        """Return the project and the values of ``row``."""
        values = {}
        for name in self.sku.by:
            value = next(iter(values_at(row.metadata, name)), None)
            text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
            values[name] = text[:LONGEST_VALUE]
        return (row.project_id or "") if project is None else project, values_text(values)


def _order(row: StoredSample) -> tuple[datetime, str]:
    return row.timestamp, row.message_id


def _series(row: StoredSample) -> object:
    return (
        *(row.user_id, row.project_id, row.source, row.type),
        *(interval_of(row.metadata), run_of(row.type, row.metadata)),
    )


def _polled(row: StoredSample) -> bool:
    return interval_of(row.metadata) > 0


def _volume(row: StoredSample) -> Fraction:
    return Fraction(shortest(float(row.volume)))


Piece = tuple[StoredSample, datetime, datetime]


def integral(window: SampledWindow) -> dict[Key, MeasuredTotal]:
    """Return the sum of volume × seconds, times a million."""
    found: defaultdict[Key, MeasuredTotal] = defaultdict(MeasuredTotal)
    rows = window.with_held()
    measured = [(row, _until(window, rows, n)) for n, row in enumerate(rows) if is_measured(row)]
    pieces: list[Piece] = [(row, row.timestamp, until) for row, until in measured]
    gaps = _gaps([(row.timestamp, until) for row, until in measured], window)
    filled = timedelta(0)
    for n, row in enumerate(rows):
        if is_measured(row):
            continue
        until = _until(window, rows, n)
        for begins, ends, bounded in gaps:
            first, last = max(row.timestamp, begins, window.start), min(until, ends)
            if first < last:
                pieces.append((row, first, last))
                filled += last - first if bounded and not window.spans else timedelta(0)
    metered: defaultdict[str, int] = defaultdict(int)
    for row, begins, ends in pieces:
        first, last = max(begins, window.start), min(ends, window.finish)
        for project, owned in _owned(window, row, first, last):
            found[window.key(row, project)].total += _volume(row) * (owned // MICROSECOND)
        for project, owned in _owned(window, row, first, last, while_off=False):
            metered[project] += owned // MICROSECOND
    if rows:
        _add_unmetered(window, rows, gaps, filled, metered, found)
    return found


def _until(window: SampledWindow, rows: Sequence[StoredSample], n: int) -> datetime:
    """Return until when the volume of a sample holds."""
    row = rows[n]
    following = [each for each in rows[n + 1 :] if is_measured(each) == is_measured(row)]
    later = [each for each in _later(window) if is_measured(each) == is_measured(row)]
    if not _polled(row):
        if following:
            return min(following[0].timestamp, window.finish)
        return window.finish if window.spans or later else row.timestamp
    run = run_of(row.type, row.metadata)
    ends = following[0].timestamp if following else window.finish
    if run.kind is RunKind.DECLARED and (
        any(run_of(each.type, each.metadata) == run for each in rows[n + 1 :])
        or any(run_of(each.type, each.metadata) == run for each in later)
    ):
        return min(ends, window.finish)
    limit = row.timestamp + timedelta(seconds=INTERVALS_CARRIED * interval_of(row.metadata))
    return min(ends, limit, window.finish)


def _later(window: SampledWindow) -> list[StoredSample]:
    return [row for row in window.rows if window.finish <= row.timestamp < window.finish + LOOK_BACK]


def _gaps(polled: Sequence[tuple[datetime, datetime]], window: SampledWindow) -> list[tuple[datetime, datetime, bool]]:
    """Return the times that no poll covers, and whether polls are on both sides."""
    latest = max(window.finish, window.start)
    if not polled:
        return [(window.start, latest, False)]
    gaps = [(min(window.start, polled[0][0]), polled[0][0], False)]
    for n, (_, until) in enumerate(polled):
        last = n + 1 == len(polled)
        bounded = not last or any(is_measured(row) for row in _later(window))
        gaps.append((until, latest if last else polled[n + 1][0], bounded))
    return [each for each in gaps if each[0] < each[1]]


def _owned(
    window: SampledWindow, row: StoredSample, first: datetime, last: datetime, *, while_off: bool = True
) -> Iterable[tuple[str, timedelta]]:
    if first >= last:
        return
    if not window.spans:
        yield row.project_id or "", last - first
    for span in window.spans:
        begins, ends = max(first, span.began), last if span.ended is None else min(last, span.ended)
        if begins < ends and (while_off or not span.is_off):
            yield span.project_id, ends - begins


def _add_unmetered(
    window: SampledWindow,
    rows: Sequence[StoredSample],
    gaps: Sequence[tuple[datetime, datetime, bool]],
    filled: timedelta,
    metered: Mapping[str, int],
    found: defaultdict[Key, MeasuredTotal],
) -> None:
    unmetered: defaultdict[str, int] = defaultdict(int)
    if window.spans:
        for project, lived in _owned(window, rows[-1], window.start, window.finish, while_off=False):
            unmetered[project] += lived // MICROSECOND
        for project, known in metered.items():
            unmetered[project] -= known
    else:
        for begins, ends, bounded in gaps:
            first, last = max(begins, window.start), min(ends, window.finish)
            if bounded and first < last:
                before = [row for row in rows if is_measured(row) and row.timestamp <= begins]
                unmetered[before[-1].project_id or ""] += (last - first) // MICROSECOND
        if filled:
            others = [row for row in rows if not is_measured(row)]
            unmetered[others[0].project_id or ""] -= filled // MICROSECOND
    for project, microseconds in unmetered.items():
        if microseconds >= 1_000_000:
            found[window.key(rows[-1], project)].unmetered_microseconds += microseconds


@dataclass(frozen=True, slots=True)
class CounterStep:
    """The increase of a counter from ``before`` to ``row``; ``before`` is ``None`` for the first sample of a run, and after an arrival."""

    row: StoredSample
    before: datetime | None
    amount: Fraction


def steps(window: SampledWindow) -> list[CounterStep]:
    """Return the steps of the time in question, without those that polls measured too."""
    rows = window.with_before()
    last: dict[object, StoredSample] = {}
    arrivals = {id(row) for kind in (RunKind.INSTANCE_HOST, RunKind.HOST) for row in _arrivals(rows, kind)}
    found: list[CounterStep] = []
    for row in rows:
        run = run_of(row.type, row.metadata)
        earlier = None if id(row) in arrivals else last.get(run)
        if earlier is not None:
            difference = _volume(row) - _volume(earlier)
            declared = run.kind is RunKind.DECLARED
            amount = difference if difference >= 0 else Fraction(0) if declared else _volume(row)
        else:
            amount = _volume(row) if id(row) in arrivals else Fraction(0)
        last[run] = row
        if row.timestamp >= window.start:
            found.append(CounterStep(row, earlier.timestamp if earlier is not None else None, amount))
    polled = [each for each in found if _polled(each.row) and each.before is not None]
    polled += _polled_on_other_days(window)
    return [each for each in found if _polled(each.row) or not any(_covers(poll, each) for poll in polled)]


def _polled_on_other_days(window: SampledWindow) -> Iterable[CounterStep]:
    last: dict[object, datetime] = {}
    for row in window.with_neighbours():
        run = run_of(row.type, row.metadata)
        if _polled(row) and run in last and not window.start <= row.timestamp < window.finish:
            yield CounterStep(row, last[run], Fraction(0))
        last[run] = row.timestamp


def _arrivals(rows: Sequence[StoredSample], kind: RunKind) -> list[StoredSample]:
    """Return the samples at which the resource has arrived on a host, where its counter began at 0.

    It has returned to a host if the counter of the other one was not 0, as it is while a domain arrives, and this one grows, as that of a
    domain that has left does not. ``rows`` are in order.
    """
    of_kind = [row for row in rows if run_of(row.type, row.metadata).kind is kind]
    visits = [(run, list(visit)) for run, visit in groupby(of_kind, lambda row: run_of(row.type, row.metadata))]
    known: set[object] = set()
    found: list[StoredSample] = []
    for number, (run, visit) in enumerate(visits):
        if number and run in known:
            arrived = max(map(_volume, visits[number - 1][1])) > 0 and max(map(_volume, visit)) > _volume(visit[0])
        else:
            arrived = number > 0 and of_kind[0].timestamp < visit[0].timestamp
        if arrived:
            found.append(visit[0])
        known.add(run)
    return found


def _covers(poll: CounterStep, step: CounterStep) -> bool:
    assert poll.before is not None
    until = poll.row.timestamp + timedelta(seconds=interval_of(poll.row.metadata))
    return poll.before < step.row.timestamp and until > (step.before or step.row.timestamp)


def increase(window: SampledWindow) -> dict[Key, MeasuredTotal]:
    """Return the increase of a counter."""
    found: defaultdict[Key, MeasuredTotal] = defaultdict(MeasuredTotal)
    for step in steps(window):
        found[window.key(step.row)].total += step.amount
    return found


def sum_of_deltas(window: SampledWindow) -> dict[Key, MeasuredTotal]:
    """Return the sum of the volumes."""
    found: defaultdict[Key, MeasuredTotal] = defaultdict(MeasuredTotal)
    polled = [
        (row.timestamp - timedelta(seconds=interval_of(row.metadata)), row.timestamp)
        for row in window.with_neighbours()
        if _polled(row)
    ]
    for row in window.within():
        if _polled(row) or not any(since < row.timestamp <= until for since, until in polled):
            found[window.key(row)].total += _volume(row)
    return found


def maximum(window: SampledWindow) -> dict[Key, MeasuredTotal]:
    """Return the highest volume."""
    found: dict[Key, MeasuredTotal] = {}
    for row in window.within():
        key = window.key(row)
        if key not in found or _volume(row) > found[key].total:
            found[key] = MeasuredTotal(_volume(row))
    return found


def percentile95(window: SampledWindow) -> dict[Key, MeasuredTotal]:
    """Return the ⌈0.95 n⌉-th smallest of the n rates in slots of five minutes."""
    ending: defaultdict[tuple[Key, int], list[CounterStep]] = defaultdict(list)
    counted = steps(window)
    for step in counted:
        if step.row.type != "cumulative" or step.before is not None:
            ending[window.key(step.row), _slot(window, step.row.timestamp)].append(step)
    rates: defaultdict[Key, dict[int, Fraction]] = defaultdict(dict)
    for (key, slot), several in ending.items():
        if (rate := _rate(several)) is not None:
            rates[key][slot] = rate
    taken = {slot for _, slot in ending}
    spanning: defaultdict[tuple[Key, int], list[CounterStep]] = defaultdict(list)
    for step in counted:
        if step.row.type == "cumulative" and step.before is not None and step.row.timestamp - step.before > SLOT:
            since = _slot(window, max(step.before, window.start))
            for slot in range(since + 1, _slot(window, step.row.timestamp)):
                if slot not in taken:
                    spanning[window.key(step.row), slot].append(step)
    for (key, slot), several in spanning.items():
        rates[key][slot] = _rate(several) or Fraction(0)
    found = {}
    for key, by_slot in rates.items():
        ranked = sorted(by_slot.values())
        missing = max(by_slot) - min(by_slot) + 1 - len(by_slot)
        found[key] = MeasuredTotal(ranked[(95 * len(ranked) + 99) // 100 - 1], missing * (SLOT // MICROSECOND))
    return found


def _slot(window: SampledWindow, time: datetime) -> int:
    return (time - window.start) // SLOT


def _rate(several: Sequence[CounterStep]) -> Fraction | None:
    kind = several[0].row.type
    if kind == "cumulative":
        seconds = sum(((each.row.timestamp - each.before) for each in several if each.before), timedelta(0))
        amount = sum((each.amount for each in several), Fraction(0))
        return amount / Fraction(seconds // MICROSECOND, 1_000_000) if seconds else None
    volumes = sum((_volume(each.row) for each in several), Fraction(0))
    return volumes / (Fraction(300) if kind == "delta" else len(several))


MEASURES: Mapping[str, Callable[[SampledWindow], Mapping[Key, MeasuredTotal]]] = {
    "integral": integral,
    "increase": increase,
    "sum": sum_of_deltas,
    "maximum": maximum,
    "percentile95": percentile95,
}
"""By kind of usage. The integral is a million times too large."""
