"""The time range of a filter, as conditions on samples, on rollups and on the gaps between them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from meter.query import SampleFilter
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.query.sample_rows import NO_END
from meter.store.query.sample_rows import NO_START
from meter.store.query.sample_rows import TimeBounds


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From ``start``, excluded if ``after_start``, to ``end``, included if ``through_end``; ``None`` means unbounded."""

    start: datetime | None
    end: datetime | None
    after_start: bool
    through_end: bool

    @classmethod
    def of(cls, filter: SampleFilter) -> TimeRange:
        """Return the range of ``filter``."""
        return cls(filter.start, filter.end, filter.after_start, filter.through_end)

    def bounds(self) -> TimeBounds:
        """Return SQL for the first and the last time of the range."""
        return TimeBounds(
            NO_START if self.start is None else Sql("%s::timestamptz", (self.start,)),
            NO_END if self.end is None else Sql("%s::timestamptz", (self.end,)),
        )

    def contains_sample(self) -> Sql:
        """Return the condition that the timestamp of a row ``s`` of ``sample`` lies in the range."""
        return self._bounded(
            f"s.timestamp {'>' if self.after_start else '>='} %s", f"s.timestamp {'<=' if self.through_end else '<'} %s"
        )

    def contains_period(self, table: str) -> Sql:
        """Return the condition that the whole hour or day of a row of ``table`` lies in the range."""
        return self._bounded(
            f"{table}.start {'>' if self.after_start else '>='} %s",
            f"{table}.start + make_interval(hours => {table}.hours) <= %s",
        )

    def overlaps_gap(self) -> Sql:
        """Return the condition that part of a row of ``gap`` lies in the range."""
        return self._bounded("gap.finish > %s", f"gap.start {'<=' if self.through_end else '<'} %s")

    def _bounded(self, from_start: str, to_end: str) -> Sql:
        bounds = []
        if self.start is not None:
            bounds.append(Sql(from_start, (self.start,)))
        if self.end is not None:
            bounds.append(Sql(to_end, (self.end,)))
        return both(bounds)
