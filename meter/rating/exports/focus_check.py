"""The check of a FOCUS Cost and Usage file against the specification and against the statement it was made from.

It checks what a validator of the FinOps Foundation does where none is at hand: columns, types, formats and units, allowed
values, which values may or must be null, cost = unit price × quantity; and that the costs of the file add up to the total.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from decimal import Decimal
from decimal import InvalidOperation
from itertools import islice

import msgspec

from meter.rating.exact import EXACT
from meter.rating.exports.focus_columns import CHARGE_CATEGORIES
from meter.rating.exports.focus_columns import CHARGE_FREQUENCIES
from meter.rating.exports.focus_columns import COST_AND_USAGE
from meter.rating.exports.focus_columns import PRICING_CATEGORIES
from meter.rating.exports.focus_columns import SERVICE_SUBCATEGORIES
from meter.rating.exports.focus_columns import FocusColumn
from meter.rating.exports.focus_columns import FocusVersion
from meter.rating.statements.statement import Statement

MAX_PROBLEMS = 100
"""Problems that are told; a file with more is wrong in kind, not in places."""

_TIME = re.compile(r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\dZ", re.ASCII)
_DECIMAL = re.compile(r"-?\d+\.\d+", re.ASCII)
_SIZES = "|".join(f"{prefix}{unit}" for unit in "bB" for prefix in ("", "K", "M", "G", "T", "P", "E"))
_SIZES += "|" + "|".join(f"{prefix}i{unit}" for unit in "bB" for prefix in "KMGTPE")
_TIMES = "Years?|Months?|Days?|Hours?|Minutes?|Seconds?"
_COUNTS = r"[A-Za-z][A-Za-z0-9]*(?: [A-Za-z][A-Za-z0-9]*)*"
UNIT = re.compile(rf"(?:[1-9]\d* )?(?:{_SIZES}|{_COUNTS})(?:[-/](?:{_TIMES}))?(?:/(?:{_SIZES}|{_COUNTS}))?", re.ASCII)
"""What the unit format of FOCUS recommends: ``GB``, ``GB-Hours``, ``1000 Requests``, ``Requests/Second``."""

_VALUES: Mapping[str, tuple[str, ...]] = {
    "ChargeCategory": CHARGE_CATEGORIES,
    "ChargeClass": ("Correction",),
    "ChargeFrequency": CHARGE_FREQUENCIES,
    "PricingCategory": PRICING_CATEGORIES,
    "ServiceCategory": tuple(SERVICE_SUBCATEGORIES),
}
_NULL_FOR_TAX = ("PricingQuantity", "ListUnitPrice", "ContractedUnitPrice", "PricingCategory", "SkuId", "SkuPriceId")
_PAIRS = (
    ("PricingQuantity", "PricingUnit"),
    ("ConsumedQuantity", "ConsumedUnit"),
    ("SubAccountId", "SubAccountName"),
    ("RegionId", "RegionName"),
    ("ResourceId", "ResourceType"),
)
_PRODUCTS = (("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost"))

_Row = Mapping[str, str]


def focus_problems(lines: Iterable[str], statement: Statement, version: FocusVersion = "1.2") -> list[str]:
    """Return what is wrong in a Cost and Usage file, at most :data:`MAX_PROBLEMS`; ``lines`` are those of the CSV."""
    return list(islice(_problems(lines, statement, version), MAX_PROBLEMS))


def _problems(lines: Iterable[str], statement: Statement, version: FocusVersion) -> Iterator[str]:
    reader = csv.DictReader(lines, strict=True)
    columns = COST_AND_USAGE[version]
    header = reader.fieldnames or []
    for column in columns:
        if column.name not in header:
            yield f"the column {column.name} is missing"
    if len(set(header)) < len(header):
        yield "a column is there twice"
    if set(header) < {column.name for column in columns}:
        return
    sums: dict[str, Decimal] = {}
    for number, row in enumerate(reader, 2):
        for problem in _problems_of_row(row, columns):
            yield f"line {number}: {problem}"
        cost = _number(row, "BilledCost")
        if cost is not None:
            sums[row["InvoiceId"]] = EXACT.add(sums.get(row["InvoiceId"], Decimal(0)), cost)
    for invoice in sums:
        if invoice != statement.statement_id:
            yield f"the InvoiceId {invoice} is not that of the statement {statement.statement_id}"
    billed = sums.get(statement.statement_id, Decimal(0))
    if billed != statement.total:
        yield f"BilledCost adds up to {billed}, the total of the statement is {statement.total}"


def _problems_of_row(row: _Row, columns: Iterable[FocusColumn]) -> Iterator[str]:
    if None in row or None in row.values():
        yield "the number of cells is not that of the header"
        return
    for column in columns:
        yield from _problems_of_cell(column, row[column.name])
    for name, allowed in _VALUES.items():
        if row[name] and row[name] not in allowed:
            yield f"{name} is {row[name]!r}, not one of {', '.join(allowed)}"
    category, subcategory = row["ServiceCategory"], row["ServiceSubcategory"]
    if subcategory not in (*SERVICE_SUBCATEGORIES.get(category, ()), f"Other ({category})"):
        yield f"{subcategory!r} is no subcategory of {category!r}"
    for name in ("PricingUnit", "ConsumedUnit"):
        if row[name] and not UNIT.fullmatch(row[name]):
            yield f"{name} is {row[name]!r}: write it as in GiB-Hours, Hours, Requests or 1000 Requests"
    yield from _problems_of_nulls(row)
    if row["BillingPeriodStart"] >= row["BillingPeriodEnd"] or row["ChargePeriodStart"] >= row["ChargePeriodEnd"]:
        yield "a period ends before it starts"
    if row["ChargeClass"] != "Correction":
        yield from _problems_of_products(row)


def _problems_of_cell(column: FocusColumn, text: str) -> Iterator[str]:
    if not text:
        if not column.nullable:
            yield f"{column.name} is empty"
        return
    match column.type:
        case "decimal" if not _DECIMAL.fullmatch(text):
            yield f"{column.name} is {text!r}, not a number such as 24.0"
        case "time" if not _TIME.fullmatch(text):
            yield f"{column.name} is {text!r}, not a time such as 2026-11-01T00:00:00Z"
        case "json" if not _is_flat_object(text):
            yield f"{column.name} is not a JSON object of plain values"
        case "text" if not text.strip():
            yield f"{column.name} is blank"


def _is_flat_object(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, str | float | bool | None])
    except msgspec.MsgspecError:
        return False
    return True


def _problems_of_nulls(row: _Row) -> Iterator[str]:
    charge, is_correction = row["ChargeCategory"], row["ChargeClass"] == "Correction"
    if charge == "Tax":
        yield from (f"{name} of a tax is not empty" for name in _NULL_FOR_TAX if row[name])
    if charge in ("Usage", "Purchase") and not is_correction:
        yield from (f"{name} of {charge} is empty" for name in _NULL_FOR_TAX if not row[name])
    if charge != "Usage" and row["ConsumedQuantity"]:
        yield f"ConsumedQuantity of {charge} is not empty"
    if charge == "Usage" and not is_correction and not row["ConsumedQuantity"]:
        yield "ConsumedQuantity of Usage is empty"
    if charge == "Purchase" and row["ChargeFrequency"] == "Usage-Based":
        yield "ChargeFrequency of Purchase is Usage-Based"
    for first, second in _PAIRS:
        if bool(row[first]) != bool(row[second]):
            yield f"only one of {first} and {second} is empty"


def _problems_of_products(row: _Row) -> Iterator[str]:
    quantity = _number(row, "PricingQuantity")
    for price_column, cost_column in _PRODUCTS:
        price, cost = _number(row, price_column), _number(row, cost_column)
        if price is not None and price < 0:
            yield f"{price_column} is negative"
        if quantity is not None and price is not None and cost is not None and EXACT.multiply(price, quantity) != cost:
            yield f"{price_column} {price} × PricingQuantity {quantity} is not {cost_column} {cost}"


def _number(row: _Row, name: str) -> Decimal | None:
    try:
        return Decimal(row[name]) if row[name] else None
    except (InvalidOperation, TypeError):
        return None
