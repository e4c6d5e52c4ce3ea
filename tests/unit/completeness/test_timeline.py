"""Timelines: which cycles were due, ran, or were missed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.completeness.ledger.timeline import CycleRun
from meter.completeness.ledger.timeline import Timeline
from meter.completeness.ledger.timeline import missed_cycles

CPU = frozenset({"cpu"})


@pytest.mark.parametrize(
    ("intervals", "missed"),
    [(0.1, 0), (1.0, 0), (1.49, 0), (1.5, 0), (1.51, 1), (2.0, 1), (2.5, 1), (2.6, 2), (10.0, 9)],
)
def test_gap_shorter_than_one_and_a_half_intervals_misses_nothing(intervals: float, missed: int) -> None:
    assert missed_cycles(intervals * 300, 300) == missed


def test_cycles_of_runs_and_gaps_are_counted_once() -> None:
    timeline = Timeline(300, [CycleRun(0, 900, 4, CPU), CycleRun(1800, 2100, 2, CPU)])

    dues = list(timeline.dues(0, 2400))

    assert [(due.at, due.run is not None) for due in dues] == [
        (0, True),
        (300, True),
        (600, True),
        (900, True),
        (1200, False),
        (1500, False),
        (1800, True),
        (2100, True),
    ]
    assert timeline.count(0, 2400) == 8
    assert timeline.count(300, 300) == timeline.count(600, 300) == 0


def test_cycles_go_on_after_the_last_run_and_do_not_precede_the_first() -> None:
    timeline = Timeline(300, [CycleRun(1200, 1500, 2, CPU)])
    assert [due.at for due in timeline.dues(0, 2400)] == [1200, 1500, 1800, 2100]
    assert timeline.count(0, 1200) == 0


def test_first_cycle_after_a_start_comes_at_once() -> None:
    timeline = Timeline(300, [CycleRun(0, 600, 3, CPU), CycleRun(1049, 1500, 3, CPU)])
    assert [due.at for due in timeline.dues(0, 1501)] == [0, 300, 600, 1049, 1200, 1500]


@pytest.mark.parametrize("late", [-0.004, 0.0, 0.003, 0.9])
def test_series_that_begins_with_a_cycle_has_that_cycle_whenever_its_timer_fired(late: float) -> None:
    timeline = Timeline(2, [CycleRun(2.905, 44.001, 22, CPU)])

    begins = timeline.nearest_due(4.0 + late)

    assert timeline.count(begins, 100) == timeline.count(2.905, 100) - 1
    assert timeline.nearest_due(2.905) == 2.905


def test_missed_cycle_ends_when_the_next_one_ran() -> None:
    timeline = Timeline(300, [CycleRun(0, 300, 2, CPU), CycleRun(1000, 1200, 2, CPU)])
    assert [(due.at, due.until) for due in timeline.dues(301, 1000)] == [(600, 1000)]


@pytest.mark.parametrize("corrected", [False, True])
def test_cycles_after_a_clock_was_set_back_are_counted_beside_those_of_the_same_time_and_miss_none(
    corrected: bool,
) -> None:
    """Cycles ran until 7200 s; then the clock was set back to 3700 s, and perhaps forward again, to 7500 s, after two cycles."""
    again = (
        [CycleRun(3700, 4000, 2, CPU), CycleRun(7500, 8100, 3, CPU)] if corrected else [CycleRun(3700, 8200, 16, CPU)]
    )
    timeline = Timeline(300, [CycleRun(0, 7200, 25, CPU), *again])

    dues = list(timeline.dues(0, 8100))

    assert all(due.run is not None for due in dues)
    assert timeline.count(0, 8250) == 25 + (5 if corrected else 16)
    assert timeline.count(3600, 4200) == 2 + 2
    assert timeline.count(6900, 7501) == (3 if corrected else 4)


def test_cycle_is_missed_after_the_last_of_overlapping_runs() -> None:
    timeline = Timeline(300, [CycleRun(0, 7200, 25, CPU), CycleRun(3700, 4000, 2, CPU), CycleRun(8100, 8400, 2, CPU)])
    assert [due.at for due in timeline.dues(4100, 8200) if due.run is None] == [7500, 7800]
    assert timeline.last == CycleRun(8100, 8400, 2, CPU)


def test_agent_without_runs_has_no_cycles() -> None:
    timeline = Timeline(300, [])
    assert timeline.count(0, 1e9) == 0
    assert timeline.last is None


@given(
    gaps=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 12)), min_size=1, max_size=6),
    edges=st.lists(st.integers(-10, 400), min_size=2, max_size=8),
)
def test_counts_of_parts_add_up_to_the_cycles(gaps: list[tuple[int, int]], edges: list[int]) -> None:
    runs, at = [], 0
    for cycles, missed in gaps:
        runs.append(CycleRun(at * 300, (at + cycles - 1) * 300, cycles, CPU))
        at += cycles + missed
    timeline = Timeline(300, runs)
    times = sorted(edge * 100.0 for edge in edges)
    parts = [timeline.count(start, end) for start, end in pairwise(times)]

    assert sum(parts) == timeline.count(times[0], times[-1])
    # Aligned cycles: one is due at each multiple of the interval, from the first run on.
    assert sum(parts) == sum(300 * n >= 0 and times[0] <= 300 * n < times[-1] for n in range(200))
    assert [due.at for due in timeline.dues(times[0], times[-1])] == [
        300 * n for n in range(200) if times[0] <= 300 * n < times[-1]
    ]
