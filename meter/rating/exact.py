"""Exact decimals: the context in which quantities and amounts are computed, and the one rounding of quantities."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context
from decimal import Decimal
from decimal import DivisionByZero
from decimal import Inexact
from decimal import InvalidOperation
from decimal import Overflow
from fractions import Fraction
from typing import Literal

DIGITS = 1000
"""More than any sum of products has: the largest floating-point number has 309 digits. One hostile sample must not be an error
that keeps the statement of its account from being made. Short numbers are not slower for it.
"""

EXACT = Context(prec=DIGITS, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
"""Sums and products in this context are exact: a result with more than :data:`DIGITS` digits raises ``Inexact``."""

QUANTITY_DECIMALS = 9

LARGEST_DECIMAL = 2.0**53
"""Numbers of this size and above have no decimals in double precision."""

AMOUNT_DECIMALS = 12
"""Decimals of an exact amount that had to be divided: by the hours or by the days of a month."""

_DIVIDING = Context(prec=DIGITS, traps=[InvalidOperation, DivisionByZero, Overflow])


def shortest(value: float) -> Decimal:
    """Return the shortest decimal that reads back as ``value``: 0.1 is 0.1, as an operator wrote it.

    From 2⁵³ on numbers are whole, and are returned exactly: there Python and PostgreSQL do not agree on which decimal is the shortest.
    """
    return Decimal(int(value)) if abs(value) >= LARGEST_DECIMAL else Decimal(repr(value))


def total_of(values: Iterable[Decimal]) -> Decimal:
    """Return the exact sum of ``values``."""
    total = Decimal(0)
    for value in values:
        total = EXACT.add(total, value)
    return total


def quantity(value: Fraction) -> Decimal:
    """Return the exact ``value`` rounded once, half to even, to :data:`QUANTITY_DECIMALS` decimals."""
    scaled = value * 10**QUANTITY_DECIMALS
    return Decimal(round(scaled)).scaleb(-QUANTITY_DECIMALS, _DIVIDING)


def divided_amount(value: Fraction) -> Decimal:
    """Return the exact ``value`` rounded once, half to even, to :data:`AMOUNT_DECIMALS` decimals."""
    return Decimal(round(value * 10**AMOUNT_DECIMALS)).scaleb(-AMOUNT_DECIMALS, _DIVIDING)


def divided(value: Decimal, divisor: Decimal, decimals: int, rounding: Literal["floor", "half even"]) -> Decimal:
    """Return ``value`` / ``divisor`` rounded once to ``decimals``, whatever its size. ``divisor`` must be positive."""
    whole, rest = EXACT.divmod(EXACT.abs(value.scaleb(decimals, EXACT)), divisor)
    if value < 0 and rest and rounding == "floor":
        whole = EXACT.add(whole, Decimal(1))
    if rounding == "half even":
        half = EXACT.subtract(EXACT.add(rest, rest), divisor)
        if half > 0 or (not half and EXACT.remainder(whole, Decimal(2))):
            whole = EXACT.add(whole, Decimal(1))
    return EXACT.minus(whole).scaleb(-decimals, EXACT) if value < 0 else whole.scaleb(-decimals, EXACT)


def plain(value: Decimal) -> Decimal:
    """Return ``value`` without zeros at its end, without an exponent and without a negative zero: 1.500 is 1.5, 1E+2 is 100.

    A sum then has the same digits whatever it is the sum of.
    """
    shortened = value.normalize(EXACT)
    return EXACT.plus(
        shortened.quantize(Decimal(1), context=EXACT) if shortened == shortened.to_integral() else shortened
    )
