"""Reads agents with their boots, and the last heartbeats of all daemons."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from collections.abc import Sequence

import msgspec

from meter.completeness_store import StoredAgent
from meter.completeness_store import StoredBoot
from meter.completeness_store import StoredHeartbeat
from meter.heartbeat import Heartbeat
from meter.store.postgres.pool import Pool

AGENTS = """
SELECT a.id, a.name, a.daemon, a.host, nullif(a.last_due, '-infinity'), a.newest_boot::text
FROM agent a WHERE %(names)s::text[] IS NULL OR a.name = ANY(%(names)s::text[]) ORDER BY a.name
"""

BOOTS = """
SELECT b.agent_id, b.boot::text, b.first_due, b.last_due, b.applied, b.stopped, b.missing,
    (SELECT count(*) FROM waiting_report w WHERE w.agent_id = b.agent_id AND w.boot = b.boot)
FROM agent_boot b WHERE %(agents)s::int[] IS NULL OR b.agent_id = ANY(%(agents)s::int[]) ORDER BY b.first_due, b.boot
"""


async def read_agents(pool: Pool, names: Collection[str] | None) -> Sequence[StoredAgent]:
    """Return agents by name; see ``ICompletenessStore.agents``."""
    rows = await pool.rows(AGENTS, {"names": None if names is None else list(names)})
    ids = None if names is None else [id for id, *_ in rows]
    boots: dict[int, list[StoredBoot]] = {}
    for agent_id, boot, first_due, last_due, applied, stopped, missing, waiting in await pool.rows(
        BOOTS, {"agents": ids}
    ):
        ranges = tuple((first, last) for first, last in msgspec.json.decode(missing))
        found = StoredBoot(uuid.UUID(boot), first_due, last_due, applied, stopped, ranges, waiting)
        boots.setdefault(agent_id, []).append(found)
    return [
        StoredAgent(name, daemon, host, last_due, newest and uuid.UUID(newest), tuple(boots.get(id, ())))
        for id, name, daemon, host, last_due, newest in rows
    ]


async def read_heartbeats(pool: Pool) -> Sequence[StoredHeartbeat]:
    """Return the last heartbeat of each daemon; see ``ICompletenessStore.heartbeats``."""
    rows = await pool.rows("SELECT content, clock, received_at FROM daemon_heartbeat ORDER BY name")
    return [
        StoredHeartbeat(msgspec.json.decode(content, type=Heartbeat), clock, received_at)
        for content, clock, received_at in rows
    ]
