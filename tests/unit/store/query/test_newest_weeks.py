"""Lists are asked of the weeks that have gaps between final hours, or of all weeks if these gaps are too many."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest

from meter.store.query.newest_weeks import MAX_GAPS
from meter.store.query.newest_weeks import MAX_RANGES
from meter.store.query.newest_weeks import StoredWeeks

HOUR, WEEK = timedelta(hours=1), timedelta(weeks=1)
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
NOW = MONDAY + timedelta(days=5)
FIRST = MONDAY - 60 * WEEK


def stored(*gaps: datetime) -> StoredWeeks:
    """Return weeks with a gap of an hour at each of these times, and no final hour before the first week or after now."""
    ends = [(None, FIRST), (NOW, None)]
    return StoredWeeks(FIRST, MONDAY, None, [ends[0], *((at, at + HOUR) for at in sorted(gaps)), ends[1]])


def test_weeks_with_gaps_and_the_newest_two_are_asked() -> None:
    ends = stored(FIRST + 20 * WEEK, FIRST + 20 * WEEK + 3 * HOUR).ends(NOW)
    assert ends is not None
    assert ends.ranges == [
        (None, FIRST),
        (FIRST + 20 * WEEK, FIRST + 21 * WEEK),
        (MONDAY - WEEK, None),
    ]


@pytest.mark.parametrize(("gaps", "are_few"), [(MAX_RANGES - 2, True), (MAX_RANGES - 1, False)])
def test_gaps_in_many_weeks_are_not_told_apart(gaps: int, are_few: bool) -> None:
    ends = stored(*(FIRST + 2 * n * WEEK for n in range(1, gaps + 1))).ends(NOW)
    assert (ends is not None) == are_few


@pytest.mark.parametrize(("gaps", "are_all"), [(MAX_GAPS - 2, True), (MAX_GAPS - 1, False)])
def test_all_weeks_are_asked_if_only_the_first_gaps_are_known(gaps: int, are_all: bool) -> None:
    ends = stored(*(FIRST + 10 * WEEK + 2 * n * HOUR for n in range(gaps))).ends(NOW)
    assert (ends is not None) == are_all


def test_before_a_start_its_week_and_the_one_before_are_asked_and_earlier_ones_with_gaps() -> None:
    gaps = FIRST + 20 * WEEK, FIRST + 40 * WEEK
    before = stored(*gaps).before(FIRST + 30 * WEEK + 2 * HOUR, NOW)
    assert before is not None
    assert before.first == FIRST + 29 * WEEK
    assert before.all.ranges == [
        (None, FIRST),
        (FIRST + 20 * WEEK, FIRST + 21 * WEEK),
        (FIRST + 29 * WEEK, None),
    ]


@pytest.mark.parametrize(
    "start", [FIRST + 4 * WEEK, FIRST, datetime.min.replace(tzinfo=UTC)], ids=["early", "first", "year 1"]
)
def test_before_a_start_with_few_weeks_before_it_all_are_asked(start: datetime) -> None:
    assert stored().before(start, NOW) is None


def test_start_of_the_year_9999_has_weeks_before_it() -> None:
    assert stored().before(datetime.max.replace(tzinfo=UTC), NOW) is not None
