"""Bars of amounts: exact decimals, lengths by currency, and signs of typography."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meter.api.web.billing.amount_bars import NamedAmount
from meter.api.web.billing.amount_bars import amount_bars
from meter.api.web.formats import amount


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("1234567"), "1\u202f234\u202f567"),
        (Decimal("-1234.500"), "\u22121\u202f234.500"),
        (Decimal("0.00"), "0.00"),
        (Decimal("1E+3"), "1\u202f000"),
        (None, "\u2013"),
    ],
)
def test_amount_keeps_its_digits(value: Decimal | None, expected: str) -> None:
    assert amount(value) == expected


def test_amounts_of_one_currency_are_compared_and_negative_ones_have_no_bar() -> None:
    made = [
        NamedAmount(name=str(n), amount=Decimal(n), currency=c)
        for n, c in ((50, "EUR"), (200, "EUR"), (-7, "EUR"), (9000, "JPY"))
    ]
    assert [each.percent for each in amount_bars(made)] == [25.0, 100.0, 0.0, 100.0]
