"""Cycle reports of a real compute agent on a real broker, over an orderly stop, a restart and a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from contextlib import closing
from typing import Any

import psycopg2

from meter.cycle_report import CycleReport
from meter.cycle_report import cycle_report
from meter.report import read_report
from meter.signing_keys import keyring
from tests.system.daemons import SECRET
from tests.system.daemons import STOPPED
from tests.system.daemons import House
from tests.system.daemons import until
from tests.system.test_spine import PUBLISHER

CONFIG = """
[compute]
libvirt_uri = "test:///default"
[plugins]
disable = ["vcpus", "memory.maximum"]
[polling]
interval_seconds = 1.0
"""
KEYS = keyring([SECRET])


def on_the_bus(url: str, *arguments: str) -> str:
    ran = subprocess.run([sys.executable, PUBLISHER, url, *arguments], capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def taken(url: str) -> list[CycleReport]:
    """Return the reports that wait in the queue of this test, and remove them."""
    found = json.loads(on_the_bus(url, "get", "reports"))
    assert all(each["headers"]["meter-samples"] == 0 for each in found)
    return [cycle_report(read_report(each["body"].encode(), KEYS).content) for each in found]


def confirmed(daemon: Any) -> float:
    return float(daemon.metric('meter_cycle_reports_total{outcome="confirmed"}'))


def test_reports_of_three_lives_of_an_agent_have_no_gap(furnished: House) -> None:
    on_the_bus(furnished.bus, "bind", "reports", "metering", "report.cycle")
    on_the_bus(furnished.bus, "bind", "samples", "metering", "metering.#")
    compute = furnished.daemon("meter-compute", CONFIG).start().until_ready()
    until(lambda: confirmed(compute) >= 3, "three reports")
    assert compute.stop() in STOPPED, compute.log
    compute.start().until_ready()
    until(lambda: confirmed(compute) >= 2, "two reports of the second life")
    compute.stop(signal.SIGKILL)
    compute.start().until_ready()
    until(lambda: confirmed(compute) >= 1, "a report of the third life")
    assert compute.stop() in STOPPED, compute.log
    assert "Traceback" not in compute.log

    by_boot: dict[str, list[CycleReport]] = {}
    for report in taken(furnished.bus):
        by_boot.setdefault(report.boot, []).append(report)
    first, second, third = by_boot.values()
    assert len({str(uuid.UUID(boot)) for boot in by_boot}) == 3
    for life in (first, second, third):
        assert sorted({report.sequence for report in life}) == list(range(1, max(r.sequence for r in life) + 1))
        assert [poll.whole for poll in life[0].polls] == [True] * len(life[0].polls)
    assert (first[-1].stopping, third[-1].stopping) == (True, True)
    assert not any(report.stopping for report in second)
    assert first[0].confirmed is None
    assert second[0].confirmed is not None
    assert (second[0].confirmed.boot, second[0].confirmed.sequence) == (first[0].boot, first[-1].sequence)
    assert third[0].confirmed is not None
    assert third[0].confirmed.boot == second[0].boot

    begin = first[0]
    assert (begin.daemon, begin.agent) == ("meter-compute", f"meter-compute@{begin.host}")
    series = {
        (resource, meter)
        for poll in begin.polls
        for group in poll.series
        for resource in group.resources
        for meter in group.meters
    }
    assert {meter for _, meter in series} >= {"instance", "power.state", "memory", "cpu"}
    assert len({resource for resource, _ in series}) == 1
    off = {each.pollster: each for each in begin.inactive}
    assert (off["vcpus"].disabled, off["vcpus"].reason) == (True, "[plugins] disable has vcpus")
    assert off["memory"].meters == ("memory.maximum",)
    assert not off["disk"].disabled

    samples = json.loads(on_the_bus(furnished.bus, "get", "samples"))
    assert sum(each["headers"]["meter-samples"] for each in samples) == sum(
        poll.samples for life in by_boot.values() for report in life for poll in report.polls
    )
    assert not any("report" in each["headers"] for each in samples)


def rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def test_reports_of_an_agent_become_rows_of_the_ledger(furnished: House) -> None:
    collector = furnished.daemon("meter-collector").start()
    config = CONFIG.replace("interval_seconds = 1.0", "interval_seconds = 2.0")  # a rate needs more than a second
    compute = furnished.daemon("meter-compute", config).start()
    for daemon in (collector, compute):
        daemon.until_ready()
    runs = "SELECT sum(cycles) FROM cycle_run"
    until(lambda: (rows(furnished.store, runs)[0][0] or 0) >= 4, "four cycles in the ledger")
    assert compute.stop() in STOPPED, compute.log
    until(lambda: rows(furnished.store, "SELECT FROM agent_boot WHERE stopped"), "the end of the boot")

    [(applied, cycles, missing)] = rows(
        furnished.store, "SELECT applied, (SELECT sum(cycles) FROM cycle_run), missing FROM agent_boot"
    )
    assert (applied, missing) == (cycles + 1, "[]")
    expected = rows(
        furnished.store,
        "SELECT resource, unnest(meters) FROM metered_resource m JOIN meter_list l ON l.id = m.meter_list_id"
        " WHERE until_due = 'infinity'",
    )
    stored = rows(
        furnished.store,
        "SELECT DISTINCT r.name, m.name FROM series s JOIN resource r ON r.id = s.resource_id"
        " JOIN meter m ON m.id = s.meter_id",
    )
    assert sorted(expected) == sorted(stored)
    assert len(expected) > 5
    off = rows(furnished.store, "SELECT pollster, disabled FROM inactive_pollster WHERE until = 'infinity'")
    assert {("vcpus", True), ("memory", True), ("disk", False)} <= set(off)
    for daemon in (compute, collector):
        assert "Traceback" not in daemon.log
