"""Heartbeats, of which the last one of each daemon is kept, and numbers of dead-lettered samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from meter.completeness_store import MAX_EARLIER_BOOTS
from meter.completeness_store import MAX_REJECTED_ROWS
from meter.completeness_store import ReceivedHeartbeat
from meter.completeness_store import RejectedCount
from meter.completeness_store import ReportResult
from meter.store.postgres.pool import Session

# clock_timestamp(), as now() is the begin of the transaction, which may have waited for another one.
UPSERT_HEARTBEATS = f"""
INSERT INTO daemon_heartbeat AS kept (name, boot, sequence, clock, received_at, content)
SELECT name, boot, sequence, clock, clock_timestamp(), content
FROM unnest(%s::text[], %s::uuid[], %s::bigint[], %s::timestamptz[], %s::text[]) AS given (name, boot, sequence, clock, content)
ORDER BY name
ON CONFLICT (name) DO UPDATE SET boot = excluded.boot, sequence = excluded.sequence, clock = excluded.clock,
    received_at = excluded.received_at, content = excluded.content, earlier_boots = CASE
        WHEN kept.boot = excluded.boot THEN kept.earlier_boots ELSE (kept.boot || kept.earlier_boots)[1:{MAX_EARLIER_BOOTS}] END
WHERE CASE WHEN kept.boot = excluded.boot THEN kept.sequence < excluded.sequence ELSE excluded.boot <> ALL(kept.earlier_boots) END
RETURNING name
"""

# Rows beyond the limit of an hour are lumped together; two transactions at once may exceed it by the rows of one.
COUNT_REJECTED = f"""
WITH given AS MATERIALIZED (
    SELECT start, meter, resource, project, kind, samples
    FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[])
        AS given (start, meter, resource, project, kind, samples)
), used AS MATERIALIZED (
    SELECT start, claimed, (SELECT count(*) FROM (
        SELECT FROM rejected_sample r WHERE r.start = hour.start AND (r.kind = 'unverified') = hour.claimed LIMIT {MAX_REJECTED_ROWS}
    ) AS counted_rows) AS rows
    FROM (SELECT DISTINCT start, kind = 'unverified' AS claimed FROM given) AS hour
), placed AS (
    SELECT given.*, known.known OR row_number() OVER (PARTITION BY given.start, used.claimed, known.known
        ORDER BY meter, resource, project, kind) <= {MAX_REJECTED_ROWS} - used.rows AS apart
    FROM given JOIN used ON used.start = given.start AND used.claimed = (given.kind = 'unverified') CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM rejected_sample r WHERE (r.start, r.meter, r.resource, r.project, r.kind)
                = (given.start, given.meter, given.resource, given.project, given.kind)
        ) AS known
    ) AS known
)
INSERT INTO rejected_sample AS counted (start, meter, resource, project, kind, samples)
SELECT start, CASE WHEN apart THEN meter ELSE '' END, CASE WHEN apart THEN resource ELSE '' END,
    CASE WHEN apart THEN project ELSE '' END, kind, sum(samples)
FROM placed GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
ON CONFLICT (start, meter, resource, project, kind) DO UPDATE SET samples = least(counted.samples::bigint + excluded.samples, {2**31 - 1})
"""


async def record_heartbeats(session: Session, heartbeats: Sequence[ReceivedHeartbeat]) -> Sequence[ReportResult]:
    """Keep heartbeats that are newer than the kept ones; return what became of each."""
    results = [ReportResult("repeated", "a newer heartbeat, or one of a newer process of the daemon, is stored")] * len(
        heartbeats
    )
    rest = list(enumerate(heartbeats))
    while rest:
        turn: dict[str, tuple[int, ReceivedHeartbeat]] = {}
        later = []
        for position, each in rest:
            if each.heartbeat.name in turn:
                later.append((position, each))
            else:
                turn[each.heartbeat.name] = position, each
        rows = [_row(each) for _, each in turn.values()]
        for [name] in await session.rows(UPSERT_HEARTBEATS, [list(column) for column in zip(*rows, strict=True)]):
            results[turn[name][0]] = ReportResult("applied")
        rest = later
    return results


def _row(received: ReceivedHeartbeat) -> tuple[Any, ...]:
    content = msgspec.json.encode(received.heartbeat).decode()
    return received.heartbeat.name, str(received.boot), received.heartbeat.sequence, received.clock, content


async def record_rejected_samples(session: Session, counts: Sequence[RejectedCount]) -> None:
    """Add to the numbers of dead-lettered samples."""
    sums: dict[tuple[Any, ...], int] = {}
    for count in counts:
        key = count.start, count.meter, count.resource, count.project, count.kind
        sums[key] = sums.get(key, 0) + count.samples
    if sums:
        rows = [(*key, min(samples, 2**31 - 1)) for key, samples in sorted(sums.items())]
        await session.count(COUNT_REJECTED, [list(column) for column in zip(*rows, strict=True)])
