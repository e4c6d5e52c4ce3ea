"""The tables of the completeness ledger, as rows that are equal in every store, and cycle reports that fill them."""

from __future__ import annotations

import hashlib
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import msgspec

from meter.completeness_store import ReceivedCycle
from meter.completeness_store import ReceivedHeartbeat
from meter.cycle_report import CycleReport
from meter.cycle_report import PollReport
from meter.heartbeat import Heartbeat
from meter.sample import utc_text
from meter.testing import MemoryStore
from meter.testing.memory_completeness import FOREVER

LEDGER_TABLES = (
    "agent, agent_boot, waiting_report, cycle_run, meter_list, metered_resource, polling_exception, off_schedule_poll,"
    " inactive_pollster, late_sample, rejected_sample, daemon_heartbeat"
)

QUERIES = {
    "cycle_run": "SELECT a.name, boot::text, interval, first_sequence, first_due, r.last_due, cycles, pollsters"
    " FROM cycle_run r JOIN agent a ON a.id = agent_id",
    "metered_resource": "SELECT a.name, pollster, interval, resource, project, meters, first_due, nullif(until_due, 'infinity'), ended"
    " FROM metered_resource JOIN agent a ON a.id = agent_id JOIN meter_list l ON l.id = meter_list_id",
    "polling_exception": "SELECT a.name, pollster, interval, resource, cause, reason, from_time, until_time, cycles, samples,"
    " expected"
    " FROM polling_exception JOIN agent a ON a.id = agent_id",
    "off_schedule_poll": "SELECT a.name, pollster, at, resource, project, meters"
    " FROM off_schedule_poll JOIN agent a ON a.id = agent_id JOIN meter_list l ON l.id = meter_list_id",
    "inactive_pollster": "SELECT a.name, pollster, disabled, reason, meters, since, nullif(until, 'infinity')"
    " FROM inactive_pollster JOIN agent a ON a.id = agent_id",
}


def poll(pollster="cpu", interval=60.0, **changes):
    """Return the report of a poll, by default one that was good."""
    return PollReport(
        **{"pollster": pollster, "interval_seconds": interval, "outcome": "ok", "samples": 4, "seconds": 0.1, **changes}
    )


def cycle(boot, sequence, due, *polls, host="h1", mac=None, **changes):
    """Return a received cycle report."""
    report = CycleReport(
        agent=f"meter-compute@{host}",
        daemon="meter-compute",
        host=host,
        boot=str(boot),
        sequence=sequence,
        due=utc_text(due),
        polls=polls,
        **changes,
    )
    return ReceivedCycle(report, boot, due, mac or hashlib.sha256(msgspec.json.encode(report)).digest())


def agent_life(boot, first_due, cycles, change=lambda n: ((), ()), interval=60.0):
    """Return the reports of consecutive cycles; ``change(n)`` returns what is added and removed in cycle ``n``."""
    reports = []
    for n in range(cycles):
        added, removed = change(n)
        due = first_due + timedelta(seconds=interval * n)
        reports.append(cycle(boot, n + 1, due, poll(whole=n == 0, series=added, removed=removed, interval=interval)))
    return reports


def beat(boot, sequence, clock=datetime(2026, 11, 27, 12, tzinfo=UTC), name="meter-api@h1"):
    """Return a received heartbeat."""
    daemon, host = name.split("@")
    heartbeat = Heartbeat(
        name=name,
        daemon=daemon,
        host=host,
        boot=str(boot),
        sequence=sequence,
        version="1",
        started_at="2026-11-27T11:00:00",
        clock=clock.isoformat(),
    )
    return ReceivedHeartbeat(heartbeat, boot, clock)


async def ledger_tables(store):
    """Return the sorted rows of the tables, by name."""
    if isinstance(store, MemoryStore):
        return {name: _sorted(rows) for name, rows in _in_memory(store).items()}
    return {name: _sorted(store.rows_of(query)) for name, query in QUERIES.items()}


def _sorted(rows):
    return sorted((tuple(tuple(each) if isinstance(each, list) else each for each in row) for row in rows), key=repr)


def _in_memory(store):
    names = store.agent_names

    def until(time):
        return None if time == FOREVER else time

    return {
        "cycle_run": [
            (
                names[r.agent_id],
                str(r.boot),
                r.interval,
                r.first_sequence,
                r.first_due,
                r.last_due,
                r.cycles,
                r.pollsters,
            )
            for r in store.cycle_runs
        ],
        "metered_resource": [
            (r.agent, r.pollster, r.interval, r.resource, r.project, r.meters, r.first_due, until(r.until_due), r.ended)
            for r in store.metered_resources
        ],
        "polling_exception": [
            (names[r.agent_id], *r.key[1:-1], r.from_time, r.until_time, r.cycles, r.samples, r.expected)
            for r in store.polling_exceptions
        ],
        "off_schedule_poll": [
            (r.agent, r.pollster, r.at, r.resource, r.project, r.meters) for r in store.off_schedule_polls
        ],
        "inactive_pollster": [
            (r.agent, r.pollster, r.disabled, r.reason, r.meters, r.since, until(r.until))
            for r in store.inactive_pollsters
        ],
    }
