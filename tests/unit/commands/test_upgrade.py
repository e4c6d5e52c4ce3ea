"""What ``meter-db upgrade`` shows: the step in progress and its seconds on a terminal, and nothing where nobody looks."""

from __future__ import annotations

import io
import sys

import pytest
from twisted.internet.task import Clock

from meter.commands.upgrade import UpgradeProgress
from meter.commands.upgrade import plan_text


class Terminal(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_step_and_its_seconds_are_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    written = Terminal(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", written)
    clock = Clock()
    progress = UpgradeProgress(clock)
    with progress.shown():
        progress.tell("waiting for locks")
        clock.pump([1, 1])
        progress.tell("step 17 of 18 (archived_weeks)")
        clock.advance(1)
    lines = [text for text in written.getvalue().split("\r\x1b[K") if text]

    expected = [
        *(f"waiting for locks, {n} s" for n in range(3)),
        *(f"step 17 of 18 (archived_weeks), {n} s" for n in (0, 1)),
    ]
    assert lines == (expected if is_terminal else [])
    assert clock.getDelayedCalls() == []
    assert not is_terminal or written.getvalue().endswith("\r\x1b[K")


def test_interrupted_upgrade_leaves_no_line_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Terminal(is_terminal=True)
    monkeypatch.setattr(sys, "stderr", written)
    progress = UpgradeProgress(Clock())

    def interrupted() -> None:
        with progress.shown():
            progress.tell("step 3 of 18 (voiding_and_audit_log)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert written.getvalue().endswith("\r\x1b[K")


def test_plan_says_why_the_database_cannot_be_upgraded_and_what_would_be_done() -> None:
    step = {
        "step": "0003 voiding_and_audit_log",
        "does": "Makes the audit log.",
        "locks": {"sample": "ACCESS EXCLUSIVE"},
        "reads_rows": 2_000_000,
        "reads_bytes": 250_000_000,
        "writes_bytes": 0,
        "duration": "seconds",
        "earlier_daemons": "go on",
    }
    plan = {
        "schema_version": 2,
        "required_schema_version": 3,
        "problem": "the role may not",
        "duration": "seconds",
        "assumed_rates": "100 MB/s read, 20 MB/s written",
        "in_use_by": ["pg_dump (pid 7, role backup, in a transaction since noon)"],
        "connected_daemons": [],
        "steps": [step],
    }

    assert plan_text(plan).splitlines() == [
        "problem: the role may not",
        "from schema version 2 to 3, in one transaction; takes seconds (assuming 100 MB/s read, 20 MB/s written)",
        "daemons that are connected: none",
        "would be waited for now: pg_dump (pid 7, role backup, in a transaction since noon)",
        "step 0003 voiding_and_audit_log, seconds",
        "    Makes the audit log.",
        "    locks until the upgrade is over: sample (ACCESS EXCLUSIVE)",
        "    reads 2,000,000 rows, 250.0 MB; writes 0.0 MB",
        "    daemons of earlier versions: go on",
    ]
