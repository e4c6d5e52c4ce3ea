"""Packs and archives everything, even samples that have just been stored, and brings it back, until it is killed: ``archiver.py DSN``."""

from __future__ import annotations

from meter.store.archive.archive_removal import removals
from meter.store.archive.archive_removal import remove_from_archives
from meter.store.archive.archived_weeks import archived_weeks
from meter.store.archive.archiver import Archiver
from meter.store.packing.packed_partitions import packed_weeks
from meter.store.packing.packer import Packer
from meter.store.packing.packer import pack_everything
from meter.store.postgres.pool import Session
from meter.store.postgres.transaction import in_transaction
from tests.chaos.repeated import Pause
from tests.chaos.repeated import run_until_killed

SERVER = "cold"
GROUP_SAMPLES = 100
"""Small, so that there are many transactions to be killed in."""

ARCHIVED_PAUSES = 20
"""For how long the archive stays as it is, for questions: a second."""


async def there_and_back(session: Session, pause: Pause) -> None:
    for week in await archived_weeks(session):
        await Archiver(session, max_group_samples=GROUP_SAMPLES).unarchive(week.week)
    await remove_from_archives(
        await removals(session), lambda remove, removal: in_transaction(session, remove, session, removal)
    )
    await pack_everything(session, pause)
    packer = Packer(session, pause)
    await packer.open()
    for packed in await packed_weeks(session):
        await Archiver(session, max_group_samples=GROUP_SAMPLES).archive(packed, SERVER)
    await packer.close()
    for _ in range(ARCHIVED_PAUSES):
        await pause()


if __name__ == "__main__":
    run_until_killed(there_and_back, "archiver")
