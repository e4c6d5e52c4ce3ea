"""Retirement of agents: an agent that will not report again measures nothing any more, and nothing is expected of it.

What it measured until then stays in the ledger. If it reports again, it is like a new agent: its next list of all series begins new rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from meter.completeness.ledger.agent_states import DEFAULT_INTERVAL
from meter.completeness_query import SILENT_INTERVALS
from meter.query import AuditEntry
from meter.store.audit.log import append
from meter.store.audit.log import next_seq
from meter.store.maintenance.voiding import Act
from meter.store.postgres.pool import Session

# Whoever applies reports of the agent has locked its row.
LOCK_AGENT = "SELECT id, nullif(last_due, '-infinity'), now() FROM agent WHERE name = %s FOR NO KEY UPDATE"

LAST_CYCLE = """
SELECT (SELECT max(last_due) FROM cycle_run WHERE agent_id = %(agent)s),
    (SELECT min(r.interval) FROM cycle_run r, agent a
    WHERE a.id = %(agent)s AND r.agent_id = a.id AND r.last_due > a.last_due - interval '24 hours'),
    (SELECT b.stopped FROM agent_boot b WHERE b.agent_id = %(agent)s ORDER BY b.last_due DESC, b.first_due DESC LIMIT 1),
    (SELECT count(*) FROM waiting_report WHERE agent_id = %(agent)s)
"""

OPEN = """
SELECT count(*), count(DISTINCT resource), max(interval) FROM metered_resource WHERE agent_id = %(agent)s AND until_due = 'infinity'
"""

# As if the next cycle after the last one with the interval did not list the series any more.
END_SERIES = """
UPDATE metered_resource m SET ended = 'retired', until_due = greatest(first_due, coalesce(
    %(given)s::timestamptz,
    (SELECT max(c.last_due) FROM cycle_run c WHERE c.agent_id = m.agent_id AND c.interval = m.interval) + make_interval(secs => m.interval),
    %(until)s
))
WHERE agent_id = %(agent)s AND until_due = 'infinity'
"""

END_INACTIVE = """
UPDATE inactive_pollster SET until = greatest(since, %(until)s) WHERE agent_id = %(agent)s AND until = 'infinity'
"""

STOP_BOOTS = "UPDATE agent_boot SET stopped = true WHERE agent_id = %(agent)s AND NOT stopped"

# A report of an earlier cycle, which arrives later, begins no series before the end of those that have ended now.
ADVANCE_AGENT = (
    "UPDATE agent SET last_due = greatest(last_due, %(until)s - interval '1 microsecond') WHERE id = %(agent)s"
)


class NotRetirable(Exception):
    """The agent is not known, still runs, or measured until later than the given time; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """The outcome: how many resources, and series groups of them, are expected only before ``until``.

    ``entry`` is the entry in the audit log; ``None`` if nothing was changed.
    """

    resources: int
    rows: int
    last_cycle: datetime | None
    until: datetime | None
    entry: AuditEntry | None


async def retire(session: Session, agent: str, until: datetime | None, act: Act) -> Retirement:
    """End what ``agent`` measures, as of ``until`` or else its last cycle, in the transaction of ``session``.

    With ``dry_run`` only count it. Raises :class:`NotRetirable`.
    """
    if not act.dry_run:
        await next_seq(session)  # takes the lock of the audit log, before that of the agent
    found = await session.rows(LOCK_AGENT, [agent])
    if not found:
        raise NotRetirable(f"no agent {agent!r} has reported; GET /v2/completeness/agents lists them")
    [[agent_id, last_due, now]] = found
    [[last_cycle, interval, stopped, waiting]] = await session.rows(LAST_CYCLE, {"agent": agent_id})
    last = last_cycle or last_due
    if (
        not stopped
        and last is not None
        and now - last <= timedelta(seconds=SILENT_INTERVALS * (interval or DEFAULT_INTERVAL))
    ):
        raise NotRetirable(f"{agent} still runs: its last cycle was at {_text(last)}; stop it first")
    if waiting:
        raise NotRetirable(f"{waiting} reports of {agent} wait for earlier ones, at most two hours; try again then")
    if until is not None and last is not None and until <= last:
        raise NotRetirable(f"--until: {agent} measured until {_text(last)}, so that samples are expected until then")
    if until is not None and until > now:
        raise NotRetirable("--until is in the future")
    [[rows, resources, longest]] = await session.rows(OPEN, {"agent": agent_id})
    end = until or (None if last is None else last + timedelta(seconds=longest or 0.0))
    entry = None
    if rows and end is not None and not act.dry_run:
        for statement in (END_SERIES, END_INACTIVE, STOP_BOOTS, ADVANCE_AGENT):
            await session.count(statement, {"agent": agent_id, "until": end, "given": until})
        details = {**act.details, "agent": agent, "until": _text(end), "resources": resources, "series_rows": rows}
        entry = await append(session, act.keys, who=act.who, action="retire-agent", reason=act.reason, details=details)
    return Retirement(resources=resources, rows=rows, last_cycle=last_cycle, until=end, entry=entry)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat()
