"""A guard: a coordinator that has forgotten ids that samples on workers have must not give them out again.

The coordinator gives out the ids of series, metadata, wire formats and signed batches, and the workers have samples with
them. If a standby is promoted that had not received the last commits, the coordinator gives the same ids to others: samples
would change their series in silence. A synchronous standby has all of them. Writers check this before they write to a
coordinator that was started or promoted since.
"""

from __future__ import annotations

from typing import Any

from meter.interfaces import Unavailable
from meter.store.cluster.visibility import MAY_RECOVER
from meter.store.cluster.visibility import RECOVER
from meter.store.postgres.pool import Session
from meter.store.query.access_paths import IN_ORDER_OF_RECORDING

RECORDED_HOURS = 1
"""The highest ids are among the samples that were recorded in this many hours before the newest one."""

INCARNATION = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) || ' ' || pg_postmaster_start_time()"
"""The timeline and the start of the server: changes whenever it was started or promoted."""

NEWEST = f"SELECT max(s.recorded_at) FROM sample s WHERE {IN_ORDER_OF_RECORDING}"

USED = f"""
SELECT max(s.series_id), max(s.metadata_id), max(s.wire_format_id), max(s.batch_id)
FROM sample s WHERE {IN_ORDER_OF_RECORDING} AND s.recorded_at >= %s::timestamptz - interval '{RECORDED_HOURS} hours'
"""

NAMES = ("series", "metadata", "wire_format", "signed_batch")
"""Tables whose ids samples have, in the order of :data:`USED`."""

GIVEN = "SELECT given[1], given[2], given[3], given[4] FROM spread_given_ids() AS given"
"""The last id of each of them that was given out. Sequences move before what has their ids is committed."""


class GivenIds:
    """Compares the ids that samples on workers have with those that the coordinator has given out."""

    def __init__(self) -> None:
        self._checked = ""

    async def check(self, session: Session) -> None:
        """Raise :class:`Unavailable` if ids were forgotten; look again only at a coordinator that was started or promoted since.

        Transactions that the coordinator had not committed when it ended are rolled back first: whoever writes their samples
        again would wait for them.
        """
        if not session.spread:
            return
        [[incarnation]] = await session.rows(INCARNATION)
        if incarnation == self._checked:
            return
        if (await session.rows(MAY_RECOVER))[0][0]:
            await session.rows(RECOVER)
        [[newest]] = await session.rows(NEWEST)
        if newest is not None:
            used = (await session.rows(USED, [newest]))[0]
            if found := forgotten(used, (await session.rows(GIVEN))[0]):
                raise Unavailable(found)
        self._checked = incarnation


def forgotten(used: tuple[Any, ...], given: tuple[Any, ...]) -> str:
    """Return what is to be done if one of the highest ``used`` ids was never ``given``, or nothing."""
    found = [
        f"{name} up to {highest} (the last one given is {last})"
        for name, highest, last in zip(NAMES, used, given, strict=True)
        if highest is not None and highest > last
    ]
    if not found:
        return ""
    return (
        f"samples on workers have ids that this coordinator has forgotten: {', '.join(found)}; nothing is written, because the ids"
        " would be given to others: was a standby promoted that is not synchronous?"
    )
