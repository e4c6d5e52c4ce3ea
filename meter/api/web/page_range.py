"""The time range of a page, from its URL: one of the usual ranges up to now, a month, or two times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.request.arguments import Parameter
from meter.api.request.times import parse_time_argument

RANGES: Mapping[str, timedelta] = {
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
    "365d": timedelta(days=365),
}
"""Lengths of the ranges that end now, by name."""

WINDOWS = (60, 300, 900, 3600, 6 * 3600, 86400, 7 * 86400)
"""Lengths of windows in seconds."""

MAX_WINDOWS = 400
"""Windows of a chart: more than its pixels show."""

RANGE = Parameter("range", "string", f"A range that ends now: {', '.join(RANGES)}.")
START = Parameter("start", "string", "Start of the range (inclusive).")
END = Parameter("end", "string", "End of the range (exclusive).")
WINDOW = Parameter("window", "integer", "Length of a window of the chart in seconds.")


@dataclass(frozen=True, slots=True)
class PageRange:
    """``start <= time < end``, and the name of the range if it ends now."""

    start: datetime
    end: datetime
    name: str | None

    @property
    def seconds(self) -> float:
        """The length."""
        return (self.end - self.start).total_seconds()

    @property
    def window(self) -> int:
        """The shortest length of windows that makes at most :data:`MAX_WINDOWS`, from an hour on where rollups answer."""
        return next((each for each in WINDOWS if self.seconds / each <= MAX_WINDOWS), WINDOWS[-1])


def page_range(arguments: Mapping[str, Any], now: float, default: str = "24h") -> PageRange:
    """Return the range that ``range``, ``start`` and ``end`` name; :class:`ApiError` 400 if they name none.

    A range that ends now ends at the next full window, so that charts have whole windows and rollups serve them.
    """
    name, start, end = arguments["range"], arguments["start"], arguments["end"]
    if start is None and end is None:
        length = RANGES.get(name or default)
        if length is None:
            raise invalid_input("range", name, f"use {', '.join(RANGES)}, or start and end.")
        step = 3600 if length >= RANGES["7d"] else 300
        last = datetime.fromtimestamp((int(now) // step + 1) * step, UTC)
        return PageRange(last - length, last, name or default)
    if name is not None:
        raise ApiError(400, "range cannot be used together with start and end.")
    until = datetime.fromtimestamp(now, UTC) if end is None else parse_time_argument("end", end)
    try:
        since = until - RANGES[default] if start is None else parse_time_argument("start", start)
    except OverflowError:
        since = until
    if since >= until:
        raise ApiError(400, "start must be before end.")
    return PageRange(since, until, None)
