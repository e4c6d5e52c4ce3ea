"""What the database knows of one meter of one resource around a time: for ``meter-doctor why``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from meter.store.maintenance.inspection import DatabaseInspection
from meter.store.query.named_edges import edge_of_series
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import NO_START

SERIES = """
SELECT x.id, p.name, x.polling_interval FROM series x
JOIN resource r ON r.id = x.resource_id JOIN meter m ON m.id = x.meter_id LEFT JOIN project p ON p.id = x.project_id
WHERE r.name = %s AND m.name = %s
"""

_NEWEST = edge_of_series(
    ("timestamp", "recorded_at", "message_id", "volume"),
    NO_START.text,
    "%(at)s::timestamptz",
    series="%(series)s",
    condition="true",
)
NEWEST = f"SELECT s.timestamp, s.recorded_at, s.volume FROM ({_NEWEST}) AS s"

_NEXT = edge_of_series(
    ("timestamp", "message_id"),
    "%(at)s::timestamptz",
    NO_END.text,
    series="%(series)s",
    condition="s.timestamp > %(at)s",
    oldest=True,
)
NEXT = f"SELECT s.timestamp FROM ({_NEXT}) AS s"

ROLLED_UP = "SELECT max(last) FROM rollup WHERE hours = 1 AND series_id = ANY(%s) AND start <= %s"

VOIDED = """
SELECT v.timestamp, v.voided_by, v.reason FROM voided_sample v
WHERE v.series_id = ANY(%s) AND v.timestamp <= %s AND v.timestamp > %s ORDER BY v.timestamp DESC LIMIT 1
"""

CUTOFF = "SELECT max(before) FROM retention_cutoff WHERE meter IN ('', %s)"

KNOWN = """
SELECT EXISTS (SELECT FROM resource WHERE name = %(resource)s) OR EXISTS (
        SELECT FROM metered_resource WHERE resource = %(resource)s),
    EXISTS (SELECT FROM meter WHERE name = %(meter)s)
"""

METERED = """
SELECT a.name, w.pollster, w.interval, w.project, w.first_due, nullif(w.until_due, 'infinity'), w.ended
FROM metered_resource w JOIN agent a ON a.id = w.agent_id JOIN meter_list l ON l.id = w.meter_list_id
WHERE w.resource = %s AND %s = ANY(l.meters) AND w.first_due <= %s ORDER BY w.until_due DESC, w.first_due DESC LIMIT 50
"""

CYCLES = """
SELECT a.name, c.interval, max(least(c.last_due, %(at)s)) FILTER (WHERE c.first_due <= %(at)s),
    min(c.first_due) FILTER (WHERE c.first_due > %(at)s)
