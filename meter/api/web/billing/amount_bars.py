"""Horizontal bars of exact amounts. Only the length of a bar is a rounded number; amounts stay the decimals that were billed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountBar:
    """An ``amount`` in ``currency``, and the length of its bar in percent of the longest one; ``badge`` says what it is."""

    name: str
    amount: Decimal
    currency: str
    percent: float
    link: str | None = None
    badge: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedAmount:
    """What a bar shows, before it is compared with others."""

    name: str
    amount: Decimal
    currency: str
    link: str | None = None
    badge: str = ""


def amount_bars(amounts: Sequence[NamedAmount]) -> list[AmountBar]:
    """Return a bar for each amount, in their order. Those of one currency are compared; negative amounts have no bar."""
    longest: dict[str, Decimal] = {}
    for each in amounts:
        longest[each.currency] = max(longest.get(each.currency, Decimal(0)), each.amount)
    return [
        AmountBar(
            name=each.name,
            amount=each.amount,
            currency=each.currency,
            percent=length(each.amount, longest[each.currency]),
            link=each.link,
            badge=each.badge,
        )
        for each in amounts
    ]


def length(amount: Decimal, whole: Decimal) -> float:
    """Return how much of ``whole`` is ``amount``, in percent from 0 to 100."""
    if whole <= 0 or amount <= 0:
        return 0.0
    return min(100.0, round(float(100 * amount / whole), 2))
