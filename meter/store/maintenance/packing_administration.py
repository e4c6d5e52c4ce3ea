"""Packing and unpacking of weeks by an administrator, for ``meter-db``."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.sample_identity import week_of
from meter.store.maintenance.administration import Administration
from meter.store.maintenance.packing import weeks_due
from meter.store.maintenance.partitions import partition_name
from meter.store.maintenance.partitions import weeks_with_partitions
from meter.store.packing.packed_partitions import packed_partition_name
from meter.store.packing.packed_partitions import packed_weeks
from meter.store.packing.packer import MAX_GROUP_SAMPLES
from meter.store.packing.packer import Packer
from meter.store.packing.packer import release_space
from meter.store.packing.unpacking import unpack_next
from meter.store.postgres.transaction import in_transaction

# The partitions of the weeks, and of the tables that all weeks share their rows alone: each with its header and its entry in the index.
BYTES = """
SELECT (SELECT coalesce(sum(pg_total_relation_size(to_regclass(name))), 0) FROM unnest(%(tables)s::text[]) AS name)
    + (SELECT coalesce(sum(pg_column_size(fingerprints) + pg_column_size(series_ids) + 72), 0)
        FROM packed_message_id WHERE week = ANY(%(weeks)s::date[]))
    + (SELECT coalesce(sum(pg_column_size(series_ids) + 150), 0) FROM series_list WHERE week = ANY(%(weeks)s::date[]))
    + (SELECT count(*) * 100 FROM packed_batch WHERE week = ANY(%(weeks)s::date[]))
"""


@dataclass(frozen=True, slots=True)
class WeekState:
    """A week: the number of its samples that are not packed, and of those that are."""

    week: date
    plain: int
    packed: int


class PackingAdministration(Administration):
    """One connection to the database at ``dsn``, over which weeks are packed and unpacked."""

    def __init__(self, reactor: Any, dsn: str, *, clock: IReactorTime) -> None:
        super().__init__(reactor, dsn, clock=clock)
        self._pause = partial(sleep, clock, 0.1)

    async def weeks(self, named: Sequence[date], *, after_days: float, retention_days: float) -> list[WeekState]:
        """Return the ``named`` weeks, or those that are due; without the weeks that are not over or have no partition."""
        await self.check()
        session = self._connection
        await session.remove_time_limits()
        [[now]] = await session.rows("SELECT now()")
        if named:
            existing = await weeks_with_partitions(session)
            weeks = [week for week in sorted(set(named)) if week in existing and week < week_of(now)]
        else:
            weeks = await weeks_due(session, now, after_days=after_days, retention_days=retention_days)
        return [await self._state(week) for week in weeks]

    async def _state(self, week: date) -> WeekState:
        [[plain]] = await self._connection.rows(f"SELECT count(*) FROM {partition_name(week)}")
        packed = 0
        if week in await packed_weeks(self._connection):
            [[packed]] = await self._connection.rows(
                f"SELECT coalesce(sum(count), 0) FROM {packed_partition_name(week)}"
            )
        return WeekState(week, int(plain), int(packed))

    async def bytes_of(self, weeks: Sequence[date]) -> int:
        """Return the bytes of the samples of ``weeks``, with their indexes, and about those of what finds packed ones of them."""
        names = [name(week) for week in weeks for name in (partition_name, packed_partition_name)]
        [[size]] = await self._connection.rows(BYTES, {"tables": names, "weeks": list(weeks)})
        return int(size)

    async def pack(self, week: date, packed: Callable[[int], object]) -> int | None:
        """Pack ``week``, calling ``packed`` with the number of samples of each group; ``None`` if an hour of it is not final.

        :class:`Unavailable` while another process packs, and in a spread store.
        """
        if self._connection.spread:
            raise Unavailable("the samples of this store are spread over several servers: its weeks are not packed")
        packer = Packer(self._connection, self._pause, packed=packed)
        await packer.open()
        samples = await packer.pack(week)
        await packer.close()
        return samples

    async def unpack(self, week: date, unpacked: Callable[[int], object]) -> int:
        """Put the samples of ``week`` back as rows, calling ``unpacked`` like ``packed``; return how many."""
        session = self._connection
        packer = Packer(session, self._pause)
        await packer.open()
        if week not in await packed_weeks(session):
            raise Unavailable(f"the week of {week} is not packed")
        total = 0
        while samples := await in_transaction(session, unpack_next, session, week, MAX_GROUP_SAMPLES):
            total += samples
            unpacked(samples)
        await packer.close()
        await release_space(session, partition_name(week))
        return total
