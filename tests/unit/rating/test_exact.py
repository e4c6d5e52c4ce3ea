"""Exact decimals."""

from __future__ import annotations

import math
import sys
from decimal import Decimal
from decimal import Inexact
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.rating.exact import EXACT
from meter.rating.exact import QUANTITY_DECIMALS
from meter.rating.exact import divided
from meter.rating.exact import divided_amount
from meter.rating.exact import plain
from meter.rating.exact import quantity
from meter.rating.exact import shortest
from meter.rating.exact import total_of

decimals = st.decimals(allow_nan=False, allow_infinity=False, places=15)


@pytest.mark.parametrize("value", [0.1, 1e22, 5e-324, 2.0**53 + 2, 1 / 3])
def test_the_shortest_decimal_reads_back_as_the_same_number(value: float) -> None:
    assert float(shortest(value)) == value
    assert str(shortest(0.1)) == "0.1"


def test_a_result_that_would_be_rounded_is_an_error() -> None:
    with pytest.raises(Inexact):
        EXACT.add(Decimal("1E+1000"), Decimal(1))
    with pytest.raises(Inexact):
        EXACT.divide(Decimal(1), Decimal(3))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Fraction(1, 3), "0.333333333"),
        (Fraction(5, 10**10), "0E-9"),
        (Fraction(15, 10**10), "2E-9"),
        (Fraction(-15, 10**10), "-2E-9"),
        (Fraction(10**30), "1000000000000000000000000000000.000000000"),
    ],
)
def test_a_quantity_has_9_decimals_and_is_rounded_half_to_even(value: Fraction, expected: str) -> None:
    assert str(quantity(value)) == expected


def test_the_largest_quantity_is_exact() -> None:
    largest = Fraction(sys.float_info.max)
    assert Fraction(quantity(largest)) == largest
    assert Fraction(EXACT.multiply(quantity(largest), Decimal("0.123456789012"))) == largest * Fraction(
        "0.123456789012"
    )


@given(decimals)
def test_both_roundings_of_quantities_agree(value: Decimal) -> None:
    assert quantity(Fraction(value)) == divided(value, Decimal(1), QUANTITY_DECIMALS, "half even")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(Fraction(2, 3), "0.666666666667"), (Fraction(1, 2 * 10**12), "0E-12"), (Fraction(-3, 2 * 10**12), "-2E-12")],
)
def test_a_divided_amount_has_12_decimals_and_is_rounded_half_to_even(value: Fraction, expected: str) -> None:
    assert str(divided_amount(value)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.500", "1.5"),
        ("1E+2", "100"),
        ("100", "100"),
        ("100.00", "100"),
        ("-0.00", "0"),
        ("0E-9", "0"),
        ("0.0010", "0.001"),
    ],
)
def test_a_plain_decimal_has_no_zeros_at_its_end_and_no_exponent(value: str, expected: str) -> None:
    assert str(plain(Decimal(value))) == expected


@given(decimals)
def test_a_plain_decimal_has_the_same_value(value: Decimal) -> None:
    assert plain(value) == value
    assert plain(EXACT.add(value, Decimal("0E-30"))).as_tuple() == plain(value).as_tuple()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("value", ["0.125", "0.135", "1e308", "7", "0", "123456789.987654321"])
@pytest.mark.parametrize("divisor", ["1", "3", "0.7", "1e300", "1e-12"])
def test_divided_is_the_fraction_rounded_once(sign, value, divisor):
    value = sign * Decimal(value)
    exact = Fraction(value) / Fraction(divisor) * 100
    assert divided(value, Decimal(divisor), 2, "half even") == EXACT.scaleb(Decimal(round(exact)), -2)
    assert divided(value, Decimal(divisor), 2, "floor") == EXACT.scaleb(Decimal(math.floor(exact)), -2)


def test_total_of_has_all_digits():
    assert total_of([Decimal("1e100"), Decimal("1e-9")]) == EXACT.add(Decimal("1e100"), Decimal("1e-9"))
