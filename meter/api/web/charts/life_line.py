"""The life line of a resource: its states, flavors or sizes, and owners over time, as bars that a template draws."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from meter.api.web.charts.time_axis import AxisTick
from meter.api.web.charts.time_axis import axis_ticks
from meter.api.web.charts.time_axis import position_of
from meter.api.web.formats import number
from meter.api.web.formats import utc
from meter.completeness.lives.kinds import OFF
from meter.completeness.lives.kinds import RUNNING
from meter.completeness.lives.observation import UNKNOWN
from meter.completeness.lives.observation import LifeSegment

MIN_WIDTH = 0.25
"""Percent of the width: neighbouring bars that are narrower are drawn as one."""

FAULTS = frozenset({"error", "ERROR", "error_deleting", "error_extending", "error_restoring", "killed"})
"""States in which a resource is not usable."""


@dataclass(frozen=True, slots=True)
class LifeBar:
    """A bar from ``left``, ``width`` wide, in percent of the width. ``look`` is the name of its class, ``title`` says what it is and when."""

    left: float
    width: float
    look: str
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class LifeLane:
    """The bars of one property of the resource, oldest first, without overlaps."""

    name: str
    bars: Sequence[LifeBar]


@dataclass(frozen=True, slots=True)
class LifeLine:
    """The lanes over one time axis; ``summary`` describes them in a sentence."""

    start: datetime
    end: datetime
    lanes: Sequence[LifeLane]
    ticks: Sequence[AxisTick]
    summary: str


@dataclass(frozen=True, slots=True)
class _Interval:
    value: str
    began: datetime
    ended: datetime
    lasts: bool


def life_line(
    segments: Sequence[LifeSegment],
    start: datetime,
    end: datetime,
    now: datetime,
    *,
    unit: str | None = None,
    owner_name: Callable[[str], str | None] = lambda _: None,
) -> LifeLine:
    """Return the life line of ``segments``, oldest first, from ``start`` to ``end``. Nothing is drawn of the time after ``now``.

    ``unit`` is that of sizes; ``owner_name`` returns the name of a project by its id.
    """

    def owner(each: LifeSegment) -> str | None:
        return None if each.project_id is None else owner_name(each.project_id) or each.project_id

    def flavor(each: LifeSegment) -> str | None:
        if each.size is not None:
            return f"{number(each.size)} {unit or ''}".rstrip()
        return each.flavor

    last = min(end, now)
    lanes = []
    for name, value, look in (
        ("State", lambda each: each.state, state_look),
        ("Flavor or size", flavor, _plain_look),
        ("Project", owner, _plain_look),
    ):
        bars = _bars(_intervals(segments, value, start, last), start, end, look)
        if bars:
            lanes.append(LifeLane(name, bars))
    return LifeLine(start, end, lanes, axis_ticks(start, end), _summary(segments))


def state_look(state: str) -> str:
    """Return the class of bars of a state."""
    if state == UNKNOWN:
        return "unknown"
    if state in FAULTS:
        return "fault"
    if state in RUNNING:
        return "running"
    return "off" if state in OFF else "other"


def _plain_look(value: str) -> str:
    return "unknown" if value == UNKNOWN else "plain"


def _intervals(
    segments: Sequence[LifeSegment], value: Callable[[LifeSegment], str | None], start: datetime, last: datetime
) -> list[_Interval]:
    """Return how long each value lasted between ``start`` and ``last``; equal neighbours are one."""
    found: list[_Interval] = []
    for each in segments:
        began, ended = max(each.began, start), last if each.ended is None else min(each.ended, last)
        text = value(each)
        if text is None or ended <= began:
            continue
        if found and found[-1].value == text and found[-1].ended == began:
            began = found.pop().began
        found.append(_Interval(text, began, ended, each.ended is None))
    return found


def _bars(intervals: Sequence[_Interval], start: datetime, end: datetime, look: Callable[[str], str]) -> list[LifeBar]:
    bars: list[LifeBar] = []
    short: list[_Interval] = []

    def add_short() -> None:
        if short:
            left, right = position_of(short[0].began, start, end), position_of(short[-1].ended, start, end)
            first = short[0]
            single = len(short) == 1
            title = _title(first) if single else f"{len(short)} changes, {utc(first.began)} to {utc(short[-1].ended)}"
            shown = look(first.value) if single else "several"
            bars.append(LifeBar(left, max(round(right - left, 3), MIN_WIDTH), shown, "", title))
            short.clear()

    for each in intervals:
        left, right = position_of(each.began, start, end), position_of(each.ended, start, end)
        if short and (right - left >= MIN_WIDTH or position_of(short[0].began, start, end) + MIN_WIDTH <= left):
            add_short()
        if right - left < MIN_WIDTH:
            short.append(each)
        else:
            bars.append(LifeBar(left, round(right - left, 3), look(each.value), each.value, _title(each)))
    add_short()
    return bars


def _title(each: _Interval) -> str:
    return f"{each.value}, {utc(each.began)} to {'now' if each.lasts else utc(each.ended)}"


def _summary(segments: Sequence[LifeSegment]) -> str:
    if not segments:
        return "Nothing is known of this time."
    last = segments[-1]
    if last.ended is not None:
        return f"Ended on {utc(last.ended)}, last state {last.state}."
    return f"{last.state} since {utc(last.began)}."
