"""Rows of the completeness ledger: those that a cycle report may continue are loaded, and what it changes is written.

Many reports are written by few statements, each with arrays: the number of statements does not depend on that of agents. Series
are passed as JSON and taken apart by PostgreSQL, which keeps the reactor free however many resources an agent has.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import Any

import msgspec

from meter.completeness.ledger.ledger_changes import AgentState
from meter.completeness.ledger.ledger_changes import BootState
from meter.completeness.ledger.ledger_changes import CycleEffects
from meter.completeness.ledger.ledger_changes import CycleRunRow
from meter.completeness.ledger.ledger_changes import InactiveEdit
from meter.completeness.ledger.ledger_changes import PollingExceptionRow
from meter.completeness.ledger.ledger_changes import SeriesEdit
from meter.completeness_store import ReceivedCycle
from meter.cycle_report import SeriesGroup
from meter.store.postgres.pool import Session

LOAD_RUNS = """
SELECT run.agent_id, run.boot::text, run.interval, run.first_sequence, run.first_due, run.last_due, run.cycles, run.pollsters
FROM unnest(%s::int[], %s::uuid[], %s::float8[]) AS given (agent_id, boot, interval)
CROSS JOIN LATERAL (
    SELECT * FROM cycle_run r WHERE (r.agent_id, r.boot, r.interval) = (given.agent_id, given.boot, given.interval)
    ORDER BY first_sequence DESC LIMIT 1
) AS run
"""

LOAD_EXCEPTIONS = """
SELECT e.agent_id, e.pollster, e.interval, e.resource, e.cause, e.reason, e.from_time, e.until_time, e.cycles, e.samples, e.id,
    e.expected
FROM unnest(%s::int[], %s::timestamptz[]) AS given (agent_id, since)
JOIN polling_exception e ON e.agent_id = given.agent_id AND e.until_time >= given.since
WHERE e.interval > 0
ORDER BY e.id
"""

SAVE_AGENTS = """
UPDATE agent SET newest_boot = given.newest_boot, last_due = given.last_due
FROM unnest(%s::int[], %s::uuid[], %s::timestamptz[]) AS given (id, newest_boot, last_due) WHERE agent.id = given.id
"""

SAVE_BOOTS = """
INSERT INTO agent_boot (agent_id, boot, first_due, last_due, applied, stopped, missing, macs)
SELECT agent_id, boot, first_due, last_due, applied, stopped, missing, decode(macs, 'hex')
FROM unnest(%s::int[], %s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::bigint[], %s::boolean[], %s::text[], %s::text[])
    AS given (agent_id, boot, first_due, last_due, applied, stopped, missing, macs)
ON CONFLICT (agent_id, boot) DO UPDATE SET first_due = excluded.first_due, last_due = excluded.last_due, applied = excluded.applied,
    stopped = excluded.stopped, missing = excluded.missing, macs = excluded.macs
"""

SAVE_RUNS = """
INSERT INTO cycle_run (agent_id, boot, interval, first_sequence, first_due, last_due, cycles, pollsters)
SELECT agent_id, boot, interval, first_sequence, first_due, last_due, cycles, ARRAY(SELECT json_array_elements_text(pollsters::json))
FROM unnest(%s::int[], %s::uuid[], %s::float8[], %s::bigint[], %s::timestamptz[], %s::timestamptz[], %s::int[], %s::text[])
    AS given (agent_id, boot, interval, first_sequence, first_due, last_due, cycles, pollsters)
ON CONFLICT (agent_id, boot, interval, first_sequence) DO UPDATE SET last_due = excluded.last_due, cycles = excluded.cycles
"""

EXTEND_EXCEPTIONS = """
UPDATE polling_exception e SET until_time = given.until_time, cycles = given.cycles, samples = given.samples
FROM unnest(%s::bigint[], %s::timestamptz[], %s::int[], %s::bigint[]) AS given (id, until_time, cycles, samples) WHERE e.id = given.id
"""

INSERT_EXCEPTIONS = """
INSERT INTO polling_exception (agent_id, pollster, interval, resource, cause, reason, expected, from_time, until_time, cycles, samples)
SELECT * FROM unnest(%s::int[], %s::text[], %s::float8[], %s::text[], %s::text[], %s::text[], %s::boolean[], %s::timestamptz[],
    %s::timestamptz[], %s::int[], %s::bigint[])
