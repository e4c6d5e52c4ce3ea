"""Existence on a day: exact seconds, begun hours, sizes, and what is not known."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.completeness.lives.observation import LifeSegment
from meter.rating.usage.existence import existence
from meter.rating.usage.existence import existence_spans
from meter.rating.usage.existence import rounded_up
from tests.usage_books import sku

START = datetime(2026, 10, 10, tzinfo=UTC)
FINISH = START + timedelta(days=1)
SECONDS = Fraction(1)


def segment(first, last=None, state="active", *, flavor="small", size=None, project="p1", told_by="event"):
    return LifeSegment(
        state=state,
        flavor=flavor,
        size=size,
        project_id=project,
        user_id=None,
        name=None,
        began=START + timedelta(seconds=first),
        began_told_by=told_by,
        began_within=0.0,
        ended=None if last is None else START + timedelta(seconds=last),
    )


def used(of, *segments, finish=FINISH):
    found = existence(of, segments, START, finish)
    return {(project, *dict(values).values()): each for (project, values), each in found.items()}


def vm(**fields):
    return sku("vm", "exists", resource_kind="instance", factor=SECONDS, **fields)


def test_only_the_time_within_the_day_counts():
    assert used(vm(), segment(-50, 100.25), segment(86_399, None)) == {("p1",): (Decimal("101.250000000"), 0)}


def test_states_are_selected_and_unknown_is_unmetered():
    told = (segment(0, 10), segment(10, 25, "stopped"), segment(25, 60, "unknown", told_by="silence"), segment(60, 61))
    assert used(vm(states=("active",)), *told) == {("p1",): (Decimal(11), 35)}
    assert used(vm(), *told) == {("p1",): (Decimal(26), 35)}


def test_a_state_that_nobody_tells_matters_only_where_states_are_selected():
    assert used(vm(), segment(0, 10, "unknown")) == {("p1",): (Decimal(10), 0)}
    assert used(vm(states=("active",)), segment(0, 10, "unknown")) == {("p1",): (Decimal(0), 10)}


def test_a_size_is_multiplied_and_told_without_exponent():
    of = sku("v", "exists", resource_kind="volume", factor=SECONDS, times_size=True, by=("size",))
    assert used(of, segment(0, 10, size=100.0), segment(10, 20, size=0.1), segment(20, 30)) == {
        ("p1", "100"): (Decimal(1000), 0),
        ("p1", "0.1"): (Decimal(1), 0),
        ("p1", ""): (Decimal(0), 10),
    }


@pytest.mark.parametrize(("started", "seconds"), [("hour", 7200), ("minute", 120)])
def test_a_begun_hour_or_minute_counts_once_for_whoever_has_it_first(started, seconds):
    unit = {"hour": 3600, "minute": 60}[started]
    told = (
        segment(unit - 1, unit + 1),
        segment(unit + 2, unit + 3, flavor="large"),
        segment(unit + 4, 2 * unit, project="p2"),
        segment(2 * unit, 2 * unit + 1, project="p2"),
    )
    assert used(vm(started=started), *told) == {("p1",): (Decimal(seconds), 0), ("p2",): (Decimal(unit), 0)}


def test_the_present_day_counts_until_now():
    assert used(vm(), segment(0), finish=START + timedelta(seconds=90)) == {("p1",): (Decimal(90), 0)}


def test_quantities_are_rounded_once_half_to_even():
    third = sku("vm", "exists", resource_kind="instance", factor=Fraction(1, 3))
    assert used(third, segment(0, 1), segment(5, 6), segment(7, 8)) == {("p1",): (Decimal("1.000000000"), 0)}
    half = sku("vm", "exists", resource_kind="instance", factor=Fraction(5, 10**10))
    assert used(half, segment(0, 1)) == {("p1",): (Decimal("0E-9"), 0)}
    assert used(half, segment(0, 3)) == {("p1",): (Decimal("0.000000002"), 0)}


@pytest.mark.parametrize(
    ("value", "multiple", "expected"),
    [
        ("0.1", "0.25", "0.25"),
        ("0.25", "0.25", "0.25"),
        ("0.250000001", "0.25", "0.5"),
        ("0", "1", "0"),
        ("7", "3", "9"),
    ],
)
def test_a_quantity_is_rounded_up_to_a_multiple(value, multiple, expected):
    assert rounded_up(Decimal(value), Decimal(multiple)) == Decimal(expected)


CUTS = st.lists(st.integers(-(10**11), 2 * 10**11), min_size=2, max_size=8, unique=True).map(sorted)


@given(CUTS, st.randoms(use_true_random=False))
def test_the_parts_of_a_life_are_the_whole_in_any_order(cuts, rng):
    whole = segment(cuts[0] / 1e6, cuts[-1] / 1e6)
    parts = [segment(a / 1e6, b / 1e6) for a, b in pairwise(cuts)]
    rng.shuffle(parts)
    assert used(vm(), *parts) == used(vm(), whole)
    assert used(vm(started="hour"), *parts) == used(vm(started="hour"), whole)


@given(CUTS)
def test_the_days_of_a_life_are_the_whole(cuts):
    several = [segment(a / 1e6, b / 1e6, flavor=str(n)) for n, (a, b) in enumerate(pairwise(cuts))]
    by_day = sum(
        each[0]
        for n in range(-2, 4)
        for each in existence(vm(), several, START + timedelta(days=n), START + timedelta(days=n + 1)).values()
    )
    assert by_day == Decimal(cuts[-1] - cuts[0]) / 10**6


def test_spans_join_states_and_keep_owners_and_times_off_apart():
    spans = existence_spans(
        [
            *(segment(0, 5), segment(5, 10, "paused"), segment(10, 15, "stopped"), segment(15, 20, "shelved")),
            *(segment(20, 30, project="p2"), segment(50)),
        ]
    )
    assert [(each.project_id, each.began, each.ended, each.is_off) for each in spans] == [
        ("p1", START, START + timedelta(seconds=10), False),
        ("p1", START + timedelta(seconds=10), START + timedelta(seconds=20), True),
        ("p2", START + timedelta(seconds=20), START + timedelta(seconds=30), False),
        ("p1", START + timedelta(seconds=50), None, False),
    ]
