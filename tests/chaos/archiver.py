"""Packs and archives everything, even samples that have just been stored, and brings it back, until it is killed: ``archiver.py DSN``."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from twisted.internet.task import react

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.store.archive.archive_removal import removals
from meter.store.archive.archive_removal import remove_from_archives
from meter.store.archive.archived_weeks import archived_weeks
from meter.store.archive.archiver import Archiver
from meter.store.packing.packed_partitions import packed_weeks
from meter.store.packing.packer import Packer
from meter.store.packing.packer import pack_everything
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.pool import Session

SERVER = "cold"
GROUP_SAMPLES = 100
"""Small, so that there are many transactions to be killed in."""


async def archive(reactor: Any, dsn: str) -> None:
    parameters = connection_parameters(dsn, statement_timeout_seconds=60, application_name="archiver")
    pause = partial(sleep, reactor, 0.05)
    while True:
        session = Connection(reactor, reactor, parameters, answer_seconds=60)
        try:
            await session.open()
            while True:
                await _there_and_back(session, pause)
        except Unavailable:
            await pause()
        finally:
            session.close()


async def _there_and_back(session: Session, pause: Any) -> None:
    for week in await archived_weeks(session):
        await Archiver(session, max_group_samples=GROUP_SAMPLES).unarchive(week.week)
    await remove_from_archives(await removals(session), partial(_in_transaction, session))
    await pack_everything(session, pause)
    packer = Packer(session, pause)
    await packer.open()
    for packed in await packed_weeks(session):
        await Archiver(session, max_group_samples=GROUP_SAMPLES).archive(packed, SERVER)
    await packer.close()
    await sleep_for_questions(pause)


async def sleep_for_questions(pause: Any) -> None:
    """Leave the archive as it is for a second."""
    for _ in range(20):
        await pause()


async def _in_transaction(session: Session, work: Any, *args: Any) -> None:
    await session.count("BEGIN")
    await work(session, *args)
    await session.count("COMMIT")


def main() -> None:
    react(archive, [sys.argv[1]])


if __name__ == "__main__":
    main()
