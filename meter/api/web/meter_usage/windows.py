"""The windows of a chart: how long they are, and where they begin, so that rollups serve them."""

from __future__ import annotations

import math
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from meter.api.errors import invalid_input
from meter.api.web.page_range import WINDOWS
from meter.api.web.page_range import PageRange

USUAL_WINDOWS = ((2 * 3600, 60), (12 * 3600, 300), (2 * 86400, 3600), (8 * 86400, 6 * 3600), (100 * 86400, 86400))
"""Lengths of ranges at most, and of their windows if the URL does not say it: from a day on hours and days, which rollups serve."""

MAX_CHART_WINDOWS = 1000
"""Windows of a chart at most."""

MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
"""Where windows are counted from: those of a week begin on Mondays, those of a day at midnight UTC."""


def usual_window(seconds: float) -> int:
    """Return the length of windows in a range of ``seconds`` if the URL does not say it: weeks in the longest ranges."""
    week = WINDOWS[-1]
    weeks = math.ceil(seconds / MAX_CHART_WINDOWS / week) * week
    return next((window for longest, window in USUAL_WINDOWS if seconds <= longest), weeks)


def chosen_window(range: PageRange, seconds: int | None) -> int:
    """Return the length of windows, ``seconds`` if it is given; :class:`~meter.api.errors.ApiError` 400 for a wrong one."""
    if seconds is None:
        return usual_window(range.seconds)
    if seconds < 1:
        raise invalid_input("window", seconds, "it must be positive.")
    if range.seconds > seconds * MAX_CHART_WINDOWS:
        least = math.ceil(range.seconds / MAX_CHART_WINDOWS)
        raise invalid_input("window", seconds, f"a chart has at most {MAX_CHART_WINDOWS} windows: use {least} or more.")
    return seconds


def possible_windows(range: PageRange) -> list[int]:
    """Return the usual lengths that a page offers for ``range``."""
    return [each for each in WINDOWS if each <= range.seconds <= each * MAX_CHART_WINDOWS]


def aligned_range(range: PageRange, window: int) -> PageRange:
    """Return ``range``, extended on both sides to whole windows; one that ends now has as many as its length has."""
    length = timedelta(seconds=window)
    try:
        end = range.end + (MONDAY - range.end) % length
        start = range.start if range.name is None else end - (range.end - range.start)
        start -= (start - MONDAY) % length
    except OverflowError:
        return range  # in the first or the last days of the calendar
    return PageRange(start, end, range.name)


def number_of_windows(range: PageRange, window: int) -> int:
    """Return how many windows of ``window`` seconds cover ``range``."""
    return math.ceil(range.seconds / window)
