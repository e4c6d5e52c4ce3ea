"""What is suspicious within a book: usage that gets no price or no tax."""

from __future__ import annotations

import pytest

from meter.rating.book.price_directory import check_files
from meter.rating.book.price_files import PriceFile

BOOK = '[[book]]\nname = "a"\ncurrency = "EUR"\ntimezone = "UTC"\nissuer = "x"\n'
SKU = '[[sku]]\nid = "vm"\nusage = "exists"\nresource_kind = "instance"\nunit = "Hours"\nby = ["flavor", "state"]\n'
PRICE = '[[price]]\nsku = "vm"\nprice = "1"\n'
STATES = 'states = ["active", "paused"]\n'
TAX = '[[tax]]\ncategory = "vat"\nname = "VAT"\npercent = 20\n'
HOLE = f"{PRICE}until = 2026-10-01\n{PRICE}from = 2026-10-03\n"
SMALL = 'match = {flavor = "s"}\n'


def warnings(text: str) -> list[str]:
    checked = check_files([PriceFile("a.toml", text)], meters={})
    assert checked.directory is not None
    return [str(each) for each in checked.problems]


@pytest.mark.parametrize(
    "text",
    [
        BOOK + SKU + STATES + PRICE + 'match = {state = "paused"}\n',
        BOOK + SKU.replace("instance", "volume") + 'states = ["in-use"]\n' + PRICE,
        BOOK + SKU + PRICE + TAX + "default = true\n",
        BOOK + SKU + 'tax_category = "vat"\n' + PRICE + TAX,
        BOOK + SKU + HOLE.replace("10-03", "10-01"),
        # a price of all flavors holds in the days between two of one flavor
        BOOK + SKU + f"{PRICE}{SMALL}until = 2026-10-01\n{PRICE}{SMALL}from = 2026-10-03\n{PRICE}",
    ],
)
def test_book_that_prices_all_usage_is_not_suspicious(text: str) -> None:
    assert warnings(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SKU + 'states = ["actve"]\n' + PRICE, "a.toml:12: warning: [[sku]] states: an instance is never in the state"),
        (SKU + 'states = ["actve"]\n' + PRICE, "did you mean active?"),
        (SKU + PRICE + 'match = {state = "pausd"}\n', "did you mean paused?"),
        (SKU + STATES + PRICE + 'match = {state = "stopped"}\n', "'stopped' is not one of states of the sku vm"),
        (SKU, "a.toml:6: warning: [[sku]] vm has no price in the book a: its usage is not billed"),
        (SKU + PRICE + TAX, "a.toml:6: warning: [[sku]] vm has no tax: it has no tax_category, and no [[tax]] has"),
        (SKU + HOLE, "a.toml:16: warning: [[price]] of vm: no price from 2026-10-01 until before 2026-10-03"),
    ],
)
def test_usage_that_gets_no_price_or_tax_is_a_warning(text: str, expected: str) -> None:
    (found,) = warnings(BOOK + text)
    assert expected in found


def test_empty_issuer_is_a_warning() -> None:
    text = BOOK.replace('"x"', '""') + SKU + PRICE
    assert warnings(text) == ["a.toml:5: warning: [[book]] issuer is empty"]