"""

FIND_METER_LISTS = (
    "SELECT id, encode(hash, 'hex') FROM meter_list WHERE hash = ANY(%s::bytea[]) ORDER BY hash FOR KEY SHARE"
)

INSERT_METER_LISTS = """
INSERT INTO meter_list (hash, meters)
SELECT hash, ARRAY(SELECT json_array_elements_text(meters::json))
FROM unnest(%s::bytea[], %s::text[]) AS given (hash, meters) ORDER BY hash
ON CONFLICT (hash) DO UPDATE SET hash = excluded.hash RETURNING id, encode(hash, 'hex')
"""

# The values of a group are taken out of it once, not for each of its resources.
GROUPS = """
SELECT agent_id, pollster, interval, at, value->>1 AS project, (value->>0)::int AS meter_list_id, value->2 AS resources, value->>3 AS reason
FROM edit, json_array_elements(edit.series::json) AS grouped (value)
"""

LISTED = """
SELECT agent_id, pollster, interval, at, series.value AS resource, project, meter_list_id, reason
FROM grouped, json_array_elements_text(resources) AS series (value)
"""

EDIT = f"""
WITH edit AS MATERIALIZED (
    SELECT * FROM unnest(%s::int[], %s::text[], %s::float8[], %s::timestamptz[], %s::text[]) AS edit (agent_id, pollster, interval, at, series)
), grouped AS MATERIALIZED ({GROUPS}), listed AS MATERIALIZED ({LISTED})
"""
"""Parameters of an edit, and the resources that it lists: ``listed``."""

END_UNLISTED = f"""
WITH edit AS MATERIALIZED (
    SELECT * FROM unnest(%s::int[], %s::text[], %s::float8[], %s::timestamptz[], %s::text[], %s::text[], %s::text[])
        AS edit (agent_id, pollster, interval, at, series, listed_from, listed_before)
), grouped AS MATERIALIZED ({GROUPS}), listed AS MATERIALIZED ({LISTED}), open AS MATERIALIZED (
    SELECT edit.at, m.* FROM edit CROSS JOIN LATERAL (
        SELECT m.*, m.ctid AS row_id FROM metered_resource m
        WHERE m.agent_id = edit.agent_id AND m.pollster = edit.pollster AND m.until_due = 'infinity'
            AND m.resource >= edit.listed_from AND (edit.listed_before = '' OR m.resource < edit.listed_before) OFFSET 0
    ) AS m
), ended AS MATERIALIZED (
    SELECT (array_agg(row_id))[1] AS row_id, max(at) AS at FROM (
        SELECT agent_id, pollster, interval, resource, project, meter_list_id, at, row_id FROM open
        UNION ALL SELECT agent_id, pollster, interval, resource, project, meter_list_id, NULL, NULL FROM listed
    ) AS either GROUP BY agent_id, pollster, interval, resource, project, meter_list_id HAVING bool_and(row_id IS NOT NULL)
)
UPDATE metered_resource m SET until_due = ended.at FROM ended
WHERE m.ctid = ended.row_id
"""
"""Ends what complete lists do not have. They are grouped: a join might become a nested loop, as the sizes are not known."""

# What the successor lists, whatever its meters and project, exists; the rest of what it would have listed does not.
END_SUCCEEDED = f"""
WITH edit AS MATERIALIZED (
    SELECT * FROM unnest(%s::int[], %s::text[], %s::float8[], %s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::int[],
        %s::timestamptz[], %s::boolean[])
        AS edit (agent_id, pollster, interval, at, series, listed_from, listed_before, predecessor_id, until_due, gone)
), grouped AS MATERIALIZED ({GROUPS}), listed AS MATERIALIZED ({LISTED}), open AS MATERIALIZED (
    SELECT edit.agent_id, edit.until_due, edit.gone, m.pollster, m.resource, m.row_id FROM edit CROSS JOIN LATERAL (
        SELECT m.pollster, m.resource, m.ctid AS row_id FROM metered_resource m
        WHERE m.agent_id = edit.predecessor_id AND m.pollster = edit.pollster AND m.until_due = 'infinity'
            AND m.resource >= edit.listed_from AND (edit.listed_before = '' OR m.resource < edit.listed_before)
            AND m.first_due < edit.until_due OFFSET 0
    ) AS m
), ended AS MATERIALIZED (
    SELECT unnest(array_agg(row_id)) AS row_id, max(until_due) AS until_due, bool_or(gone) AND NOT bool_or(listed) AS gone FROM (
        SELECT agent_id, pollster, resource, until_due, row_id, gone, false AS listed FROM open
        UNION ALL SELECT agent_id, pollster, resource, NULL, NULL, NULL, true FROM listed
    ) AS either GROUP BY agent_id, pollster, resource
)
UPDATE metered_resource m SET until_due = ended.until_due, ended = CASE WHEN ended.gone THEN 'gone' ELSE '' END FROM ended
WHERE m.ctid = ended.row_id
"""
"""Ends what an agent measured before another one, which lists all of it."""

# Found by the resource: the index of agents and pollsters has all that the pollster measures, for each one that is removed.
END_REMOVED = f"""
{EDIT}
UPDATE metered_resource m SET until_due = removed.at, ended = removed.reason FROM listed AS removed
WHERE (m.resource, m.agent_id + 0, m.pollster || '', m.meter_list_id, m.project || '')
    = (removed.resource, removed.agent_id, removed.pollster, removed.meter_list_id, removed.project)
    AND m.until_due = 'infinity'
