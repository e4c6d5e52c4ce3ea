"""The time axis of pictures that the server draws: round times in UTC, and their positions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta

STEPS = (60, 300, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400, 14 * 86400)
"""Seconds between ticks, from which the axis chooses."""


@dataclass(frozen=True, slots=True)
class AxisTick:
    """A labelled time; ``position`` is its place in percent of the width."""

    position: float
    label: str


def axis_ticks(start: datetime, end: datetime, count: int = 5) -> list[AxisTick]:
    """Return at most ``count`` ticks at round times between ``start`` and ``end``."""
    length = (end - start).total_seconds()
    step = next((each for each in STEPS if length / each <= count), None)
    if step is None:
        step = (int(length / count) // 86400 + 1) * 86400
    form = "%Y-%m-%d" if step >= 86400 else "%m-%d %H:%M"
    first = -(-int(start.timestamp()) // step) * step
    ticks: list[AxisTick] = []
    while len(ticks) < count and (at := datetime.fromtimestamp(first, UTC)) <= end:
        ticks.append(AxisTick(position_of(at, start, end), f"{at:{form}}"))
        first += step
    return ticks


def position_of(at: datetime, start: datetime, end: datetime) -> float:
    """Return the place of ``at`` in percent of the width, within the axis."""
    share = (at - start) / max(end - start, timedelta(microseconds=1))
    return round(100 * min(1.0, max(0.0, share)), 3)
