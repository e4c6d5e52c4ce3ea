"""Rows of the FOCUS data sets of a statement, as mappings of column to value.

A line of the statement is a row. Its BilledCost is the line's rounded amount, so that the sum of a statement's rows is its
total to the last digit. With the annex, a line of usage is divided among the resources that used it
(:mod:`meter.rating.exports.resource_shares`); the sums stay the same. docs/statements-exports.rst has the columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from meter.rating.exact import EXACT
from meter.rating.exports.focus_columns import SERVICE_SUBCATEGORIES
from meter.rating.exports.focus_columns import FocusVersion
from meter.rating.exports.focus_columns import subcategory_of
from meter.rating.exports.resource_shares import ResourceShare
from meter.rating.exports.resource_shares import shared_lines
from meter.rating.period import start_of_day
from meter.rating.period import timezone_named
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import StatementLine

FocusRow = Mapping[str, Any]
"""A value for each column that has one: text, ``Decimal``, ``datetime``, or a dictionary that is written as JSON."""

CATEGORIES: Mapping[str, str] = {
    "usage": "Usage",
    "fixed": "Purchase",
    "discount": "Adjustment",
    "minimum": "Adjustment",
    "credit": "Credit",
    "tax": "Tax",
}
"""The charge category of each kind of line; that of a correction is the one of the line it amends."""

_SERVICES: Mapping[str, str] = {
    "discount": "Discount",
    "minimum": "Minimum charge",
    "credit": "Credit",
    "tax": "Tax",
}
"""The service of lines that belong to none."""

PACKAGES = "Packages"
"""The unit of packages that have no whole number of units: FOCUS has no unit ``0.5 GB``."""

ZONE_KEYS = ("availability_zone", "OS-EXT-AZ:availability_zone")
"""Names of values of a SKU that state the availability zone."""


@dataclass(frozen=True, slots=True)
class _Pricing:
    """Quantity in the unit of the price, prices and costs: quantity × unit price is the cost, exactly."""

    quantity: Decimal | None = None
    unit: str | None = None
    list_unit_price: Decimal | None = None
    unit_price: Decimal | None = None
    list_cost: Decimal = Decimal(0)
    contracted_cost: Decimal = Decimal(0)


def cost_and_usage(
    statement: Statement, version: FocusVersion = "1.2", annex: Iterable[AnnexRow] | None = None
) -> Iterator[FocusRow]:
    """Yield the rows of the Cost and Usage data set; with ``annex`` a row for each line and resource.

    :raises ValueError: the annex is not in its order, or not that of the statement; or the statement's time zone is not known.
    """
    common = _common(statement, version)
    timezone = timezone_named(statement.period.timezone)
    for line, share in shared_lines(statement, annex):
        yield {**common, **_line_columns(statement, line, share, version, timezone)}


def billing_period(statement: Statement) -> Iterator[FocusRow]:
    """Yield the row of the Billing Period data set of version 1.4."""
    yield {
        "BillingPeriodCreated": statement.period.start,
        "BillingPeriodEnd": statement.period.end,
        "BillingPeriodLastUpdated": statement.closed_at or statement.as_of,
        "BillingPeriodStart": statement.period.start,
        "BillingPeriodStatus": "Closed" if statement.state == "closed" else "Open",
        "InvoiceIssuerName": issuer_of(statement),
    }


def invoice_detail(statement: Statement) -> Iterator[FocusRow]:
    """Yield the rows of the Invoice Detail data set of version 1.4: one for each line."""
    changed = statement.closed_at or statement.as_of
    for line in statement.lines:
        yield {
            "BilledCost": line.amount,
            "BillingAccountId": statement.account.id,
            "BillingCurrency": statement.currency,
            "BillingPeriodEnd": statement.period.end,
            "BillingPeriodStart": statement.period.start,
            "ChargeCategory": charge_category(line),
            "InvoiceDetailCreated": changed,
            "InvoiceDetailDescription": line.description or None,
            "InvoiceDetailId": str(line.number),
            "InvoiceDetailLastUpdated": changed,
            "InvoiceId": statement.statement_id,
            "InvoiceIssueDate": statement.closed_at,
            "InvoiceIssueStatus": "Issued" if statement.state == "closed" else "Open",
            "InvoiceIssuerName": issuer_of(statement),
            "PaymentTerms": "As agreed with the issuer",
            "ReferenceInvoiceId": line.amends.statement_id if line.amends else statement.statement_id,
        }


def issuer_of(statement: Statement) -> str:
    """Return the name of the issuer, which no data set can leave out: that of the book if it names none."""
    return statement.issuer or statement.book.name


def charge_category(line: StatementLine) -> str:
    """Return the charge category of a line; that of a correction is the one of the line whose key its own key ends with."""
    if line.kind != "correction":
        return CATEGORIES.get(line.kind, "Adjustment")
    return next((CATEGORIES[part] for part in line.key.split("/") if part in CATEGORIES), "Adjustment")


def _common(statement: Statement, version: FocusVersion) -> dict[str, Any]:
    issuer = issuer_of(statement)
    columns = {
        "BillingAccountId": statement.account.id,
        "BillingAccountName": statement.account.name or None,
        "BillingCurrency": statement.currency,
        "BillingPeriodEnd": statement.period.end,
        "BillingPeriodStart": statement.period.start,
        "InvoiceId": statement.statement_id,
        "InvoiceIssuerName": issuer,
        "PricingCurrency": statement.currency,
        "RegionId": statement.region or None,
        "RegionName": statement.region or None,
    }
    if version == "1.2":
        return {**columns, "ProviderName": issuer, "PublisherName": issuer}
    return {**columns, "ServiceProviderName": issuer, "HostProviderName": issuer}


def _line_columns(
    statement: Statement,
    line: StatementLine,
    share: ResourceShare | None,
    version: FocusVersion,
    timezone: ZoneInfo,
) -> dict[str, Any]:
    charge = charge_category(line)
    service = line.service or _SERVICES.get(line.kind, "Other")
    category = line.category if line.category in SERVICE_SUBCATEGORIES else "Other"
    pricing = _pricing(line, share, charge)
    resource = line.resource_id if share is None else share.resource_id
    subcategory = subcategory_of(category, service)
    billed = line.amount if share is None else share.amount
    is_tax = charge == "Tax"
    sku = None if is_tax else line.sku or line.price_id or (line.key if charge == "Purchase" else None)
    price = None if is_tax else line.price_id or (line.key if charge == "Purchase" else None)
    consumed = line.quantity if share is None else share.quantity
    if charge != "Usage" or line.unit is None:
        consumed = None
    values = line.values if share is None else {**line.values, **share.values}
    columns = {
        "AvailabilityZone": next((values[key] for key in ZONE_KEYS if values.get(key)), None),
        "BilledCost": billed,
        "ChargeCategory": charge,
        "ChargeClass": "Correction" if line.kind == "correction" else None,
        "ChargeDescription": line.description or None,
        "ChargeFrequency": _frequency(line, charge),
        "ChargePeriodStart": _start(line.first, timezone),
        "ChargePeriodEnd": _start(line.until, timezone),
        "ConsumedQuantity": consumed,
        "ConsumedUnit": None if consumed is None else line.unit,
        "ContractedCost": pricing.contracted_cost,
        "ContractedUnitPrice": pricing.unit_price,
        "EffectiveCost": billed,
        "ListCost": pricing.list_cost,
        "ListUnitPrice": pricing.list_unit_price,
        "PricingCategory": "Standard" if charge in ("Usage", "Purchase") else None,
        "PricingCurrencyContractedUnitPrice": pricing.unit_price,
        "PricingCurrencyEffectiveCost": billed,
        "PricingCurrencyListUnitPrice": pricing.list_unit_price,
        "PricingQuantity": pricing.quantity,
        "PricingUnit": pricing.unit,
        "ResourceId": resource,
        "ResourceType": None if resource is None else service,
        "ServiceCategory": category,
        "ServiceName": service,
        "ServiceSubcategory": subcategory,
        "SkuId": sku,
        "SkuMeter": None if sku is None else line.sku or line.description or sku,
        "SkuPriceDetails": _price_details(line) if price is not None else None,
        "SkuPriceId": price,
        "SubAccountId": line.project_id or None,
        "SubAccountName": (line.project_name or line.project_id) if line.project_id else None,
        "Tags": dict(values) or None,
        "x_AmendsLine": None if line.amends is None or line.amends.line is None else str(line.amends.line),
        "x_AmendsStatementId": None if line.amends is None else line.amends.statement_id,
        "x_LineKind": line.kind,
        "x_StatementLine": str(line.number),
        "x_TaxCategory": line.tax_category,
        "x_Tier": None if line.tier is None else str(line.tier),
    }
    if version == "1.4":
        columns["InvoiceDetailId"] = str(line.number)
    return columns


def _start(day: date, timezone: ZoneInfo) -> datetime:
    return start_of_day(day, timezone)


def _frequency(line: StatementLine, charge: str) -> str:
    if charge == "Usage":
        return "Usage-Based"
    if charge == "Purchase" and line.unit == "Months":
        return "Recurring"
    return "One-Time"


def _price_details(line: StatementLine) -> dict[str, str] | None:
    details = {f"x_{key}": value for key, value in line.values.items()}
    if line.tier is not None:
        details["x_tier"] = str(line.tier)
    if line.pricing_unit is not None and _is_fractional(line.pricing_unit):
        details["x_package"] = line.pricing_unit
    return details or None


def _pricing(line: StatementLine, share: ResourceShare | None, charge: str) -> _Pricing:
    """Return quantity, prices and costs of a line, or of a resource's share of it.

    The quantity of packages and of prices of a month, which is another than that of the usage, has 12 decimals at most: their costs
    are products of it, and can differ from the line's exact amounts behind these decimals.
    """
    costs = _Pricing(list_cost=line.list_amount, contracted_cost=line.exact_amount)
    if share is not None:
        costs = _Pricing(list_cost=share.list_amount, contracted_cost=share.exact_amount)
    if charge == "Credit":
        return _Pricing(list_cost=line.amount, contracted_cost=line.amount)
    if charge not in ("Usage", "Purchase"):
        return costs
    list_price, price = line.list_unit_price, line.unit_price
    if line.kind == "correction":
        # The quantity may be the difference of two usages and the amount that of two roundings: no product has to hold.
        return replace(costs, list_unit_price=list_price, unit_price=price)
    quantity = _pricing_quantity(line) if share is None else share.pricing_quantity
    if quantity is None or list_price is None or price is None:
        return _whole(line, costs)
    unit = line.pricing_unit or line.unit or "Units"
    return _Pricing(
        quantity,
        PACKAGES if _is_fractional(unit) else unit,
        list_price,
        price,
        EXACT.multiply(list_price, quantity),
        EXACT.multiply(price, quantity),
    )


def _is_fractional(unit: str) -> bool:
    """Return whether ``unit`` is a multiple that is not whole, such as ``0.5 GB``."""
    multiple, separator, _ = unit.partition(" ")
    return bool(separator) and "." in multiple


def _pricing_quantity(line: StatementLine) -> Decimal | None:
    return line.quantity if line.pricing_quantity is None else line.pricing_quantity


def _whole(line: StatementLine, costs: _Pricing) -> _Pricing:
    """Return the pricing of one unit that costs the whole amount; unit prices are never negative."""
    if costs.list_cost < 0 or costs.contracted_cost < 0:
        return costs
    unit = line.unit or "Units"
    return _Pricing(Decimal(1), unit, costs.list_cost, costs.contracted_cost, costs.list_cost, costs.contracted_cost)


def json_text(value: Mapping[str, Any]) -> str:
    """Return a value of a JSON column: an object with sorted keys."""
    return msgspec.json.encode(value, order="sorted").decode()
