"""Corrections: statement and corrections together are what would have been billed in time."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from meter.rating.book.price_book import Discount
from meter.rating.book.price_book import Minimum
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook
from meter.rating.money.corrections import AMENDED_KINDS
from meter.rating.money.corrections import correction_lines
from meter.rating.money.rated import AmendedLine
from meter.rating.money.rated import RatedLine
from meter.rating.money.rating import rate
from meter.rating.statements.statement import StatementAmends
from meter.rating.statements.statement import StatementLine
from meter.rating.usage.usage_atom import UsageAtom
from tests import rated_usage
from tests.price_books import NOVEMBER
from tests.price_books import PLACE
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price
from tests.price_books import sku
from tests.price_books import tiers
from tests.price_books import used

ACME = account()
ID = "2026-11.acme"


def lines_of(prices: PriceBook, usage: Iterable[UsageAtom]) -> Sequence[RatedLine]:
    return rate(directory(prices, ACME), prices, ACME, NOVEMBER, usage).lines


def billed(lines: Iterable[RatedLine]) -> list[StatementLine]:
    """``lines`` as they stand on a statement."""
    return [
        StatementLine(
            number=number,
            kind=each.kind,
            key=each.key,
            project_id=each.project_id,
            project_name="",
            description=each.description,
            first=each.first,
            until=each.until,
            list_amount=each.list_amount,
            exact_amount=each.exact_amount,
            amount=each.amount,
            sku=each.sku,
            price_id=each.price_id,
            tier=each.tier,
            values=dict(each.values),
            quantity=each.quantity,
            unit=each.unit,
            list_unit_price=each.list_unit_price,
            unit_price=each.unit_price,
            resource_id=each.resource_id,
            service=each.service,
            category=each.category,
            tax_category=each.tax_category,
            amends=StatementAmends(each.amends.statement_id, each.amends.line) if each.amends else None,
        )
        for number, each in enumerate(lines, 1)
    ]


def test_a_line_that_costs_more_now_is_corrected_by_the_difference_of_rounded_amounts() -> None:
    prices = book(price(amount="0.105"), skus=[sku(tax_category="reduced")])
    statement = billed(lines_of(prices, [used(1, 1)]))
    [line] = correction_lines(ID, lines_of(prices, [used(1, 1), used(20, 2)]), statement, [])
    assert (line.kind, line.amount, line.exact_amount, line.quantity) == (
        "correction",
        Decimal("0.21"),
        Decimal("0.21"),
        2,
    )
    assert line.list_amount == Decimal("0.42")
    assert (line.project_id, line.sku, line.price_id, line.tax_category) == ("shop", "egress", "p1", "reduced")
    assert line.amends == AmendedLine(statement_id=ID, line=1)
    assert line.description == f"Correction of line 1 of statement {ID}: Egress: 3 GB at 0.105 EUR instead of 1 GB"
    assert line.key == "correction/2026-11.acme/usage/shop/egress/p1/1/"


def test_a_line_that_vanished_is_taken_back_and_a_new_one_names_no_line() -> None:
    prices = book(price(amount="1", mode="volume", tiers=tiers(("10", "1"), (None, "0.5"))))
    statement = billed(lines_of(prices, [used(1, 10)]))
    corrections = list(correction_lines(ID, lines_of(prices, [used(1, 10), used(2, 2)]), statement, []))
    assert [(each.tier, str(each.amount), each.quantity, each.amends) for each in corrections] == [
        (1, "-10.00", -10, AmendedLine(statement_id=ID, line=1)),
        (2, "6.00", 12, AmendedLine(statement_id=ID, line=None)),
    ]


def test_what_was_corrected_once_is_not_corrected_again() -> None:
    prices = book(price(amount="1"))
    statement, now = billed(lines_of(prices, [used(1, 1)])), lines_of(prices, [used(1, 5)])
    corrections = billed(correction_lines(ID, now, statement, []))
    assert list(correction_lines(ID, now, statement, corrections)) == []
    [second] = correction_lines(ID, lines_of(prices, [used(1, 7)]), statement, corrections)
    assert (second.amount, second.quantity) == (2, 2)


def test_a_new_line_that_was_corrected_may_vanish_again() -> None:
    prices = book(price(amount="1"))
    added = billed(correction_lines(ID, lines_of(prices, [used(1, 5)]), [], []))
    [line] = correction_lines(ID, [], [], added)
    assert (line.amount, line.quantity, line.amends) == (-5, -5, AmendedLine(statement_id=ID, line=None))
    assert line.description == f"Correction of statement {ID}: Egress: 5 GB at 1 EUR, taken back"


def test_a_difference_below_the_minor_unit_waits_until_it_is_a_whole_one() -> None:
    prices = book(price(amount="0.004"))
    statement = billed(lines_of(prices, [used(1, 1)]))
    assert list(correction_lines(ID, lines_of(prices, [used(1, "1.1")]), statement, [])) == []
    [line] = correction_lines(ID, lines_of(prices, [used(1, 2)]), statement, [])
    assert (line.amount, line.quantity) == (Decimal("0.01"), 1)


def test_corrections_of_other_statements_and_their_credits_and_taxes_do_not_count() -> None:
    prices = book(price(amount="1"))
    statement, now = billed(lines_of(prices, [used(1, 1)])), lines_of(prices, [used(1, 5)])
    others = billed(correction_lines("2026-11.acme2", now, statement, []))
    [line] = correction_lines(ID, now, statement, others)
    assert line.amount == 4


def test_minimums_and_discounts_are_corrected_too() -> None:
    prices = book(
        price(amount="1"),
        discounts=(Discount(id="d", description="", percent=Decimal(10), place=PLACE),),
        minimums=(Minimum(id="m", description="", amount=Decimal(30), place=PLACE),),
    )
    statement, now = billed(lines_of(prices, [used(1, 10)])), lines_of(prices, [used(1, 20)])
    corrections = {each.key.split("/")[2]: str(each.amount) for each in correction_lines(ID, now, statement, [])}
    assert corrections == {"usage": "10.00", "discount": "-1.00", "minimum": "-9.00"}


@given(
    rated_usage.prices(),
    st.lists(rated_usage.usage(), min_size=1, max_size=4),
    st.sampled_from(["EUR", "JPY", "KWD"]),
    st.integers(0, 100),
)
def test_statement_and_corrections_are_what_would_have_been_billed_in_time(
    prices: list[Price], states: list[list[UsageAtom]], currency: str, percent: int
) -> None:
    """However often the usage of a closed period changes: after each correction, the sum is as if it had been known at once."""
    prices_book = book(
        *prices,
        skus=[sku(by=("flavor",))],
        currency=currency,
        discounts=(Discount(id="d", description="", percent=Decimal(percent), place=PLACE),),
        minimums=(Minimum(id="m", description="", amount=Decimal(5), place=PLACE),),
    )
    statement = billed(lines_of(prices_book, states[0]))
    corrections: list[StatementLine] = []
    for state in states[1:]:
        now = lines_of(prices_book, state)
        added = list(correction_lines(ID, now, statement, corrections))
        corrections += billed(added)
        assert list(correction_lines(ID, now, statement, corrections)) == []
        in_time = sum(each.amount for each in now if each.kind in AMENDED_KINDS)
        assert sum(each.amount for each in (*statement, *corrections)) == in_time