FROM cycle_run c JOIN agent a ON a.id = c.agent_id WHERE %(pollster)s = ANY(c.pollsters) AND {which} GROUP BY 1, 2
"""

OF_AGENTS = "a.name = ANY(%(agents)s)"

AROUND = "c.last_due BETWEEN %(at)s - interval '2 days' AND %(at)s + interval '3 days'"
"""Selects the cycles of all agents around the time; a row has those of one day at most."""

EXCEPTIONS = """
SELECT a.name, e.pollster, e.resource, e.cause, e.reason, e.from_time, e.until_time
FROM polling_exception e JOIN agent a ON a.id = e.agent_id
WHERE a.name = ANY(%(agents)s) AND e.pollster = ANY(%(pollsters)s) AND e.resource IN ('', %(resource)s)
AND e.from_time <= %(at)s AND e.until_time > %(since)s ORDER BY e.until_time DESC, e.from_time DESC LIMIT 20
"""

STOPPED = """
SELECT DISTINCT ON (a.name) a.name, b.last_due, b.stopped FROM agent_boot b JOIN agent a ON a.id = b.agent_id
WHERE b.first_due <= %s ORDER BY a.name, b.first_due DESC
"""

INACTIVE = """
SELECT a.name, i.pollster, i.disabled, i.reason, i.since, i.meters FROM inactive_pollster i JOIN agent a ON a.id = i.agent_id
WHERE %s = ANY(i.meters) AND i.since <= %s AND i.until > %s ORDER BY a.name LIMIT 100
"""

REJECTED = """
SELECT start, kind, project, samples FROM rejected_sample
WHERE meter = %s AND resource IN ('', %s) AND start <= %s AND start > %s ORDER BY start DESC LIMIT 20
"""


class TracedSample(NamedTuple):
    """The newest sample of a series up to a time. ``interval`` is that of polling in seconds, 0 if it is not polled."""

    project: str | None
    interval: float
    timestamp: datetime
    recorded_at: datetime
    volume: float


class TracedResource(NamedTuple):
    """An agent's statement that it measures the meter of the resource in each cycle from ``first_due`` until before ``until_due``.

    ``until_due`` is ``None`` while it does; ``ended`` says why it does not any more, if the agent told it. ``interval`` is in seconds.
    """

    agent: str
    pollster: str
    interval: float
    project: str
    first_due: datetime
    until_due: datetime | None
    ended: str = ""


class TracedCycles(NamedTuple):
    """The last cycle up to a time, and the first after it, in which an agent asked a pollster; ``None`` if there is none."""

    agent: str
    interval: float
    last_due: datetime | None
    next_due: datetime | None


class TracedFailure(NamedTuple):
    """Samples that an agent did not make or lost: why, and from when until before when."""

    agent: str
    pollster: str
    resource: str
    cause: str
    reason: str
    from_time: datetime
    until_time: datetime


class TracedAgent(NamedTuple):
    """The last life of an agent that began before a time; ``stopped``: its last report said that it stops."""

    agent: str
    last_due: datetime
    stopped: bool


class TracedInactivity(NamedTuple):
    """A pollster that an agent has and does not use for the meter. ``meters`` are all for which it does not."""

    agent: str
    pollster: str
    disabled: bool
    reason: str
    since: datetime
    meters: Sequence[str] = ()


class TracedRejection(NamedTuple):
    """Samples of the meter and resource, of one hour, that the collector rejected."""

    start: datetime
    kind: str
    project: str
    samples: int


class TracedVoiding(NamedTuple):
    """The newest voided sample up to the time."""

    timestamp: datetime
    voided_by: str
    reason: str


class SampleTrace(NamedTuple):
    """What is stored about a meter of a resource up to a time, newest first."""

    known_resource: bool
    known_meter: bool
    newest: Sequence[TracedSample]
    next: datetime | None
    rolled_up: datetime | None
    voided: TracedVoiding | None
    cutoff: datetime | None
    metered: Sequence[TracedResource]
    cycles: Sequence[TracedCycles]
    failures: Sequence[TracedFailure]
    lives: Sequence[TracedAgent]
    inactive: Sequence[TracedInactivity]
    rejected: Sequence[TracedRejection]


async def sample_trace(
    inspection: DatabaseInspection, resource: str, meter: str, at: datetime, since: datetime, pollsters: Sequence[str]
) -> SampleTrace:
    """Return the trace up to ``at``; what went wrong is looked for from ``since`` on.

    ``pollsters`` are the names of those that may measure the meter, beside those that agents name.
    """
    rows = inspection.rows
    [[known_resource, known_meter]] = await rows(KNOWN, {"resource": resource, "meter": meter})
    newest, series = [], []
    for id, project, interval in await rows(SERIES, [resource, meter]):
        series.append(id)
        newest += [TracedSample(project, interval, *row) for row in await rows(NEWEST, {"series": id, "at": at})]
    following = [each for id in series for [each] in await rows(NEXT, {"series": id, "at": at})]
    [[rolled_up]] = await rows(ROLLED_UP, [series, at])
    voided = [TracedVoiding(*row) for row in await rows(VOIDED, [series, at, since])]
    [[cutoff]] = await rows(CUTOFF, [meter])
    metered = [TracedResource(*row) for row in await rows(METERED, [resource, meter, at])]
    names = sorted({*pollsters, *(each.pollster for each in metered)})
    measuring = sorted({each.agent for each in metered})
    statement = CYCLES.format(which=OF_AGENTS if measuring else AROUND)
    parameters = {"at": at, "agents": measuring}
    cycles = [TracedCycles(*row) for name in names for row in await rows(statement, {**parameters, "pollster": name})]
    agents = measuring or sorted({each.agent for each in cycles})
    failures = await rows(
        EXCEPTIONS, {"agents": agents, "pollsters": ["", *names], "resource": resource, "at": at, "since": since}
    )
    return SampleTrace(
        known_resource=known_resource,
        known_meter=known_meter,
        newest=sorted(newest, key=lambda each: each.timestamp, reverse=True),
        next=min(following, default=None),
        rolled_up=rolled_up,
        voided=voided[0] if voided else None,
        cutoff=cutoff,
        metered=metered,
        cycles=cycles,
        failures=[TracedFailure(*row) for row in failures],
        lives=[TracedAgent(*row) for row in await rows(STOPPED, [at]) if row[0] in agents],
        inactive=[TracedInactivity(*row) for row in await rows(INACTIVE, [meter, at, at])],
        rejected=[TracedRejection(*row) for row in await rows(REJECTED, [meter, resource, at, since])],
    )
