"""Ranges of ids that are looked for together."""

from __future__ import annotations

from datetime import UTC
from datetime import date
from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.message_ids import new_message_id
from meter.sample_identity import compared_range
from meter.sample_identity import week_of
from meter.store.write.duplicates import MAX_ID_RANGES
from meter.store.write.duplicates import id_ranges
from meter.store.write.duplicates import nearby_parameters
from meter.store.write.duplicates import some_ids


def test_ids_that_are_made_together_are_in_few_ranges():
    assert len(id_ranges([new_message_id() for _ in range(1000)])) <= MAX_ID_RANGES


@given(ids=st.lists(st.uuids().map(str), max_size=50))
def test_every_id_is_in_a_range_and_ranges_begin_and_end_with_an_id(ids):
    ranges = id_ranges(ids)

    assert all(any(first <= id <= last for first, last in ranges) for id in ids)
    assert {each for range_ in ranges for each in range_} <= set(ids)
    assert all(one[1] < other[0] for one, other in pairwise(ranges))


def test_the_weeks_before_and_after_are_looked_through():
    week = date(2026, 11, 16)
    first, last = compared_range(week)
    begin, end = datetime(2026, 11, 16, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)

    assert nearby_parameters(week, [("a", "b"), ("c", "d")]) == [
        ["a", "c"],
        ["b", "d"],
        first,
        begin,
        end,
        last,
        first,
        last,
    ]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 100, 1000])
def test_some_ids_at_equal_distances_are_looked_for_in_the_week_itself(count):
    ids = [str(n) for n in range(count)]
    some, begin, end = some_ids(date(2026, 11, 16), ids)
    assert (begin, end) == (datetime(2026, 11, 16, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC))
    assert some[0] == "0"
    assert 8 <= len(some) <= 16 or some == ids
    assert all(set(some) & set(ids[first : first + 100]) for first in range(0, count, 100))


def test_the_first_and_the_last_week_of_all_have_parameters():
    for time in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        *_, first, begin, end, last, _, _ = nearby_parameters(week_of(time), [])
        assert first <= begin <= end <= last
