"""Packing of old weeks as a part of maintenance: which weeks are due, one after the other, oldest first."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from datetime import date
from datetime import datetime
from datetime import timedelta

from twisted.logger import Logger

from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.maintenance.partitions import weeks_with_partitions
from meter.store.migrations import SPREAD_STORE
from meter.store.migrations import has_table
from meter.store.packing.packer import NotVerified
from meter.store.packing.packer import Packer
from meter.store.postgres.connection import Rejected
from meter.store.postgres.pool import Session

MERGE_INTERVAL = timedelta(days=1)
"""How often late samples of a packed week are packed at most: all other samples of their series in the week are written again."""

PACKED_AT = "SELECT week, packed_at FROM packed_week"


async def weeks_due(session: Session, now: datetime, *, after_days: float, retention_days: float) -> list[date]:
    """Return the weeks that may have samples to pack, oldest first: they ended more than ``after_days`` ago.

    Weeks that expire within a week are left out, and those of which late samples have been packed within a day.
    """
    packed = dict(await session.rows(PACKED_AT))
    weeks = await weeks_with_partitions(session)
    return [week for week in weeks if _is_due(week, now, packed, after_days, retention_days)]


def _is_due(
    week: date, now: datetime, packed: Mapping[date, datetime | None], after_days: float, retention_days: float
) -> bool:
    end = start_of_week(week + WEEK)
    if end > now - timedelta(days=after_days):
        return False
    if retention_days and week <= week_of(now - timedelta(days=retention_days)):
        return False
    packed_at = packed.get(week)
    return packed_at is None or packed_at <= now - MERGE_INTERVAL


class WeekPacking:
    """Packs the weeks that are due, each time over a new session that ``connect`` returns. ``pause`` waits a moment.

    ``after_days`` is the time since the end of a week, 0 for never; ``retention_days`` is when samples expire, 0 for never.
    """

    _log = Logger()

    def __init__(
        self,
        connect: Callable[[], Session],
        pause: Callable[[], Awaitable[object]],
        *,
        after_days: float,
        retention_days: float,
    ) -> None:
        self._connect = connect
        self._pause = pause
        self._after_days = after_days
        self._retention_days = retention_days
        self._session: Session | None = None

    async def run(self, now: datetime) -> int:
        """Pack what is due at ``now``; return how many samples were packed. :class:`Unavailable` while another process packs.

        Nothing of a spread store is packed.
        """
        if not self._after_days:
            return 0
        session = self._session = self._connect()
        try:
            await session.open()
            session.disable_timeout()
            await session.count("SET statement_timeout = 0")
            if await has_table(session, SPREAD_STORE):
                return 0
            packer = Packer(session, self._pause)
            await packer.open()
            samples = 0
            for week in await weeks_due(session, now, after_days=self._after_days, retention_days=self._retention_days):
                samples += await self._pack(packer, week)
            return samples
        finally:
            self._session = None
            session.close()

    def abort(self) -> None:
        """Abort a run; it goes on where it was next time."""
        if self._session is not None:
            self._session.close()

    async def _pack(self, packer: Packer, week: date) -> int:
        try:
            samples = await packer.pack(week)
        except (NotVerified, Rejected) as error:
            self._log.error("the week of {week} cannot be packed: {reason}", week=str(week), reason=str(error))
            return 0
        if samples is None:
            self._log.debug("the week of {week} is not packed: an hour is not final", week=str(week))
        elif samples:
            self._log.info("packed {samples} samples of the week of {week}", samples=samples, week=str(week))
        return samples or 0
