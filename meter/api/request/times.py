"""Times in questions: ISO 8601, and the shorter forms that Ceilometer's clients may send."""

from __future__ import annotations

import re
from datetime import datetime

from meter.message import BadMessage
from meter.message import parse_timestamp

_SHORT = re.compile(
    r"(?P<year>\d{4})(-(?P<month>\d{1,2})(-(?P<day>\d{1,2})(?P<rest>[T ]\d{2}(:\d{2}(:\d{1,2}.*)?)?.*)?)?)?",
    re.ASCII | re.DOTALL,
)
_ONE_DIGIT_SECONDS = re.compile(r"(:\d{2}:)(\d)(?!\d)", re.ASCII)


def time_asked(text: str, label: str) -> datetime:
    """Return the time in UTC that ``text`` names in a question; :class:`BadMessage` if it is none.

    It is what :func:`~meter.message.moment` reads, and also a date without leading zeros (``2026-3-1``), a month
    (``2026-03``) or a year (``2026``), each of which means its first moment.
    """
    try:
        return parse_timestamp(text, label)
    except BadMessage:
        found = _SHORT.fullmatch(text)
        if found is None:
            raise
        date = f"{found['year']}-{int(found['month'] or 1):02}-{int(found['day'] or 1):02}"
        return parse_timestamp(date + _ONE_DIGIT_SECONDS.sub(r"\g<1>0\2", found["rest"] or "", count=1), label)
