"""Applies cycle reports: those of a boot in the order of their numbers, in one transaction for those that arrive together.

The rows of the agents are locked first, in the order of their names: of several collectors, one at a time applies reports of an
agent. A report whose predecessor has not come is stored and waits.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any

import msgspec
from twisted.logger import Logger

from meter.completeness.ledger.cycle_effects import apply_cycle
from meter.completeness.ledger.cycle_effects import follows_earlier_boot
from meter.completeness.ledger.cycle_effects import follows_predecessors
from meter.completeness.ledger.cycle_effects import give_up_before
from meter.completeness.ledger.cycle_effects import gives_up
from meter.completeness.ledger.cycle_effects import order_of_batch
from meter.completeness.ledger.cycle_effects import outcome_by_number
from meter.completeness.ledger.ledger_changes import AgentState
from meter.completeness.ledger.ledger_changes import BootState
from meter.completeness.ledger.ledger_changes import WaitingReport
from meter.completeness_store import ReceivedCycle
from meter.completeness_store import ReportResult
from meter.completeness_store import WaitingRules
from meter.cycle_report import CycleReport
from meter.interfaces import Unavailable
from meter.message import parse_timestamp
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.write.ledger_rows import load_effects
from meter.store.write.ledger_rows import save

WAITING_AT_ONCE = 50
"""Waiting reports that one transaction applies: each may have megabytes."""

LOCK_AGENTS = """
SELECT id, name, newest_boot::text, nullif(last_due, '-infinity') FROM agent WHERE name = ANY(%s) ORDER BY name FOR NO KEY UPDATE
"""

INSERT_AGENTS = """
INSERT INTO agent (name, daemon, host) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]) ON CONFLICT (name) DO NOTHING
"""

LOAD_BOOTS = """
SELECT b.agent_id, b.boot::text, b.first_due, b.last_due, b.applied, b.stopped, b.missing, encode(b.macs, 'hex')
FROM unnest(%s::int[], %s::uuid[]) AS given (agent_id, boot) JOIN agent_boot b USING (agent_id, boot)
"""

LOAD_WAITING = """
SELECT w.agent_id, w.boot::text, w.sequence, encode(w.mac, 'hex')
FROM unnest(%s::int[]) AS given (agent_id) JOIN waiting_report w USING (agent_id)
"""

INSERT_WAITING = """
INSERT INTO waiting_report (agent_id, boot, sequence, mac, whole, content)
SELECT agent_id, boot, sequence, decode(mac, 'hex'), whole, content
FROM unnest(%s::int[], %s::uuid[], %s::bigint[], %s::text[], %s::boolean[], %s::text[])
    AS given (agent_id, boot, sequence, mac, whole, content)
