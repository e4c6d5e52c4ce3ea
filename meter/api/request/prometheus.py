"""Parameters of Prometheus' HTTP API: times, durations and limits, in the forms that Prometheus accepts."""

from __future__ import annotations

import math
import re
from datetime import UTC
from datetime import datetime

from meter.api.rendering.prometheus_errors import PrometheusError
from meter.message import BadMessage
from meter.message import parse_timestamp

MIN_TIME = 0.0
MAX_TIME = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""The times that a query can name, in seconds since 1970; clients that mean "ever" send times of millions of years."""

_UNIT_SECONDS = {"y": 365 * 86400.0, "w": 7 * 86400.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile("".join(rf"(?:([0-9]{{1,12}}){unit})?" for unit in _UNIT_SECONDS), re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?", re.ASCII)
_INTEGER = re.compile(r"[0-9]{1,18}", re.ASCII)


def parse_time(name: str, text: str) -> float:
    """Return the time, in seconds since 1970, that is given in seconds or in the form of RFC 3339.

    Raises :class:`PrometheusError` ``bad_data`` for anything else, and for a time before 1970 or after the year 9998.
    """
    seconds = _seconds_since_1970(name, text)
    if not MIN_TIME <= seconds < MAX_TIME:
        raise invalid_parameter(name, f"{_quoted(text)} is not a time from 1970 to 9998")
    return seconds


def parse_bound(name: str, text: str | None) -> float | None:
    """Return the bound of a time range, moved into the range of times that a query can name; ``None`` if it is absent."""
    return None if text is None else min(max(_seconds_since_1970(name, text), MIN_TIME), MAX_TIME)


def _seconds_since_1970(name: str, text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        return parse_timestamp(text, name).timestamp()
    except BadMessage as error:
        raise invalid_parameter(name, f"cannot parse {_quoted(text)} to a valid timestamp") from error


def parse_duration(name: str, text: str) -> float:
    """Return the seconds of a duration, which is given in seconds or as ``1h30m``; :class:`PrometheusError` if it is neither."""
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif text and (found := _DURATION.fullmatch(text)):
        seconds = sum(int(count) * unit for count, unit in zip(found.groups("0"), _UNIT_SECONDS.values(), strict=True))
    else:
        raise invalid_parameter(name, f"cannot parse {_quoted(text)} to a valid duration")
    if not math.isfinite(seconds) or abs(seconds) > MAX_TIME:
        raise invalid_parameter(name, f"{_quoted(text)} is too long")
    return seconds


def parse_limit(text: str | None, name: str = "limit") -> int | None:
    """Return the number of entries that are wanted; ``None`` if all are, which is also what 0 means."""
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        raise invalid_parameter(name, "limit must be non-negative" if text.startswith("-") else "it is not an integer")
    return int(text) or None


def invalid_parameter(name: str, reason: str) -> PrometheusError:
    """Return the error for an invalid value of the parameter ``name``, in the words of Prometheus."""
    return PrometheusError("bad_data", f'invalid parameter "{name}": {reason}')


def _quoted(text: str) -> str:
    return f'"{text[:80]}"'
