"""Currencies of ISO 4217 and the rounding to their minor unit."""

from __future__ import annotations

from decimal import Decimal
from decimal import InvalidOperation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.rating.currency import minor_digits
from meter.rating.currency import rounded


@pytest.mark.parametrize(("code", "digits"), [("EUR", 2), ("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)])
def test_a_currency_has_the_digits_of_its_minor_unit(code: str, digits: int) -> None:
    assert minor_digits(code) == digits


@pytest.mark.parametrize("code", ["", "eur", "EURO", "DEM", "978", "ЕUR"])
def test_an_unknown_currency_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="is not a currency of ISO 4217"):
        minor_digits(code)


@pytest.mark.parametrize("code", ["XAU", "XXX"])
def test_a_currency_without_a_minor_unit_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="has no minor unit"):
        minor_digits(code)


@pytest.mark.parametrize(
    ("amount", "code", "expected"),
    [
        ("0.005", "EUR", "0.01"),
        ("-0.005", "EUR", "-0.01"),
        ("0.004999999999", "EUR", "0.00"),
        ("2.675", "EUR", "2.68"),
        ("0.5", "JPY", "1"),
        ("-0.5", "JPY", "-1"),
        ("1234.5", "JPY", "1235"),
        ("0.0005", "KWD", "0.001"),
        ("1E+3", "EUR", "1000.00"),
        ("-0.001", "EUR", "0.00"),
        ("-0", "JPY", "0"),
        ("12345678901234567890123456789012345.675", "EUR", "12345678901234567890123456789012345.68"),
    ],
)
def test_an_amount_is_rounded_half_up_away_from_zero(amount: str, code: str, expected: str) -> None:
    assert str(rounded(Decimal(amount), code)) == expected


@pytest.mark.parametrize("amount", ["1E+1000", "Infinity"])
def test_an_amount_that_no_statement_can_hold_is_an_error_and_not_nan(amount: str) -> None:
    with pytest.raises(InvalidOperation):
        rounded(Decimal(amount), "EUR")


@given(st.decimals(-(10**20), 10**20, places=12), st.sampled_from(["EUR", "JPY", "KWD"]))
def test_rounding_changes_an_amount_by_at_most_half_a_minor_unit_and_is_the_same_for_both_signs(
    amount: Decimal, code: str
) -> None:
    result = rounded(amount, code)
    assert abs(result - amount) * 2 <= Decimal(1).scaleb(-minor_digits(code))
    assert rounded(-amount, code) == -result
    assert rounded(result, code) == result
