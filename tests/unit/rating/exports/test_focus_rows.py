"""The FOCUS data sets of a statement: categories, prices, periods, shares of resources, and exact sums."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.rating.exports.focus_check import UNIT
from meter.rating.exports.focus_columns import BILLING_PERIOD
from meter.rating.exports.focus_columns import COST_AND_USAGE
from meter.rating.exports.focus_columns import INVOICE_DETAIL
from meter.rating.exports.focus_rows import FocusRow
from meter.rating.exports.focus_rows import billing_period
from meter.rating.exports.focus_rows import cost_and_usage
from meter.rating.exports.focus_rows import invoice_detail
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import StatementLine
from tests.statement_documents import ANNEX
from tests.statement_documents import LINES
from tests.statement_documents import line
from tests.statement_documents import statement


def rows(lines: tuple[StatementLine, ...] = LINES, annex: Iterable[AnnexRow] | None = None) -> list[FocusRow]:
    return list(cost_and_usage(statement(lines=lines), "1.2", annex))


def billed(found: Iterable[FocusRow]) -> Decimal:
    return sum((row["BilledCost"] for row in found), Decimal(0))


def test_each_kind_of_line_has_its_charge_category() -> None:
    assert [row["ChargeCategory"] for row in rows()] == [
        *["Usage"] * 4,
        "Purchase",
        "Adjustment",
        "Adjustment",
        "Usage",
        "Credit",
        "Tax",
    ]


def test_billed_costs_add_up_to_the_total_with_and_without_resources() -> None:
    assert billed(rows()) == billed(rows(annex=ANNEX)) == statement().total


def test_a_correction_has_the_period_of_the_usage_and_the_billing_period_of_the_statement() -> None:
    row = rows()[7]
    assert row["ChargeClass"] == "Correction"
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == (
        datetime(2026, 9, 30, 22, tzinfo=UTC),  # the clock of Paris changed within October
        datetime(2026, 10, 31, 23, tzinfo=UTC),
    )
    assert row["BillingPeriodStart"] == datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert (row["x_AmendsStatementId"], row["x_AmendsLine"]) == ("2026-10.acme", "1")


@pytest.mark.parametrize(("kind", "category"), [("tax", "Tax"), ("discount", "Adjustment"), ("fixed", "Purchase")])
def test_a_correction_has_the_category_of_the_line_that_it_amends(kind: str, category: str) -> None:
    amended = line(
        1,
        "correction",
        f"correction/2026-10.acme/{kind}/x",
        list_amount=Decimal(0),
        exact_amount=Decimal(0),
        amount=Decimal(0),
    )
    assert rows((amended,))[0]["ChargeCategory"] == category


def test_only_corrections_have_a_charge_class() -> None:
    assert [row["ChargeClass"] for row in rows()].count(None) == len(LINES) - 1


def test_a_price_of_a_month_is_priced_in_months() -> None:
    row = rows()[3]
    assert (row["PricingQuantity"], row["PricingUnit"]) == (Decimal("0.501388888889"), "Months")
    assert row["ListCost"] == row["ContractedCost"] == Decimal("15.041666666670")
    assert (row["ConsumedQuantity"], row["ConsumedUnit"], row["BilledCost"]) == (
        Decimal(361),
        "Hours",
        Decimal("15.04"),
    )


def test_costs_are_exactly_quantity_times_unit_price() -> None:
    for row in (*rows(), *rows(annex=ANNEX)):
        if row["PricingQuantity"] is not None and row["ChargeClass"] is None:
            assert row["ListCost"] == row["ListUnitPrice"] * row["PricingQuantity"]
            assert row["ContractedCost"] == row["ContractedUnitPrice"] * row["PricingQuantity"]


def test_a_fixed_charge_without_quantity_is_one_unit() -> None:
    fixed = line(1, "fixed", "fixed/setup", list_amount=Decimal(9), exact_amount=Decimal(7), amount=Decimal("7.00"))
    [row] = rows((fixed,))
    assert (row["PricingQuantity"], row["PricingUnit"], row["ListUnitPrice"], row["ContractedUnitPrice"]) == (
        1,
        "Units",
        9,
        7,
    )
    assert (row["SkuId"], row["SkuPriceId"]) == ("fixed/setup", "fixed/setup")


def test_a_tax_has_neither_sku_nor_quantity() -> None:
    row = rows()[9]
    assert [row[name] for name in ("SkuId", "SkuPriceId", "PricingQuantity", "PricingUnit", "PricingCategory")] == [
        None
    ] * 5


def test_a_project_is_the_sub_account_and_lines_of_the_account_have_none() -> None:
    assert (rows()[0]["SubAccountId"], rows()[4]["SubAccountId"], rows()[4]["SubAccountName"]) == ("shop", None, None)


def test_a_project_without_name_is_named_by_its_id() -> None:
    nameless = tuple(msgspec.structs.replace(each, project_name="") for each in LINES)
    assert rows(nameless)[0]["SubAccountName"] == "shop"


def test_the_availability_zone_comes_from_the_values() -> None:
    assert rows()[0]["AvailabilityZone"] == "az-1"


def test_with_the_annex_each_resource_has_its_own_row() -> None:
    found = rows(annex=ANNEX)
    of_vm = [row for row in found if row["SkuId"] == "vm" and row["x_LineKind"] == "usage"]
    assert [(row["ResourceId"], row["PricingQuantity"], row["BilledCost"]) for row in of_vm] == [
        ("web", Decimal(720), Decimal("7.204387568556")),
        ("worker", Decimal("100.5"), Decimal("1.005612431444")),
    ]
    assert of_vm[0]["ListCost"] == Decimal("9.0000")


def test_tiers_are_divided_in_proportion_to_the_usage() -> None:
    tiers: dict[str, Decimal] = {}
    for row in rows(annex=ANNEX):
        if row["SkuId"] == "egress":
            tiers[row["x_Tier"]] = tiers.get(row["x_Tier"], Decimal(0)) + row["PricingQuantity"]
    assert tiers == {"0": Decimal(10), "1": Decimal("120.333333333")}


def test_a_line_without_usage_in_the_annex_stays_whole() -> None:
    found = rows(annex=())
    assert [row["ResourceId"] for row in found] == [None] * len(LINES)


def test_an_annex_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="vm of shop comes twice"):
        rows(annex=(ANNEX[3], ANNEX[1], ANNEX[4]))


@given(
    amount=st.decimals("0.00", "99999.99", places=2),
    quantities=st.lists(st.decimals("0.000000001", "1000", places=9), min_size=1, max_size=20),
)
def test_shares_add_up_to_the_line_to_the_last_digit(amount: Decimal, quantities: list[Decimal]) -> None:
    whole = line(
        1,
        "usage",
        "k",
        sku="vm",
        unit="Hours",
        quantity=sum(quantities, Decimal(0)),
        list_unit_price=Decimal("0.01"),
        unit_price=Decimal("0.01"),
        list_amount=amount,
        exact_amount=amount,
        amount=amount,
    )
    annex = [
        AnnexRow(project_id="shop", sku="vm", resource_id=f"r{n}", values={}, days={"2026-11-01": quantity})
        for n, quantity in enumerate(quantities)
    ]
    found = list(cost_and_usage(statement(lines=(whole,)), "1.2", annex))
    assert billed(found) == amount
    assert sum((row["ConsumedQuantity"] for row in found), Decimal(0)) == whole.quantity
    assert all(row["BilledCost"] >= 0 for row in found)


def test_usage_outside_the_days_of_a_line_has_no_share_of_it() -> None:
    half = msgspec.structs.replace(LINES[0], until=date(2026, 11, 2))
    found = rows((half,), ANNEX)
    assert [row["ResourceId"] for row in found] == ["web"]


@pytest.mark.parametrize("version", ["1.2", "1.4"])
def test_rows_have_no_other_columns_than_the_version_has(version: Any) -> None:
    names = {column.name for column in COST_AND_USAGE[version]}
    assert set().union(*cost_and_usage(statement(), version)) <= names


def test_the_versions_name_the_provider_differently() -> None:
    old, new = next(cost_and_usage(statement(), "1.2")), next(cost_and_usage(statement(), "1.4"))
    assert (old["ProviderName"], old["PublisherName"]) == ("Example Cloud", "Example Cloud")
    assert (new["ServiceProviderName"], new["InvoiceDetailId"]) == ("Example Cloud", "1")
    assert "ProviderName" not in new


def test_the_billing_period_is_closed_with_its_statement() -> None:
    [closed], [opened] = billing_period(statement()), billing_period(statement(state="open", closed_at=None))
    assert set(closed) == {column.name for column in BILLING_PERIOD}
    assert (closed["BillingPeriodStatus"], opened["BillingPeriodStatus"]) == ("Closed", "Open")


def test_invoice_details_are_the_lines() -> None:
    found = list(invoice_detail(statement()))
    needed = {column.name for column in INVOICE_DETAIL if not column.nullable}
    assert all(row[name] is not None for row in found for name in needed)
    assert billed(found) == statement().total
    assert [row["InvoiceDetailId"] for row in found] == [str(each.number) for each in LINES]
    assert (found[0]["ReferenceInvoiceId"], found[7]["ReferenceInvoiceId"]) == ("2026-11.acme", "2026-10.acme")


def test_packages_that_are_not_whole_have_a_unit_of_focus() -> None:
    packages = line(
        1,
        "usage",
        "usage/shop/egress",
        sku="egress",
        price_id="p",
        unit="GB",
        quantity=Decimal("0.7"),
        pricing_quantity=Decimal(2),
        pricing_unit="0.5 GB",
        list_unit_price=Decimal(3),
        unit_price=Decimal(3),
        list_amount=Decimal(6),
        exact_amount=Decimal(6),
        amount=Decimal(6),
    )
    [row] = rows((packages,))
    assert UNIT.fullmatch(row["PricingUnit"])
    assert (row["PricingQuantity"], row["PricingUnit"], row["ContractedCost"]) == (2, "Packages", 6)
    assert row["SkuPriceDetails"]["x_package"] == "0.5 GB"
    whole = msgspec.structs.replace(packages, pricing_unit="10 GB")
    [row] = rows((whole,))
    assert row["PricingUnit"] == "10 GB"
    assert "x_package" not in (row["SkuPriceDetails"] or {})
