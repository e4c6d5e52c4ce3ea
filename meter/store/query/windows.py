"""Windows of statistics: where they begin, and which rollups do not reach over the end of one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from datetime import datetime

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of ``seconds`` from ``start`` on; without one, from the time that the SQL ``origin`` has."""

    seconds: int
    start: datetime | None
    origin: Sql

    def of(self, time: str) -> Sql:
        """Return the start of the window that contains ``time``, an SQL expression."""
        return filled(
            "date_bin({seconds} * interval '1 second', {time}, {origin})",
            seconds=Sql("%s", (self.seconds,)),
            time=time,
            origin=self.origin,
        )

    def contain(self, first: str, last: str) -> Sql:
        """Return the condition that the times ``first`` and ``last`` lie in the same window."""
        return filled("{one} = {other}", one=self.of(first), other=self.of(last))

    def contain_period(self, table: str) -> Sql:
        """Return the condition that one window contains the hour or day of a row of ``table``."""
        end = f"{table}.start + make_interval(hours => {table}.hours) - interval '1 microsecond'"
        return self.contain(f"{table}.start", end)

    @property
    def aligned_hours(self) -> int:
        """Hours of the longest rollups that no window cuts, wherever they are: 24, 1 or 0."""
        if self.start is None:
            return 0
        start = self.start.astimezone(UTC)
        for hours, of_day in ((24, (start.hour,)), (1, ())):
            if not any((*of_day, start.minute, start.second, start.microsecond)) and not self.seconds % (hours * 3600):
                return hours
        return 0
