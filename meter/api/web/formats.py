"""How values look on pages: numbers, times, durations and sizes, as filters of templates."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

MINUS = "\u2212"
THIN_SPACE = "\u202f"
"""Between groups of three digits; it does not break."""

ABSENT = "\u2013"

EXACT_BELOW = 2**53
"""A float below this has no spacing above 1, so that all digits of its integer part are right."""


def number(value: float | Decimal | None, digits: int = 6) -> str:
    """Return ``value`` with at most ``digits`` significant digits after its integer part is grouped; integers are exact."""
    if value is None:
        return ABSENT
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        value = int(value) if value.is_integer() and abs(value) < EXACT_BELOW else value
    if isinstance(value, int | Decimal):
        text = f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"
    elif abs(value) >= EXACT_BELOW or (value and abs(value) < 1e-4):
        text = f"{value:.{digits}g}"
    else:
        decimals = max(0, digits - len(str(int(abs(value)))))
        text = f"{value:,.{decimals}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace(",", THIN_SPACE).replace("-", MINUS)


def utc(value: datetime | None) -> str:
    """Return a time such as ``2026-11-01 12:00:00 UTC``, with its fraction of a second if it has one."""
    if value is None:
        return ABSENT
    form = "%Y-%m-%d %H:%M:%S.%f" if value.microsecond else "%Y-%m-%d %H:%M:%S"
    return f"{value.astimezone(UTC):{form}} UTC"


def utc_short(value: datetime | None) -> str:
    """Return a time such as ``2026-11-01 12:00:00``, for columns whose heading says that times are in UTC."""
    return ABSENT if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def iso(value: datetime) -> str:
    """Return a time in ISO 8601, for attributes, links and scripts: ``2026-11-01T12:00:00Z``."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def duration(seconds: float | None) -> str:
    """Return seconds as two units at most: ``3 d 4 h``, ``12 min``, ``5 s``."""
    if seconds is None:
        return ABSENT
    whole = round(abs(seconds))
    sign = MINUS if seconds < 0 and whole else ""
    for unit, size, smaller, rest in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            first, second = whole // size, whole % size // rest
            return f"{sign}{first} {unit} {second} {smaller}" if second else f"{sign}{first} {unit}"
    return f"{sign}{whole} s"


def urlencode_all(value: str) -> str:
    """Return ``value`` for the value of a parameter in a link: slashes, which the filter ``urlencode`` leaves, are encoded too."""
    return quote(value, safe="")


def percent(share: float | None) -> str:
    """Return a part of a whole, 0 to 1, as ``12.3 %``; a part below 0.05 % that is not 0 as ``< 0.1 %``."""
    if share is None or not math.isfinite(share):
        return ABSENT
    if 0 < share < 0.0005:
        return "<\u202f0.1\u202f%"
    return f"{100 * share:.1f}\u202f%".replace("-", MINUS)


def lag(seconds: float | None) -> str:
    """Return seconds with a tenth if they are few: ``0.4 s``, ``−12 s``, ``3 min 5 s``."""
    if seconds is None:
        return ABSENT
    if abs(seconds) < 10:
        tenths = f"{seconds:.1f}"
        return f"{'0.0' if tenths == '-0.0' else tenths} s".replace("-", MINUS)
    return duration(seconds)


def readable_size(size: float | None) -> str:
    """Return a number of bytes in the largest binary unit: ``12 KiB``, ``1.5 GiB``."""
    if size is None:
        return ABSENT
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{number(round(value, 1))} {unit}"
        value /= 1024
    return f"{number(round(value, 1))} TiB"


def amount(value: Decimal | None) -> str:
    """Return an amount of money with all its digits, as it was billed: ``−1 234.50``; absence is not 0."""
    if value is None:
        return ABSENT
    return f"{value:,f}".replace(",", THIN_SPACE).replace("-", MINUS)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "amount": amount,
    "decimal": Decimal,
    "number": number,
    "utc": utc,
    "utc_short": utc_short,
    "iso": iso,
    "duration": duration,
    "lag": lag,
    "bytes": readable_size,
    "percent": percent,
    "urlencode_all": urlencode_all,
}
"""The filters by their names in templates."""
