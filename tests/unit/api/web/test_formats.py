"""How numbers look on pages."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meter.api.web.formats import number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (599_094_301_654_737.0, "599 094 301 654 737"),
        (1_239_180_653_722_803.0, "1 239 180 653 722 803"),
        (-2_397_928_557_294_291.0, "\u22122 397 928 557 294 291"),
        (1_795_840_860_001_542_000, "1 795 840 860 001 542 000"),
        (Decimal("1239180653722803"), "1 239 180 653 722 803"),
        (1.5e18, "1.5e+18"),
        (1234.5678, "1 234.57"),
        (0.00001, "1e\u221205"),
        (None, "\u2013"),
    ],
)
def test_integers_are_shown_in_full(value: float | Decimal | None, text: str) -> None:
    assert number(value) == text.replace(" ", "\u202f")
