"""Numbers on pages: all digits that are right, and no others."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meter.api.web.formats import number
from meter.api.web.formats import urlencode_all


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (1239124654636087.0, "1 239 124 654 636 087"),
        (-2397918229196599.0, "−2 397 918 229 196 599"),
        (2.0**53, "9.0072e+15"),
        (2**53 + 1, "9 007 199 254 740 993"),
        (Decimal("1234.50"), "1 234.50"),
        (12345.678, "12 345.7"),
        (0.00001234, "1.234e−05"),
        (float("inf"), "inf"),
    ],
)
def test_number_has_all_digits_that_a_float_holds_exactly(value: float | Decimal | None, shown: str) -> None:
    assert number(value) == shown.replace(" ", "\u202f")


def test_every_character_with_a_meaning_in_a_link_is_encoded() -> None:
    assert urlencode_all("/usage?a=b&c#d") == "%2Fusage%3Fa%3Db%26c%23d"
