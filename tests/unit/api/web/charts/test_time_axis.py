"""The time axis: round times and their positions."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest

from meter.api.web.charts.time_axis import axis_ticks
from meter.api.web.charts.time_axis import position_of

START = datetime(2026, 11, 22, 12, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("length", "labels"),
    [
        (timedelta(hours=1), ["11-22 12:15", "11-22 12:30", "11-22 12:45", "11-22 13:00"]),
        (timedelta(days=1), ["11-22 18:00", "11-23 00:00", "11-23 06:00", "11-23 12:00"]),
        (timedelta(days=7), ["2026-11-23", "2026-11-25", "2026-11-27", "2026-11-29"]),
    ],
)
def test_ticks_are_round_times(length: timedelta, labels: list[str]) -> None:
    assert [each.label for each in axis_ticks(START, START + length)] == labels


@pytest.mark.parametrize("days", [0.001, 1, 30, 400, 4000])
def test_ticks_are_few_and_on_the_axis(days: float) -> None:
    ticks = axis_ticks(START, START + timedelta(days=days))
    assert len(ticks) <= 5
    assert all(0 <= each.position <= 100 for each in ticks)


def test_positions_stay_on_the_axis() -> None:
    end = START + timedelta(hours=2)
    assert position_of(START + timedelta(hours=1), START, end) == 50
    assert position_of(START - timedelta(hours=1), START, end) == 0
    assert position_of(end + timedelta(hours=1), START, end) == 100
    assert position_of(START, START, START) == 0