"""

END_ALL = """
UPDATE metered_resource m SET until_due = given.at FROM unnest(%s::int[], %s::timestamptz[]) AS given (agent_id, at)
WHERE m.agent_id = given.agent_id AND m.until_due = 'infinity'
"""

USE_INDEXES = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"
"""PostgreSQL does not know how few the resources of an edit are, and might read the whole table instead of looking each up."""

# What is open already is in the unique index metered_resource_open.
INSERT_LISTED = f"""
{EDIT}
INSERT INTO metered_resource (agent_id, pollster, interval, resource, project, meter_list_id, first_due)
SELECT agent_id, pollster, interval, resource, project, meter_list_id, at FROM listed
ON CONFLICT DO NOTHING
"""

INSERT_OFF_SCHEDULE = f"""
{EDIT}
INSERT INTO off_schedule_poll (agent_id, pollster, at, resource, project, meter_list_id)
SELECT agent_id, pollster, at, resource, project, meter_list_id FROM listed ON CONFLICT DO NOTHING
"""

INACTIVE_GIVEN = """
WITH given AS MATERIALIZED (
    SELECT agent_id, at, one->>'pollster' AS pollster, (one->>'disabled')::boolean AS disabled, one->>'reason' AS reason,
        ARRAY(SELECT json_array_elements_text(one->'meters')) AS meters
    FROM unnest(%s::int[], %s::timestamptz[], %s::text[]) AS edit (agent_id, at, pollsters), json_array_elements(pollsters::json) AS one
)
"""

END_INACTIVE = f"""
{INACTIVE_GIVEN}
UPDATE inactive_pollster i SET until = edit.at FROM unnest(%s::int[], %s::timestamptz[]) AS edit (agent_id, at)
WHERE i.agent_id = edit.agent_id AND i.until = 'infinity' AND NOT EXISTS (
    SELECT FROM given WHERE given.agent_id = i.agent_id AND given.pollster = i.pollster
        AND (given.disabled, given.reason, given.meters) = (i.disabled, i.reason, i.meters)
)
"""

INSERT_INACTIVE = f"""
{INACTIVE_GIVEN}
INSERT INTO inactive_pollster (agent_id, pollster, disabled, reason, meters, since)
SELECT agent_id, pollster, disabled, reason, meters, at FROM given WHERE NOT EXISTS (
    SELECT FROM inactive_pollster i WHERE i.agent_id = given.agent_id AND i.pollster = given.pollster AND i.until = 'infinity'
)
ON CONFLICT DO NOTHING
"""


async def load_effects(
    session: Session, reports: Sequence[ReceivedCycle], agents: Mapping[str, AgentState]
) -> CycleEffects:
    """Return empty changes with the runs and exceptions that ``reports`` may continue."""
    effects = CycleEffects()
    keys = {
        (agents[each.report.agent].id, each.boot, poll.interval_seconds)
        for each in reports
        for poll in each.report.polls
    }
    for agent_id, boot, interval, sequence, first, last, cycles, pollsters in await _rows(
        session, LOAD_RUNS, [(agent_id, str(boot), interval) for agent_id, boot, interval in keys]
    ):
        run = CycleRunRow(agent_id, uuid.UUID(boot), interval, sequence, first, last, cycles, tuple(pollsters))
        effects.runs[agent_id, run.boot, interval] = run
    since: dict[int, datetime] = {}
    for each in reports:
        unusual = [poll.interval_seconds for poll in each.report.polls if _is_unusual(poll)]
        if unusual:
            agent_id, begin = agents[each.report.agent].id, each.due - timedelta(seconds=max(unusual))
            since[agent_id] = min(since.get(agent_id, begin), begin)
    for row in await _rows(session, LOAD_EXCEPTIONS, list(since.items())):
        exception = PollingExceptionRow(*row)
        effects.exceptions[exception.key] = exception
    return effects


def _is_unusual(poll: Any) -> bool:
    return bool(not poll.asked or poll.outcome != "ok" or poll.skipped)


async def _rows(session: Session, statement: str, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Return the rows of a statement whose parameters are the columns of ``rows``; nothing if there are none."""
    return await session.rows(statement, _columns(rows)) if rows else []


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def save(
    session: Session, agents: Collection[AgentState], boots: Iterable[tuple[int, BootState]], effects: CycleEffects
) -> None:
    """Write agents, boots and all changes."""
    known = [(agent.id, agent.newest_boot and str(agent.newest_boot), agent.last_due) for agent in agents]
    await _change(session, SAVE_AGENTS, [row for row in known if row[2] is not None])
    await _change(
        session,
        SAVE_BOOTS,
        [
            (
                agent_id,
                str(boot.boot),
                boot.first_due,
                boot.last_due,
                boot.applied,
                boot.stopped,
                _json(boot.missing),
                boot.macs.hex(),
            )
            for agent_id, boot in boots
        ],
    )
    await _change(
        session,
        SAVE_RUNS,
        [
            (
                run.agent_id,
                str(run.boot),
                run.interval,
                run.first_sequence,
                run.first_due,
                run.last_due,
                run.cycles,
                _json(run.pollsters),
            )
            for run in effects.changed_runs.values()
        ],
    )
    exceptions = effects.changed_exceptions.values()
    await _change(
        session,
        EXTEND_EXCEPTIONS,
        [(each.id, each.until_time, each.cycles, each.samples) for each in exceptions if each.id is not None],
    )
    await _change(
        session,
        INSERT_EXCEPTIONS,
        [
            (*each.key, each.from_time, each.until_time, each.cycles, each.samples)
            for each in exceptions
            if each.id is None
        ],
    )
    await _save_series(session, effects)
    await _save_inactive(session, effects.inactive)


