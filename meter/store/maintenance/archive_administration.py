"""Moving of packed weeks to archive servers and back by an administrator, and the archive servers themselves, for ``meter-db``."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from meter.query import AuditEntry
from meter.store.archive.archive_health import no_weeks
from meter.store.archive.archive_health import require_weeks
from meter.store.archive.archive_health import weeks_on
from meter.store.archive.archive_losses import WeekLoss
from meter.store.archive.archive_losses import losses
from meter.store.archive.archive_losses import record_losses
from meter.store.archive.archive_removal import removals
from meter.store.archive.archive_removal import remove_from_archives
from meter.store.archive.archive_servers import ArchiveReader
from meter.store.archive.archive_servers import ArchiveServerError
from meter.store.archive.archive_servers import check_server
from meter.store.archive.archive_servers import checked
from meter.store.archive.archive_servers import has_tables
from meter.store.archive.archive_servers import make_remote_tables
from meter.store.archive.archive_servers import make_server
from meter.store.archive.archive_servers import remove_server
from meter.store.archive.archive_servers import require_server
from meter.store.archive.archived_weeks import ArchivedWeek
from meter.store.archive.archived_weeks import archived_week
from meter.store.archive.archiver import Archiver
from meter.store.maintenance.packing_administration import PackingAdministration
from meter.store.maintenance.partitions import weeks_with_partitions
from meter.store.maintenance.voiding import Act
from meter.store.packing.packed_partitions import packed_weeks
from meter.store.packing.packer import Packer
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.pool import Session
from meter.store.postgres.transaction import in_transaction

REMOTE_TIMEOUT_SECONDS = 30.0

COUNTS = "SELECT count(*), coalesce(sum(count) FILTER (WHERE archived), 0), coalesce(sum(count), 0) FROM packed_samples WHERE {condition}"
OF_WEEK = "first >= (%s + time '00:00') AT TIME ZONE 'UTC' AND first < (%s + 7 + time '00:00') AT TIME ZONE 'UTC'"


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """A week: whether it has samples at all, how many of its packed samples are archived and how many are not, and where it is archived."""

    exists: bool
    packed: bool
    archived: int
    here: int
    where: ArchivedWeek | None


class ArchiveAdministration(PackingAdministration):
    """One connection to the database at ``dsn``, over which weeks are packed, and moved to archive servers and back."""

    async def archive_state(self, week: date) -> ArchiveState:
        """Return what of ``week`` is where. From then on this connection has no time limit."""
        await self.check()
        session = self._connection
        await session.remove_time_limits()
        [[_, archived, packed]] = await session.rows(COUNTS.format(condition=OF_WEEK), [week, week])
        where = await archived_week(session, week)
        return ArchiveState(
            exists=week in {*await weeks_with_partitions(session), *await packed_weeks(session)},
            packed=week in await packed_weeks(session),
            archived=int(archived),
            here=int(packed) - int(archived),
            where=where,
        )

    async def require_archive_server(self, name: str) -> None:
        """Raise :class:`ArchiveServerError` unless there is an archive server ``name``; whatever fails if it cannot be read."""
        await require_server(self._connection, name)
        await check_server(self._connection, name)

    async def archive(self, week: date, server: str, moved: Callable[[int], object]) -> int:
        """Move the packed ``week`` to ``server``, calling ``moved`` with the number of samples of each group; return how many.

        :class:`Unavailable` while another process packs or archives.
        """
        packer = Packer(self._connection, self._pause)
        await packer.open()
        samples = await Archiver(self._connection, moved=moved).archive(week, server)
        await packer.close()
        return samples

    async def unarchive(self, week: date, moved: Callable[[int], object]) -> tuple[int, Mapping[str, str]]:
        """Bring ``week`` back, calling ``moved`` likewise; return how many samples, and why archive servers still have old rows, by server."""
        packer = Packer(self._connection, self._pause)
        await packer.open()
        samples = await Archiver(self._connection, moved=moved).unarchive(week)
        await packer.close()
        return samples, await self.remove_from_archives()

    async def remove_from_archives(self) -> Mapping[str, str]:
        """Delete on archive servers what is not needed there any more; return why it failed, by server."""

        session = self._connection
        return await remove_from_archives(
            await removals(session), lambda remove, removal: in_transaction(session, remove, session, removal)
        )

    async def add_archive_server(
        self, reactor: Any, name: str, parameters: Mapping[str, str], reader: ArchiveReader | None
    ) -> tuple[bool, list[date]]:
        """Make or change the archive server ``name`` with the ``parameters`` of its DSN.

        Return whether tables were made there, and the weeks (Mondays) that are archived on ``name`` and of which it has no row.
        :class:`ArchiveServerError` if it cannot be used, or has none of the weeks that it must have; nothing is changed then.
        """
        await self.check()
        checked(parameters)
        if reader is not None:
            checked(reader.parameters)
        await in_transaction(self._connection, _would_make, self._connection, name, parameters, reader)
        expected = await weeks_on(self._connection, name)

        async def make_tables(session: Session) -> bool:
            if expected and not await has_tables(session):
                raise ArchiveServerError(no_weeks(name, expected))
            return await in_transaction(
                session, make_remote_tables, session, None if reader is None else reader.parameters["user"]
            )

        async def look(session: Session) -> None:
            await session.rows("SELECT FROM meter_archive.packed_checksums LIMIT 1")

        made: bool = await self._on_server(reactor, parameters, make_tables)
        if reader is not None:
            await self._on_server(reactor, reader.parameters, look)

        async def make() -> list[date]:
            await make_server(self._connection, name, parameters, reader)
            await check_server(self._connection, name)
            return await require_weeks(self._connection, name)

        return made, await in_transaction(self._connection, make)

    async def archive_losses(self, name: str, weeks: Sequence[date]) -> Sequence[WeekLoss]:
        """Return what is lost with the archive server ``name``: all its weeks, or ``weeks``; see :func:`losses`."""
        await self.check()
        return await losses(self._connection, name, weeks)

    async def record_archive_losses(
        self, name: str, weeks: Sequence[date], act: Act
    ) -> tuple[Sequence[WeekLoss], AuditEntry]:
        """Record that the archive server ``name`` has lost ``weeks``, or all of them; see :func:`record_losses`."""
        await self.check()
        await self._connection.remove_time_limits()
        return await record_losses(self._connection, name, weeks, act)

    async def remove_archive_server(self, name: str) -> None:
        """Forget the archive server ``name``; :class:`ArchiveServerError` if it has anything of this store."""
        await self.check()
        await in_transaction(self._connection, remove_server, self._connection, name)

    async def _on_server(self, reactor: Any, parameters: Mapping[str, str], work: Callable[[Session], Any]) -> Any:
        """Do ``work`` over a connection of its own to an archive server."""
        completed = connection_parameters(
            "", statement_timeout_seconds=REMOTE_TIMEOUT_SECONDS, application_name="meter-db"
        )
        session = Connection(reactor, reactor, {**completed, **parameters})
        try:
            await session.open()
            return await work(session)
        finally:
            session.close()


async def _would_make(session: Session, name: str, parameters: Mapping[str, str], reader: ArchiveReader | None) -> None:
    """Find out whether the archive server can be made here, before anything is made there."""
    await session.count("SAVEPOINT made")
    await make_server(session, name, parameters, reader)
    await session.count("ROLLBACK TO SAVEPOINT made")
