"""The time range of a filter, as conditions on samples, on rollups and on the gaps between them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from meter.query import SampleFilter
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import NO_START
from meter.store.query.packed_parts import TimeBounds

TICK = "interval '1 microsecond'"


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From ``start``, excluded if ``after_start``, to ``end``, included if ``through_end``; ``None`` means unbounded.

    Without a ``start`` the range begins at the time that the SQL ``origin`` has, if there is one.
    """

    start: datetime | None
    end: datetime | None
    after_start: bool
    through_end: bool
    origin: Sql | None = None

    @classmethod
    def of(cls, filter: SampleFilter) -> TimeRange:
        """Return the range of ``filter``."""
        return cls(filter.start, filter.end, filter.after_start, filter.through_end)

    def bounds(self) -> TimeBounds:
        """Return SQL for the first and the last time of the range."""
        return TimeBounds(
            self.origin or NO_START if self.start is None else Sql("%s::timestamptz", (self.start,)),
            NO_END if self.end is None else Sql("%s::timestamptz", (self.end,)),
        )

    def exact_bounds(self) -> TimeBounds:
        """Return SQL for the first and the last time that lies in the range; times have microseconds."""
        first, last, _ = self.bounds()
        if self.start is not None and self.after_start:
            first = Sql(f"{first} + {TICK}", first.parameters)
        if self.end is not None and not self.through_end:
            last = Sql(f"{last} - {TICK}", last.parameters)
        return TimeBounds(first, last)

    def contains_sample(self) -> Sql:
        """Return the condition that the timestamp of a row ``s`` of ``sample`` lies in the range."""
        return self.contains_span("s.timestamp", "s.timestamp")

    def contains_span(self, first: str, last: str) -> Sql:
        """Return the condition that the times ``first`` and ``last``, and what is between, lie in the range."""
        return self._bounded(
            f"{first} {'>' if self.after_start else '>='} {{}}", f"{last} {'<=' if self.through_end else '<'} {{}}"
        )

    def overlaps_span(self, first: str, last: str) -> Sql:
        """Return a condition that is true if the time from ``first`` to ``last`` and the range overlap, or touch."""
        return self._bounded(f"{last} >= {{}}", f"{first} <= {{}}")

    def contains_period(self, table: str) -> Sql:
        """Return the condition that the whole hour or day of a row of ``table`` lies in the range."""
        return self._bounded(
            f"{table}.start {'>' if self.after_start else '>='} {{}}",
            f"{table}.start + make_interval(hours => {table}.hours) <= {{}}",
        )

    def overlaps_gap(self) -> Sql:
        """Return the condition that part of a row of ``gap`` lies in the range."""
        return self._bounded("gap.finish > {}", f"gap.start {'<=' if self.through_end else '<'} {{}}")

    @property
    def cuts_hours(self) -> bool:
        """Whether one of its ends may lie within an hour."""
        ends = [end for end in (self.start, self.end) if end is not None]
        return self.origin is not None or any((end.minute, end.second, end.microsecond) != (0, 0, 0) for end in ends)

    def _bounded(self, from_start: str, to_end: str) -> Sql:
        start = self.origin if self.start is None else Sql("%s", (self.start,))
        bounds = []
        if start is not None:
            bounds.append(Sql(from_start.format(start), start.parameters))
        if self.end is not None:
            bounds.append(Sql(to_end.format("%s"), (self.end,)))
        return both(bounds)
