"""Times in requests: ISO 8601, and the shorter forms that Ceilometer accepted."""

from __future__ import annotations

import re
from datetime import datetime

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.message import BadMessage
from meter.message import parse_timestamp

_SHORT_FORM = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d{1,2})(-(?P<day>\d{1,2})(?P<rest>[T ]\d{2}(:\d{2}(:\d{1,2}.*)?)?.*)?)?)?",
    re.ASCII | re.DOTALL,
)
_ONE_DIGIT_SECONDS = re.compile(r"(:\d{2}:)(\d)(?!\d)", re.ASCII)


def parse_time(text: str, label: str) -> datetime:
    """Return the time in UTC; raise :class:`BadMessage`, which contains ``label``, if ``text`` is not a time.

    Accepts what :func:`~meter.message.parse_timestamp` accepts, and also a date without leading zeros (``2026-3-1``), a month
    (``2026-03``) or a year (``2026``), which stand for the first moment of the day, month or year.
    """
    try:
        return parse_timestamp(text, label)
    except BadMessage:
        found = _SHORT_FORM.fullmatch(text)
        if found is None:
            raise
        date = f"{found['year']}-{int(found['month'] or 1):02}-{int(found['day'] or 1):02}"
        return parse_timestamp(date + _ONE_DIGIT_SECONDS.sub(r"\g<1>0\2", found["rest"] or "", count=1), label)


def parse_time_argument(name: str, text: str) -> datetime:
    """Return the time that the parameter ``name`` has; :class:`~meter.api.errors.ApiError` 400 if it is not a time."""
    try:
        return parse_time(text, name)
    except BadMessage as error:
        raise invalid_time(name, text) from error


def invalid_time(name: str, text: str) -> ApiError:
    """Return the error 400 for the parameter or member ``name``, whose value is not a time."""
    return invalid_input(name, text, "invalid timestamp format")
