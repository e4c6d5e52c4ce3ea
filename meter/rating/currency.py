"""Currencies of ISO 4217, and the one rounding of money: to the minor unit, half up."""

from __future__ import annotations

from decimal import ROUND_HALF_UP
from decimal import Decimal
from decimal import Inexact
from functools import cache

from iso4217 import Currency

from meter.rating.exact import EXACT

_ROUNDING = EXACT.copy()
_ROUNDING.traps[Inexact] = False


@cache
def minor_digits(code: str) -> int:
    """Return the decimals of the currency ``code``: 2 for EUR, 0 for JPY, 3 for KWD.

    :raises ValueError: ISO 4217 has no such currency, or none with a minor unit.
    """
    try:
        digits = Currency(code).exponent
    except ValueError:
        raise ValueError(f"{code!r} is not a currency of ISO 4217, such as EUR, JPY or KWD") from None
    if digits is None:
        raise ValueError(f"{code} has no minor unit in ISO 4217: amounts cannot be rounded to it")
    return digits


def rounded(amount: Decimal, code: str) -> Decimal:
    """Return ``amount`` rounded half up to the minor unit of the currency ``code``: 0.005 EUR is 0.01, -0.005 is -0.01.

    What rounds to zero is 0, never -0.
    """
    return _ROUNDING.plus(amount.quantize(Decimal(1).scaleb(-minor_digits(code)), ROUND_HALF_UP, _ROUNDING))
