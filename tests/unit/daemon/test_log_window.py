"""A window of time in which the lines of a log are counted."""

from __future__ import annotations

from meter.daemon.log_window import LogWindow


def test_window_begins_with_its_first_time_and_again_after_its_end():
    window = LogWindow(60.0)
    assert [window.begins(now) for now in (5.0, 5.0, 64.9, 65.0, 66.0)] == [True, False, False, True, False]


def test_window_begins_when_the_clock_is_set_back():
    window = LogWindow(60.0)
    assert [window.begins(now) for now in (1000.0, 10.0, 11.0)] == [True, True, False]
