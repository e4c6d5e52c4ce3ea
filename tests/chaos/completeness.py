"""Compares the completeness ledger with the truth about the pollster ``steady``, sample by sample.

The truth is the pollster's journal (``tests/chaos/ledger``) and the rows of ``sample``; no cycle report is part of it. It counts
the cycles from the first one of which samples were stored to one of the last:

- a poll that *made* samples, and one that *raised*;
- an *absent* poll: one that was due, by the interval, between two that took place. As documented, a gap of less than 1.5
  intervals misses none, since the first cycle comes at once after a start.

A process that was killed may or may not have kept its last poll. If nothing of it is stored it does not count as a poll.

What the ledger says is what ``meter-completeness`` writes, which asks the same functions as ``GET /v2/completeness``.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg2

from meter.store.packing.packed_rows import unpacked
from tests.chaos.site import NeverCame
from tests.chaos.site import Site
from tests.chaos.site import until
from tests.chaos.waiting import Patience

METER = "chaos.steady"
INTERVAL = 2.0
COMMAND = Path(sys.executable).with_name("meter-completeness")
EPSILON = 0.001
REPORT_SECONDS = 90.0
SETTLE_SECONDS = 30.0

STORED = f"""
WITH plain AS MATERIALIZED (SELECT timestamp, series_id FROM sample)
SELECT resource.name, extract(epoch FROM timestamp)::float8
FROM (
    SELECT * FROM plain
    UNION ALL {unpacked(("timestamp", "series_id"), first="'-infinity'::timestamptz", last="'infinity'::timestamptz")}
) AS every JOIN series ON series.id = series_id JOIN resource ON resource.id = resource_id JOIN meter ON meter.id = meter_id
WHERE meter.name = 'chaos.steady'
"""

REPORTED = """
SELECT extract(epoch FROM max(last_due))::float8, (SELECT count(*) FROM waiting_report) FROM cycle_run WHERE 'steady' = ANY(pollsters)
"""

ABSENT = frozenset({"agent not running", "skipped"})
"""Causes of polls that did not take place: nothing ran, or an earlier cycle took too long."""


@dataclass(frozen=True, slots=True)
class Poll:
    """A line of the journal."""

    process: int
    at: float
    raised: bool


@dataclass(slots=True)
class Truth:
    """Cycles from ``start`` until before ``end``, and the samples stored of them by resource: the times."""

    start: float
    end: float
    made: list[float] = field(default_factory=list)
    raised: list[float] = field(default_factory=list)
    absent: list[float] = field(default_factory=list)
    stored: dict[str, set[float]] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """The number of samples that were made and are not stored."""
        return sum(len(self.lost_of(resource)) for resource in self.stored)

    def lost_of(self, resource: str) -> list[float]:
        stored = self.stored[resource]
        return [at for at in self.made if at not in stored]

    def missing_of(self, resource: str) -> list[float]:
        """Return the times of the samples of a resource that there should be and that are not stored."""
        return sorted([*self.lost_of(resource), *self.raised, *self.absent])


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the ledger says in the sum, and how it differs from the truth. ``lost`` samples were made and are not stored."""

    expected: int
    received: int
    causes: dict[str, int]
    lost: int
    differences: tuple[str, ...]

    def __str__(self) -> str:
        causes = "".join(f", {cause} {samples}" for cause, samples in self.causes.items())
        return f"{self.received}/{self.expected}{causes}" + ("" if not self.differences else " DIFFERS")


def polls_of(site: Site) -> list[Poll]:
    """Return the whole lines of the journal, in their order."""
    lines = site.steady_journal.read_text(encoding="ascii").split("\n")[:-1] if site.steady_journal.exists() else []
    return [Poll(int(process), float(at), what == "raised") for process, at, what in map(str.split, lines)]


def stored_times(site: Site) -> dict[str, set[float]]:
    """Return the times of the stored samples by resource."""
    stored: dict[str, set[float]] = {f"steady-{number:02}": set() for number in range(site.resources)}
    for resource, at in site.postgresql.execute(STORED, site.dsn):
        stored[resource].add(round(at, 6))
    return stored


def truth(site: Site, end: float) -> Truth:
    """Return the truth until before ``end``."""
    stored = stored_times(site)
    known = set().union(*stored.values())
    polls = polls_of(site)
    certain = [
        poll
        for poll, following in zip(polls, [*polls[1:], None], strict=True)
        if poll.at in known
        or poll.process in site.ended_in_order
        or (following is not None and following.process == poll.process)
    ]
    start = next(poll.at for poll in certain if not poll.raised)
    certain = sorted((poll for poll in certain if start <= poll.at < end), key=lambda poll: poll.at)
    found = Truth(start, end)
    found.made = [poll.at for poll in certain if not poll.raised]
    found.raised = [poll.at for poll in certain if poll.raised]
    for before, after in pairwise(certain):
        missed = max(0, math.ceil((after.at - before.at) / INTERVAL - 1.5 - 1e-6))
        found.absent += [before.at + n * INTERVAL for n in range(1, missed + 1)]
    found.stored = {resource: {at for at in times if start <= at < end} for resource, times in stored.items()}
    return found


