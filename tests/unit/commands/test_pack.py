"""The command lines of ``meter-db pack`` and ``unpack``, and the progress that they show."""

from __future__ import annotations

import io
import sys
from datetime import date

import pytest
from twisted.internet.task import Clock
from twisted.python import usage

from meter.commands.pack import PackOptions
from meter.commands.pack import SampleProgress
from meter.commands.pack import UnpackOptions


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (PackOptions, ["2026-11-03"]),
        (PackOptions, ["yesterday"]),
        (PackOptions, ["--after-days", "many"]),
        (UnpackOptions, []),
        (UnpackOptions, ["2026-11-02", "2026-11-09"]),
        (UnpackOptions, ["2026-11-04"]),
    ],
)
def test_week_is_named_by_its_monday(options, arguments):
    with pytest.raises(usage.UsageError):
        options().parseOptions(arguments)


def test_weeks_are_read_as_dates():
    options = PackOptions()
    options.parseOptions(["--after-days", "2.5", "2026-11-02", "2026-11-09"])
    assert (options["weeks"], options["after-days"]) == ([date(2026, 11, 2), date(2026, 11, 9)], 2.5)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_says_what_is_done_at_which_rate_and_how_long_the_rest_takes(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = Clock()
    progress = SampleProgress(clock, "packed", 1_000_000)
    clock.advance(10)
    progress.add(0)
    assert terminal.getvalue().endswith("packed 0 of 1,000,000 samples")
    progress.add(100_000)
    assert terminal.getvalue().endswith("packed 100,000 of 1,000,000 samples, 10,000/s, 1 min 30 s left")
    clock.advance(10)
    progress.add(900_000)
    assert terminal.getvalue().endswith("packed 1,000,000 of 1,000,000 samples, 50,000/s, 0 s left")
    progress.end()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_progress_without_a_known_total_says_no_time_left(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = Clock()
    progress = SampleProgress(clock, "copied", 0)
    clock.advance(10)
    progress.add(100_000)
    assert terminal.getvalue().endswith("copied 100,000 samples, 10,000/s")


def test_nothing_is_shown_where_there_is_no_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = SampleProgress(Clock(), "packed", 0)
    progress.add(10)
    progress.end()
    assert (stream.getvalue(), progress.done) == ("", 10)
