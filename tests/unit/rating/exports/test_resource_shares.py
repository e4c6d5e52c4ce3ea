"""Shares of resources add up to their line, also with the largest numbers."""

from __future__ import annotations

from decimal import Decimal

from meter.rating.exact import EXACT
from meter.rating.exact import total_of
from meter.rating.exports.resource_shares import shared_lines
from meter.rating.statements.statement import AnnexRow
from tests.statement_documents import line
from tests.statement_documents import statement


def test_shares_of_hostile_numbers_add_up_to_the_line() -> None:
    quantities = ("1e308", "0.1", "2e307")
    annex = [
        AnnexRow(
            project_id="shop", sku="egress", resource_id=f"port-{number}", values={}, days={"2026-11-03": Decimal(each)}
        )
        for number, each in enumerate(quantities)
    ]
    quantity = total_of(map(Decimal, quantities))
    amount = EXACT.multiply(quantity, Decimal("0.07"))
    whole = line(
        1,
        "usage",
        "usage/shop/egress",
        sku="egress",
        unit="GiB",
        quantity=quantity,
        list_amount=amount,
        exact_amount=amount,
        amount=amount,
    )
    shares = [share for _, share in shared_lines(statement(lines=(whole,)), annex) if share is not None]
    assert [each.quantity for each in shares] == [Decimal(each) for each in quantities]
    assert [each.amount for each in shares] == [EXACT.multiply(Decimal(each), Decimal("0.07")) for each in quantities]
    assert total_of(each.exact_amount for each in shares) == amount
