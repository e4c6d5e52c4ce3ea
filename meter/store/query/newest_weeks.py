"""In which weeks the newest samples are looked for: PostgreSQL plans each week that a statement may read, whether it reads it or not.

So a page is asked of the newest two weeks first, with their begin as a constant, and of four times as many as long as it is not full. Each
statement asks for all samples since a time, and the last one for all there are: whichever answers, it is the page. Lists are asked of the weeks
that mostly have all samples of hours that are not final, and of all weeks if the answer tells that it is not complete. So the facts here only
decide how many statements there are.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.query import Marker
from meter.query import SampleFilter
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.maintenance.partitions import end_of_week
from meter.store.packing.packed_ids import MONDAY
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.partials import SPARSE_GAPS
from meter.store.query.series_ends import EndWeeks
from meter.store.query.series_ends import WeeksBefore

FIRST_WEEKS = 2
"""The week of the newest samples and the one before it, as the former may have begun a moment ago."""

TICK = timedelta(microseconds=1)
EARLIEST = datetime.min.replace(tzinfo=UTC) + TICK

GROWTH = 4
"""How many times as many weeks are asked for if a page is not full."""

SPARED_WEEKS = 4
"""How many weeks a statement must leave out at least: fewer are planned in less time than another statement takes if the page is not full."""

MAX_RANGES = 8
"""Of so many ranges of weeks with hours that are not final a list is asked at most; where there are more, of all weeks."""

MAX_GAPS = 100
"""Where there are more times without final hours, a list is asked of all weeks, too."""

GAPS = Sql(
    f"SELECT nullif(gap.start, '-infinity'), nullif(gap.finish, 'infinity') FROM ({SPARSE_GAPS}) AS gap"
    f" ORDER BY gap.start LIMIT {MAX_GAPS} + 1"
)

KNOWN_SECONDS = 30.0
"""How long it is remembered which weeks there are."""

# One row: a :class:`StoredWeeks`.
STORED_WEEKS = Sql(f"""
SELECT week.first, week.last, archived.until
FROM (
    SELECT {MONDAY.format("min(name)::date")} AS first, {MONDAY.format("max(name)::date")} AS last
    FROM (
        SELECT replace(right(c.relname, 10), '_', '-') AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('sample'::regclass, 'packed_samples'::regclass) AND c.relname ~ '^(sample|packed_samples)(_[0-9]+){{3}}$'
    ) AS _
) AS week
CROSS JOIN (SELECT {MONDAY.format("max(week) + 7")} AS until FROM archived_week) AS archived
""")

OLDEST_ROLLUP = """
SELECT min(r.start) FROM unnest({series}::integer[]) AS x (id)
CROSS JOIN LATERAL (SELECT r.start FROM rollup r WHERE r.hours = 1 AND r.series_id = x.id ORDER BY r.start LIMIT 1) AS r
"""


@dataclass(frozen=True, slots=True)
class StoredWeeks:
    """The Mondays of the first and the last week that has a partition, plain or packed, and until when weeks are archived.

    They are ``None`` where there are none. ``gaps`` are times without final hours, the first without a start and the last without an end:
    all of them if they are at most :data:`MAX_GAPS`.
    """

    first: datetime | None = None
    last: datetime | None = None
    archived_until: datetime | None = None
    gaps: Sequence[tuple[datetime | None, datetime | None]] = ()

    def ends(self, now: datetime) -> EndWeeks | None:
        """Return the weeks that have hours that are not final, and the newest ones.

        ``None`` where that would leave out few weeks, or where there are so many gaps that all weeks are better asked at once.
        """
        newest = next(self.starts(SampleFilter(), None, now), None)
        if newest is None or len(self.gaps) > MAX_GAPS:
            return None
        ranges: list[tuple[datetime | None, datetime | None]] = []
        for start, finish in [*self.gaps, (newest, None)]:
            since = start and min(start_of_week(week_of(start)), newest)
            until = finish and end_of_week(max(finish, EARLIEST) - TICK)
            if ranges and (since is None or (before := ranges[-1][1]) is None or since <= before):
                ranges[-1] = ranges[-1][0], until and before and max(until, before)
            else:
                ranges.append((since, until))
        return EndWeeks(ranges) if len(ranges) <= MAX_RANGES else None

    def before(self, start: datetime, now: datetime) -> WeeksBefore | None:
        """Return the weeks before ``start`` that have hours that are not final, the week of ``start`` and the one before it.

        ``None`` where that would leave out few weeks, or where there are many gaps.
        """
        ends = self.ends(now)
        if ends is None or self.first is None:
            return None
        try:
            first = start_of_week(week_of(start)) - WEEK
            if first < self.first + SPARED_WEEKS * WEEK:
                return None
        except OverflowError:
            return None
        earlier = [(since, until) for since, until in ends.ranges if since is None or since < first]
        return WeeksBefore(first, EndWeeks([*earlier, (first, None)]))

    def starts(self, filter: SampleFilter, after: Marker | None, now: datetime) -> Iterator[datetime]:
        """Yield since when the samples of ``filter`` that come after ``after`` are to be asked for, one time after the other.

        It yields nothing where that would leave out few weeks.
        """
        if self.first is None or self.last is None:
            return
        times = [now, self.last + WEEK, filter.end, after.timestamp if after else None]
        oldest = self.first if filter.start is None else max(self.first, filter.start)
        weeks = FIRST_WEEKS
        try:
            # An end is mostly that of a week, and not in the next one.
            newest = start_of_week(week_of(min(time for time in times if time is not None) - TICK))
            while (start := newest - (weeks - 1) * WEEK) >= oldest + SPARED_WEEKS * WEEK:
                yield start
                weeks *= GROWTH
        except OverflowError:
            return


class StoredWeeksReader:
    """Reads which weeks there are, with ``query``, which executes a statement, and remembers it for :data:`KNOWN_SECONDS`."""

    def __init__(self, query: Callable[[Sql], Awaitable[list[tuple[Any, ...]]]], clock: IReactorTime) -> None:
        self._query = query
        self._clock = clock
        self._weeks = StoredWeeks()
        self._known_until = float("-inf")

    def now(self) -> datetime:
        """Return the time."""
        return datetime.fromtimestamp(self._clock.seconds(), UTC)

    async def read(self) -> StoredWeeks:
        """Return which weeks there are, or were a moment ago."""
        if self._clock.seconds() >= self._known_until:
            for first, last, archived_until in await self._query(STORED_WEEKS):
                gaps = [(start, finish) for start, finish in await self._query(GAPS)]
                self._weeks = StoredWeeks(first, last, archived_until, gaps)
            self._known_until = self._clock.seconds() + KNOWN_SECONDS
        return self._weeks


def oldest_rollup_query(series_ids: Sequence[int]) -> Sql:
    """Return the statement for the time of the first rollup of series; null if they have none."""
    return filled(OLDEST_ROLLUP, series=Sql("%s", (list(series_ids),)))