ON CONFLICT DO NOTHING
"""

AGENTS_WITH_WAITING = """
SELECT a.name, a.daemon, a.host FROM agent a WHERE EXISTS (SELECT FROM waiting_report w WHERE w.agent_id = a.id) ORDER BY a.name
"""

WAITING_OF_AGENT = """
SELECT boot::text, sequence, extract(epoch FROM now() - received_at)::float8, octet_length(content), whole
FROM waiting_report WHERE agent_id = %s ORDER BY boot, sequence
"""

WAITING_PREDECESSORS = """
SELECT DISTINCT one->'succeeds'->>'agent' FROM agent a JOIN waiting_report w ON w.agent_id = a.id
CROSS JOIN LATERAL json_array_elements(w.content::json->'polls') AS one
WHERE a.name = %s AND w.whole AND one->'succeeds' IS NOT NULL
"""

NEXT_WAITING = """
SELECT encode(mac, 'hex'), content FROM waiting_report WHERE agent_id = %s AND boot = %s ORDER BY sequence LIMIT %s
"""

DELETE_WAITING = """
DELETE FROM waiting_report w USING unnest(%s::int[], %s::uuid[], %s::bigint[]) AS given (agent_id, boot, sequence)
WHERE (w.agent_id, w.boot, w.sequence) = (given.agent_id, given.boot, given.sequence)
"""

BootKey = tuple[int, uuid.UUID]


@dataclass(slots=True)
class _LockedAgents:
    """Locked agents by name, and boots of theirs; those that are ``changed`` are to be saved."""

    agents: dict[str, AgentState]
    boots: dict[BootKey, BootState] = field(default_factory=dict)
    changed: set[BootKey] = field(default_factory=set)

    def boot_of(self, received: ReceivedCycle) -> BootState:
        """Return the boot of a report, a new one if it is its first."""
        key = self.key(received)
        self.changed.add(key)
        return self.boots.setdefault(key, BootState(received.boot, received.due, received.due))

    def key(self, received: ReceivedCycle) -> BootKey:
        """Return what identifies the boot of a report."""
        return self.agents[received.report.agent].id, received.boot

    def follows(self, received: ReceivedCycle) -> bool:
        """Return whether a report does not wait for those of an earlier boot, or of an agent whose list it succeeds."""
        if not follows_predecessors(received, self.agents):
            return False
        confirmed = received.report.confirmed
        if confirmed is None:
            return True
        boot = self.boots.get((self.agents[received.report.agent].id, uuid.UUID(confirmed.boot)))
        return follows_earlier_boot(received, boot.applied if boot is not None else 0)


class CycleReportWriter:
    """Applies cycle reports over ``pool``; ``rules`` say how long one waits for its predecessors."""

    _log = Logger()

    def __init__(self, pool: Pool, rules: WaitingRules) -> None:
        self._pool = pool
        self._rules = rules

    async def record(self, reports: Sequence[ReceivedCycle]) -> Sequence[ReportResult]:
        """Commit reports; see ``ICompletenessStore.record_cycle_reports``."""
        if not reports:
            return []
        try:
            results, waiting = await self._pool.run(_record, reports)
        except Rejected as error:
            if len(reports) == 1:
                return [ReportResult("refused", f"PostgreSQL rejects it: {error}")]
            half = len(reports) // 2
            return [*await self.record(reports[:half]), *await self.record(reports[half:])]
        except TimedOut as error:
            raise Unavailable(f"applying {len(reports)} reports took longer than the statement timeout") from error
        for agent in waiting:
            await self._drain(*agent)
        return results

    async def apply_waiting(self) -> int:
        """Apply what waits no longer; see ``ICompletenessStore.apply_waiting_reports``."""
        return sum([await self._drain(*agent) for agent in await self._pool.rows(AGENTS_WITH_WAITING)])

    async def _drain(self, name: str, daemon: str, host: str) -> int:
        applied = 0
        try:
            while some := await self._pool.run(_apply_waiting, (name, daemon, host), self._rules):
                applied += some
        except (Rejected, TimedOut):
            self._log.failure("reports of {agent} that wait cannot be applied", agent=name)
        return applied


async def _lock(
    session: Session, agents: Collection[tuple[str, str, str]], predecessors: Collection[str]
) -> _LockedAgents:
    """Lock agents, given by name, daemon and host, and ``predecessors``; those of ``agents`` that are not known are added."""
    names = sorted({*(name for name, _, _ in agents), *predecessors})
    rows = await session.rows(LOCK_AGENTS, [names])
    if not {name for name, _, _ in agents} <= {row[1] for row in rows}:
        new = sorted({agent[0]: agent for agent in agents}.values())
        await session.count(INSERT_AGENTS, [list(column) for column in zip(*new, strict=True)])
        rows = await session.rows(LOCK_AGENTS, [names])
    return _LockedAgents({name: AgentState(id, boot and uuid.UUID(boot), due) for id, name, boot, due in rows})


async def _load_boots(session: Session, locked: _LockedAgents, reports: Sequence[ReceivedCycle]) -> None:
    wanted = {locked.key(each) for each in reports}
    wanted |= {
        (locked.agents[each.report.agent].id, uuid.UUID(each.report.confirmed.boot))
        for each in reports
        if each.report.confirmed is not None
    }
    if not wanted:
        return
    for row in await session.rows(LOAD_BOOTS, _key_columns(wanted)):
        agent_id, boot, first_due, last_due, applied, stopped, missing, macs = row
        key = agent_id, uuid.UUID(boot)
        ranges = [(first, last) for first, last in msgspec.json.decode(missing)]
        locked.boots[key] = BootState(key[1], first_due, last_due, applied, stopped, ranges, bytes.fromhex(macs))


def _key_columns(keys: Collection[BootKey]) -> list[Any]:
    return [[agent_id for agent_id, _ in keys], [str(boot) for _, boot in keys]]


async def _record(
    session: Session, reports: Sequence[ReceivedCycle]
) -> tuple[Sequence[ReportResult], Collection[tuple[str, str, str]]]:
    """Apply or store reports; return what became of each, and the agents with reports that wait, as name, daemon and host."""
    identities = {each.report.agent: (each.report.agent, each.report.daemon, each.report.host) for each in reports}
    locked = await _lock(session, list(identities.values()), {name for each in reports for name in each.predecessors})
    await _load_boots(session, locked, reports)
    waiting: dict[BootKey, dict[int, bytes]] = {locked.key(each): {} for each in reports}
    ids = [locked.agents[name].id for name in identities]
    for agent_id, boot, sequence, mac in await session.rows(LOAD_WAITING, [ids]):
        waiting.setdefault((agent_id, uuid.UUID(boot)), {})[sequence] = bytes.fromhex(mac)
    effects = await load_effects(session, reports, locked.agents)
    results: list[ReportResult] = [ReportResult("repeated")] * len(reports)
    new: list[tuple[Any, ...]] = []
    order = order_of_batch(reports)
    for n in order:
        received = reports[n]
        agent, boot_state = locked.agents[received.report.agent], locked.boot_of(received)
        result = outcome_by_number(received, boot_state)
        of_boot, sequence = waiting[locked.key(received)], received.report.sequence
        if of_boot.get(sequence, received.mac) != received.mac:
            results[n] = ReportResult("conflict", f"another report with the number {sequence} waits")
            continue
        if result.outcome == "applied" and not locked.follows(received):
            result = ReportResult("waiting", "reports of an earlier boot or leader have not come yet")
        if result.outcome in ("applied", "late"):
            apply_cycle(received, locked.agents, boot_state, effects, late=result.outcome == "late")
        elif result.outcome == "waiting" and sequence in of_boot:
            result = ReportResult("repeated")
        elif result.outcome == "waiting":
            of_boot[sequence] = received.mac
            new.append(_waiting_row(agent.id, received))
        results[n] = result
    boots = [(agent_id, locked.boots[agent_id, boot]) for agent_id, boot in sorted(locked.changed)]
    await save(session, locked.agents.values(), boots, effects)
    if new:
        await session.count(INSERT_WAITING, [list(column) for column in zip(*new, strict=True)])
    # A first report may wait for an earlier boot that this call has advanced.
    still = {name for name in identities if any(id == locked.agents[name].id and waiting[id, b] for id, b in waiting)}
    return results, [identities[name] for name in sorted(still)]


def _waiting_row(agent_id: int, received: ReceivedCycle) -> tuple[Any, ...]:
    content = msgspec.json.encode(received.report).decode()
    return agent_id, str(received.boot), received.report.sequence, received.mac.hex(), received.whole, content


async def _apply_waiting(session: Session, agent: tuple[str, str, str], rules: WaitingRules) -> int:
    """Apply some of the waiting reports of an agent that wait no longer; return how many."""
    predecessors = {name for [name] in await session.rows(WAITING_PREDECESSORS, [agent[0]])}
    locked = await _lock(session, [agent], predecessors)
    state = locked.agents[agent[0]]
    waiting: dict[str, list[WaitingReport]] = {}
    for boot, *row in await session.rows(WAITING_OF_AGENT, [state.id]):
        waiting.setdefault(boot, []).append(WaitingReport(*row))
    candidates: list[tuple[list[WaitingReport], list[ReceivedCycle]]] = []
    for boot, of_boot in waiting.items():
        rows = await session.rows(NEXT_WAITING, [state.id, boot, WAITING_AT_ONCE])
        candidates.append((of_boot, [_waiting_report(*row) for row in rows]))
    reports = [each for _, some in candidates for each in some]
    if not reports:
        return 0
    await _load_boots(session, locked, reports)
    effects = await load_effects(session, reports, locked.agents)
    ended: list[ReceivedCycle] = []
    applied, before = 0, -1
    while before < len(ended):
        before = len(ended)
        for of_boot, some in candidates:
            while some:
                received = some[0]
                boot_state = locked.boot_of(received)
                if received.report.sequence > boot_state.applied:
                    ready = received.report.sequence == boot_state.applied + 1 and locked.follows(received)
                    if not ready and not gives_up(rules, of_boot):
                        break
                    give_up_before(received, state, boot_state, effects)
                    apply_cycle(received, locked.agents, boot_state, effects)
                    applied += 1
                ended.append(some.pop(0))
                del of_boot[0]
    if ended:
        boots = [(state.id, locked.boots[key]) for key in sorted(locked.changed)]
        await save(session, locked.agents.values(), boots, effects)
        keys = [(state.id, str(each.boot), each.report.sequence) for each in ended]
        await session.count(DELETE_WAITING, [list(column) for column in zip(*keys, strict=True)])
    return applied


def _waiting_report(mac: str, content: str) -> ReceivedCycle:
    report = msgspec.json.decode(content, type=CycleReport)
    return ReceivedCycle(report, uuid.UUID(report.boot), _time(report.due), bytes.fromhex(mac))


def _time(text: str) -> datetime:
    return parse_timestamp(text, "due")
