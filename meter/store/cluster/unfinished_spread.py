"""How far a spread is that has begun and is not done, for ``meter-db status`` and ``meter-doctor``: looked up without changing anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from meter.store.cluster.spreading import COPIED
from meter.store.cluster.spreading import IS_DISTRIBUTED
from meter.store.cluster.spreading import LOCK
from meter.store.cluster.spreading import PARTITIONS
from meter.store.migrations import SPREAD_STORE
from meter.store.migrations import has_table
from meter.store.postgres.pool import Session

BEGUN = "SELECT began_at FROM spread_store WHERE done_at IS NULL"

IS_AT_WORK = f"""
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = {LOCK}
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""

GO_ON = "call meter-db spread again, it goes on from here"


@dataclass(frozen=True, slots=True)
class UnfinishedSpread:
    """A spread that is not done. ``progress`` says what is done, and what is next; ``at_work``, whether a process goes on with it."""

    began_at: datetime
    progress: str
    at_work: bool

    @property
    def how_far(self) -> str:
        """When it was begun, and how far it is."""
        return f"begun {self.began_at:%Y-%m-%d %H:%M}Z; {self.progress}"

    @property
    def who(self) -> str:
        """Whether a process goes on with it."""
        return "a process is at work" if self.at_work else "nobody is at work"

    @property
    def advice(self) -> str:
        """What to do, if anything."""
        return "" if self.at_work else GO_ON

    def __str__(self) -> str:
        return f"{self.how_far}; {self.who}{': ' if self.advice else ''}{self.advice}"


async def unfinished_spread(session: Session) -> UnfinishedSpread | None:
    """Return how far a spread is that is not done; ``None`` if none is."""
    if not await has_table(session, SPREAD_STORE):
        return None
    if not (begun := await session.rows(BEGUN)):
        return None
    [[at_work]] = await session.rows(IS_AT_WORK)
    return UnfinishedSpread(begun[0][0], await _progress(session, at_work=at_work), at_work)


async def _progress(session: Session, *, at_work: bool) -> str:
    """Return what is done, and what is next."""
    if not await session.rows(IS_DISTRIBUTED, ["sample"]):
        partitions = await session.rows(PARTITIONS)
        keyed = sum(has_key and not message_ids for _, has_key, _, message_ids, _ in partitions)
        if keyed < len(partitions):
            return f"{keyed} of {len(partitions)} partitions have a key with the series; samples are divided after that"
        copied = (await session.rows(COPIED))[0][0] if at_work else 0
        return f"all partitions have their key; {copied} samples are copied to workers"
    if not await session.rows(IS_DISTRIBUTED, ["sampled_series"]):
        return "samples are divided among the workers; the list of series is not yet"
    return "samples are divided among the workers; volumes are not checked yet"
