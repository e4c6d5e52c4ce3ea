"""The life line: states, sizes, owners and the end of a resource as bars."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest

from meter.api.web.charts.life_line import LifeLane
from meter.api.web.charts.life_line import LifeLine
from meter.api.web.charts.life_line import life_line
from meter.api.web.charts.life_line import state_look
from meter.completeness.lives.observation import LifeSegment

START = datetime(2026, 11, 22, tzinfo=UTC)
END = START + timedelta(hours=100)


def segment(began: float, ended: float | None, state: str = "active", **changes: Any) -> LifeSegment:
    """Return a segment, with times in hours after the start."""
    values: dict[str, Any] = {
        "flavor": "m1",
        "size": None,
        "project_id": "blue",
        "user_id": None,
        "name": None,
        "began_told_by": "event",
        "began_within": 0.0,
        **changes,
    }
    last = None if ended is None else START + timedelta(hours=ended)
    return LifeSegment(state=state, began=START + timedelta(hours=began), ended=last, **values)


def line(*segments: LifeSegment, now: datetime = END, **changes: Any) -> LifeLine:
    return life_line(segments, START, END, now, **changes)


def bars(lane: LifeLane) -> list[tuple[float, float, str, str]]:
    return [(each.left, each.width, each.look, each.label) for each in lane.bars]


def test_states_flavors_and_owners_are_lanes_and_equal_neighbours_one_bar() -> None:
    states, flavors, projects = line(
        segment(10, 20), segment(20, 50, "stopped"), segment(50, 90, "stopped", flavor="m2", project_id="red")
    ).lanes
    assert bars(states) == [(10, 10, "running", "active"), (20, 70, "off", "stopped")]
    assert bars(flavors) == [(10, 40, "plain", "m1"), (50, 40, "plain", "m2")]
    assert [each.label for each in projects.bars] == ["blue", "red"]


def test_time_of_which_nothing_is_known_is_shown_as_unknown_and_not_as_a_state() -> None:
    states = line(segment(0, 40), segment(40, 60, "unknown"), segment(60, None)).lanes[0]
    assert [each[2] for each in bars(states)] == ["running", "unknown", "running"]


def test_nothing_is_drawn_before_the_begin_nor_after_the_end_nor_of_the_future() -> None:
    drawn = line(segment(-50, None), now=START + timedelta(hours=60))
    assert bars(drawn.lanes[0]) == [(0, 60, "running", "active")]
    assert drawn.lanes[0].bars[0].title.endswith(" to now")
    assert line(segment(200, None)).lanes == []


def test_deletion_is_told() -> None:
    assert line(segment(10, 20)).summary == "Ended on 2026-11-22 20:00:00 UTC, last state active."
    assert line(segment(10, None)).summary == "active since 2026-11-22 10:00:00 UTC."


def test_sizes_have_their_unit() -> None:
    lanes = line(segment(0, 50, size=10.0, flavor=None), unit="GiB").lanes
    assert [each.label for each in lanes[1].bars] == ["10 GiB"]


def test_owner_has_its_name_if_that_is_known() -> None:
    lanes = line(segment(0, 50), segment(50, 60, project_id="x"), owner_name={"blue": "Blue Ltd"}.get).lanes
    assert [each.label for each in lanes[2].bars] == ["Blue Ltd", "x"]


def test_thousands_of_short_states_are_few_bars_of_visible_width() -> None:
    many = [segment(n / 40, (n + 1) / 40, "active" if n % 2 else "stopped") for n in range(4_000)]
    states = line(*many).lanes[0]
    assert len(states.bars) <= 401
    assert all(each.width >= 0.25 for each in states.bars)
    assert "changes" in states.bars[0].title


@pytest.mark.parametrize(
    ("state", "look"),
    [("active", "running"), ("suspended", "off"), ("error", "fault"), ("in-use", "other"), ("unknown", "unknown")],
)
def test_looks_of_states(state: str, look: str) -> None:
    assert state_look(state) == look
