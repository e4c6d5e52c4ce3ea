"""How far a spread is that has begun and is not done, for ``meter-db status``: looked up without changing anything."""

from __future__ import annotations

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

GO_ON = "nobody is at work: call meter-db spread again, it goes on from here"


async def unfinished_spread(session: Session) -> str | None:
    """Return how far a spread is that is not done, and how to go on; ``None`` if none is."""
    if not await has_table(session, SPREAD_STORE):
        return None
    if not (begun := await session.rows(BEGUN)):
        return None
    [[at_work]] = await session.rows(IS_AT_WORK)
    step = await _step(session, at_work=at_work)
    return f"begun {begun[0][0]:%Y-%m-%d %H:%M}Z; {step}; {'a process is at work' if at_work else GO_ON}"


async def _step(session: Session, *, at_work: bool) -> str:
    """Return what is done, and what is next."""
    if not await session.rows(IS_DISTRIBUTED, ["sample"]):
        partitions = await session.rows(PARTITIONS)
        keyed = sum(has_key and not message_ids for _, has_key, _, message_ids, _ in partitions)
        if keyed < len(partitions):
            return f"{keyed} of {len(partitions)} partitions have a key with the series; samples are divided after that"
        copied = (await session.rows(COPIED))[0][0] if at_work else 0
        samples = sum(row[-1] for row in partitions)
        return f"all partitions have their key; of about {samples} samples {copied} are copied to workers"
    if not await session.rows(IS_DISTRIBUTED, ["sampled_series"]):
        return "samples are divided among the workers; the list of series is not yet"
    return "samples are divided among the workers; volumes are not checked yet"
