"""The windows of charts: how long they are, and where they begin."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest

from meter.api.errors import ApiError
from meter.api.web.meter_usage.windows import MAX_CHART_WINDOWS
from meter.api.web.meter_usage.windows import aligned_range
from meter.api.web.meter_usage.windows import chosen_window
from meter.api.web.meter_usage.windows import number_of_windows
from meter.api.web.meter_usage.windows import possible_windows
from meter.api.web.meter_usage.windows import usual_window
from meter.api.web.page_range import RANGES
from meter.api.web.page_range import PageRange

DAY = 86400


def between(start: str, end: str) -> PageRange:
    since, until = (datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (start, end))
    return PageRange(since, until, None)


def test_the_usual_window_of_each_range() -> None:
    windows = {name: usual_window(length.total_seconds()) for name, length in RANGES.items()}
    assert windows == {"1h": 60, "6h": 300, "24h": 3600, "7d": 21600, "30d": DAY, "90d": DAY, "365d": 7 * DAY}


@pytest.mark.parametrize("seconds", [1, 86400 * 366 * 50, 86400.0 * 366 * 9998])
def test_no_range_has_too_many_windows(seconds: float) -> None:
    assert seconds / usual_window(seconds) <= MAX_CHART_WINDOWS
    assert usual_window(seconds) > 0


def test_a_window_that_makes_too_many_is_refused() -> None:
    month = between("2026-11-01", "2026-12-01")
    assert chosen_window(month, 3600) == 3600
    with pytest.raises(ApiError, match="use 2592 or more"):
        chosen_window(month, 60)
    with pytest.raises(ApiError, match="must be positive"):
        chosen_window(month, 0)
    assert possible_windows(month) == [3600, 6 * 3600, DAY, 7 * DAY]


def test_a_range_is_extended_to_whole_windows() -> None:
    asked = between("2026-11-04T10:20:30", "2026-11-05T11:00:01")
    assert aligned_range(asked, 3600) == between("2026-11-04T10:00:00", "2026-11-05T12:00:00")
    assert aligned_range(asked, DAY) == between("2026-11-04", "2026-11-06")
    assert aligned_range(asked, 7 * DAY) == between("2026-11-02", "2026-11-09")  # Mondays
    whole = between("2026-11-04T10:00:00", "2026-11-04T12:00:00")
    assert aligned_range(whole, 3600) == whole
    assert number_of_windows(whole, 3600) == 2


def test_a_range_that_ends_now_keeps_its_length() -> None:
    asked = replace(between("2026-11-04T10:05:00", "2026-11-05T10:05:00"), name="24h")
    assert aligned_range(asked, 3600) == replace(between("2026-11-04T11:00:00", "2026-11-05T11:00:00"), name="24h")
    year = replace(between("2025-11-05T11:00:00", "2026-11-05T11:00:00"), name="365d")
    assert aligned_range(year, 7 * DAY) == replace(between("2025-11-03", "2026-11-09"), name="365d")


def test_the_ends_of_the_calendar_stay() -> None:
    first = PageRange(datetime.min.replace(tzinfo=UTC), datetime(2, 1, 1, tzinfo=UTC), None)
    assert aligned_range(first, 7 * DAY).start >= first.start
    last = datetime.max.replace(tzinfo=UTC)
    assert aligned_range(PageRange(last - timedelta(days=1), last, None), 7 * DAY).end == last