def compare(site: Site, lost_cause: str = "") -> Comparison:
    """Compare, when the reports of all that has been polled so far have arrived.

    ``lost_cause``: the cause that the ledger must state of samples that were made and are not stored, "" if there may be none.
    """
    if site.ledger_until is not None:
        return _compared(site, site.ledger_until, lost_cause)
    last = _last_finished(site)
    Patience(site, REPORT_SECONDS).until(lambda: _reported(site, last), "the cycle reports")
    end = last + INTERVAL / 2
    patience = Patience(site, SETTLE_SECONDS)
    # Samples may still be on their way, and the collector counts rejected ones every five seconds.
    while _compared(site, end, lost_cause).differences and not patience.ended():
        time.sleep(1)
    return _compared(site, end, lost_cause)  # what was on its way when nothing was left to wait for is stored by now


def _last_finished(site: Site) -> float:
    """Return the time of the last poll after which the same process has begun another one."""
    before = len(polls_of(site))
    until(lambda: len(polls_of(site)) >= before + 3, "three more polls", 60)
    polls = polls_of(site)
    assert polls[-1].process == polls[-2].process
    return polls[-2].at


def _reported(site: Site, last: float) -> bool:
    try:
        [(reported, waiting)] = site.postgresql.execute(REPORTED, site.dsn)
    except psycopg2.Error:
        return False
    return reported is not None and reported >= last - EPSILON and not waiting


def ask(site: Site, start: float, end: float) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return what the ledger says about each resource, and the gaps."""
    period = ["--start", _text(start), "--end", _text(end)]
    ran = subprocess.run(
        [
            COMMAND,
            "--config",
            site.collector.config_file,
            *period,
            "--meter",
            METER,
            "--group",
            "resource_id",
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=site.collector.directory,
        env={**os.environ, **site.asking_environment},
    )
    if ran.returncode not in (0, 1) or "Traceback" in ran.stderr:
        raise NeverCame(f"an answer of meter-completeness: {ran.stderr[-2000:]}")
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    return {each["group"]: each for each in answers if "gap" not in each}, [each for each in answers if "gap" in each]


def _compared(site: Site, end: float, lost_cause: str) -> Comparison:
    real = truth(site, end)
    rows, gaps = ask(site, real.start, end)
    resources = real.stored.keys()
    differences = [] if rows.keys() == resources else [f"resources: {sorted(rows.keys() ^ resources)}"]
    causes: Counter[str] = Counter()
    for resource in sorted(rows.keys() & resources):
        row = rows[resource]
        causes.update(row["causes"])
        differences += differences_of_row(resource, row, real, lost_cause)
        # Late samples are counted by hour: those of the whole hour, of which the period is a part.
        late = len(real.stored[resource]) if site.late == "all" else 0
        if site.late != "some" and (row["late"] < late or bool(row["late"]) != bool(late)):
            differences.append(f"{resource}: late {row['late']}, in truth {late}")
    differences += differences_of_gaps(gaps, real, site.reports_are_lost)
    return Comparison(
        expected=sum(row["expected"] for row in rows.values()),
        received=sum(row["received"] for row in rows.values()),
        causes=dict(causes),
        lost=real.lost,
        differences=tuple(differences),
    )


def differences_of_row(resource: str, row: dict[str, Any], real: Truth, lost_cause: str) -> list[str]:
    """Return how the numbers of a resource differ from the truth."""
    stored, missing, lost = len(real.stored[resource]), len(real.missing_of(resource)), len(real.lost_of(resource))
    causes = row["causes"]
    expected_causes = {"poll failed": len(real.raised)}
    if lost_cause:
        expected_causes[lost_cause] = lost
    pairs = {
        "received": (row["received"] + row["unexpected"], stored),
        "missing": (row["missing"], missing),
        "absent": (sum(causes.get(cause, 0) for cause in ABSENT), len(real.absent)),
        "expected": (row["expected"] + row["unexpected"], stored + missing),
        "complete": (row["percent"] == 100.0, not missing),
        **{cause: (causes.get(cause, 0), samples) for cause, samples in expected_causes.items()},
    }
    found = [f"{resource}: {name} {told}, in truth {true}" for name, (told, true) in pairs.items() if told != true]
    other = set(causes) - ABSENT - {cause for cause, samples in expected_causes.items() if samples}
    return found + [f"{resource}: {causes[cause]} {cause}" for cause in sorted(other)]


def differences_of_gaps(gaps: list[dict[str, Any]], real: Truth, reports_are_lost: bool) -> list[str]:
    """Return how the gaps differ from the truth: each lists as many samples as are missing in its time.

    The samples of a cycle in which a process was killed may be stored although the cycle is not reported: it is in no gap. Where
    reports are lost, the ledger computes when cycles were due from the last one that was reported: that is up to half an interval
    off. So is a cycle of a busy machine from the time at which it was due, and it is the latter that begins and ends a gap.
    """
    found = []
    total = sum(len(real.missing_of(resource)) for resource in real.stored)
    told = sum(gap["samples"] for gap in gaps)
    if told != total:
        found.append(f"gaps: {told} samples, in truth {total}")
    for gap in gaps:
        begins, ends = _seconds(gap["start"]), math.inf if gap["end"] is None else _seconds(gap["end"])
        off = INTERVAL / 2 if reports_are_lost else EPSILON
        missing = [at for resource in gap["resources"] for at in real.missing_of(resource)]
        there = sum(begins - off <= at < ends - EPSILON for at in missing)
        there_if_late = sum(begins - INTERVAL / 2 <= at < ends - INTERVAL / 2 for at in missing)
        if gap["exact"] and gap["samples"] not in (there, there_if_late):
            found.append(f"gap {gap['start']} to {gap['end']} ({gap['gap']}): {gap['samples']}, in truth {there}")
    return found


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