async def _change(session: Session, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        await session.count(statement, _columns(rows))


async def _save_series(session: Session, effects: CycleEffects) -> None:
    """Write changes of series: of each agent those of one report after the other, of several agents at once."""
    edits = [edit for report in effects.series for edit in report]
    groups = [group for edit in edits for group in (*edit.series, *edit.removed)]
    groups += [group for off in effects.off_schedule for group in off.series]
    if not edits and not groups:
        return
    lists = await _meter_lists(session, {group.meters for group in groups})
    await session.count(USE_INDEXES)
    for turn in _turns(effects.series):
        await _save_turn(session, turn, lists)
    await _change(
        session,
        INSERT_OFF_SCHEDULE,
        [(off.agent_id, off.pollster, 0.0, off.at, _groups(off.series, lists)) for off in effects.off_schedule],
    )


def _turns(reports: Sequence[Sequence[SeriesEdit]]) -> list[list[SeriesEdit]]:
    """Return the edits in turns, each with those of at most one report that changes an agent's series."""
    turns: list[list[SeriesEdit]] = []
    reached: dict[int, int] = {}
    for edits in reports:
        agents = {agent_id for edit in edits for agent_id in edit.agents}
        turn = max(reached.get(agent_id, 0) for agent_id in agents)
        reached |= dict.fromkeys(agents, turn + 1)
        if turn == len(turns):
            turns.append([])
        turns[turn] += edits
    return turns


async def _save_turn(session: Session, edits: Sequence[SeriesEdit], lists: Mapping[tuple[str, ...], int]) -> None:
    await _change(session, END_ALL, [(edit.agent_id, edit.at) for edit in edits if not edit.pollster])
    edits = [edit for edit in edits if edit.pollster]

    def rows(chosen: Iterable[SeriesEdit], *, removed: bool = False) -> list[tuple[Any, ...]]:
        return [
            (
                edit.agent_id,
                edit.pollster,
                edit.interval,
                edit.at,
                _groups(edit.removed if removed else edit.series, lists),
            )
            for edit in chosen
        ]

    await _change(session, END_REMOVED, rows((edit for edit in edits if edit.removed), removed=True))
    successions = [(edit, edit.succeeds) for edit in edits if edit.succeeds is not None]
    limited = [
        (edit.listed_from, edit.listed_before, before.agent_id, before.at, before.gone) for edit, before in successions
    ]
    await _change(
        session,
        END_SUCCEEDED,
        [(*row, *limits) for row, limits in zip(rows(edit for edit, _ in successions), limited, strict=True)],
    )
    complete = [edit for edit in edits if edit.complete]
    limits = [(edit.listed_from, edit.listed_before) for edit in complete]
    await _change(session, END_UNLISTED, [(*row, *limit) for row, limit in zip(rows(complete), limits, strict=True)])
    await _change(session, INSERT_LISTED, rows(edit for edit in edits if edit.series))


async def _meter_lists(session: Session, wanted: Collection[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """Return the id of each list of meters; the rows stay until the end of the transaction."""
    hashes = {hashlib.sha256(_json(meters).encode()).hexdigest(): meters for meters in wanted}
    if not hashes:
        return {}
    found = await session.rows(FIND_METER_LISTS, [[f"\\x{each}" for each in sorted(hashes)]])
    ids = {hashes[hash]: id for id, hash in found}
    missing = [(f"\\x{hash}", _json(meters)) for hash, meters in sorted(hashes.items()) if meters not in ids]
    for id, hash in await _rows(session, INSERT_METER_LISTS, missing):
        ids[hashes[hash]] = id
    return ids


def _groups(groups: Sequence[SeriesGroup], lists: Mapping[tuple[str, ...], int]) -> str:
    return _json([(lists[group.meters], group.project or "", group.resources, group.reason) for group in groups])


async def _save_inactive(session: Session, edits: Sequence[InactiveEdit]) -> None:
    last = {edit.agent_id: edit for edit in edits}  # several of one agent: only the last list matters from now on
    turns = [[edit] for edit in edits] if len(last) < len(edits) else [edits]
    for turn in turns:
        given = [(edit.agent_id, edit.at, _json(edit.pollsters)) for edit in turn]
        ends = [(edit.agent_id, edit.at) for edit in turn]
        if given:
            await session.count(END_INACTIVE, [*_columns(given), *_columns(ends)])
            await session.count(INSERT_INACTIVE, _columns(given))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
