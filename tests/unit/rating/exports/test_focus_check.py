"""The check of FOCUS files finds nothing in what Meter writes, and each mistake that is put into it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meter.rating.exports.focus_check import MAX_PROBLEMS
from meter.rating.exports.focus_check import UNIT
from meter.rating.exports.focus_check import focus_problems
from meter.rating.exports.focus_columns import COST_AND_USAGE
from meter.rating.exports.focus_csv import decimal_text
from meter.rating.exports.focus_csv import focus_csv
from meter.rating.exports.focus_rows import cost_and_usage
from meter.rating.statements.annex import read_annex_line
from meter.rating.statements.statement import read_statement
from meter.spreadsheet import restore
from tests.statement_documents import ANNEX
from tests.statement_documents import FORMULA
from tests.statement_documents import statement

Record = dict[str, str]
MONTHS = Path(__file__).parents[3] / "data/rating"


def written(version: Any = "1.2", annex: Any = None) -> list[str]:
    return list(focus_csv(COST_AND_USAGE[version], cost_and_usage(statement(), version, annex)))


@pytest.mark.parametrize("version", ["1.2", "1.4"])
@pytest.mark.parametrize("annex", [None, ANNEX])
def test_nothing_is_wrong_with_what_is_written(version: Any, annex: Any) -> None:
    assert focus_problems(written(version, annex), statement(), version) == []


@pytest.mark.parametrize("path", sorted(MONTHS.glob("*/statement-*.json")), ids=lambda path: path.stem)
def test_nothing_is_wrong_with_the_worked_months(path: Path) -> None:
    document = read_statement(path.read_bytes()).statement
    annex = [
        read_annex_line(line)
        for line in (path.parent / f"annex-{path.stem.removeprefix('statement-')}.jsonl").read_bytes().splitlines()
    ]
    for rows in (None, annex):
        table = focus_csv(COST_AND_USAGE["1.2"], cost_and_usage(document, "1.2", rows))
        assert focus_problems(table, document) == []


def changed(change: Callable[[list[Record]], object]) -> list[str]:
    records = list(csv.DictReader(written()))
    change(records)
    output = io.StringIO(newline="")
    writer = csv.DictWriter(output, records[0])
    writer.writeheader()
    writer.writerows(records)
    return focus_problems(output.getvalue().splitlines(keepends=True), statement())


@pytest.mark.parametrize(
    ("row", "column", "value", "problem"),
    [
        (0, "BilledCost", "8.20", "BilledCost adds up to 53.94"),
        (0, "BilledCost", "", "BilledCost is empty"),
        (0, "BilledCost", "8", "BilledCost is '8', not a number such as 24.0"),
        (0, "BilledCost", "8,21", "not a number"),
        (0, "ListCost", "10.2", "is not ListCost 10.2"),
        (0, "ContractedUnitPrice", "-0.01", "ContractedUnitPrice is negative"),
        (0, "ChargeCategory", "Use", "ChargeCategory is 'Use'"),
        (0, "ChargePeriodStart", "2026-11-01", "not a time such as"),
        (0, "ChargePeriodStart", "2026-12-01T00:00:00Z", "a period ends before it starts"),
        (0, "PricingUnit", "hours of 1 VM!", "PricingUnit is"),
        (0, "PricingUnit", "", "only one of PricingQuantity and PricingUnit is empty"),
        (0, "ServiceSubcategory", "Block Storage", "no subcategory of 'Compute'"),
        (0, "Tags", '{"a":{"b":1}}', "Tags is not a JSON object"),
        (0, "SkuPriceId", "", "SkuPriceId of Usage is empty"),
        (0, "ConsumedQuantity", "", "ConsumedQuantity of Usage is empty"),
        (0, "SubAccountName", "", "only one of SubAccountId and SubAccountName is empty"),
        (0, "ServiceName", " ", "ServiceName is blank"),
        (0, "InvoiceId", "other", "the InvoiceId other is not that of the statement"),
        (4, "ChargeFrequency", "Usage-Based", "ChargeFrequency of Purchase is Usage-Based"),
        (9, "PricingCategory", "Standard", "PricingCategory of a tax is not empty"),
    ],
)
def test_a_mistake_is_found(row: int, column: str, value: str, problem: str) -> None:
    def change(records: list[Record]) -> None:
        records[row][column] = value

    assert any(problem in found for found in changed(change))


def test_a_missing_column_is_named() -> None:
    def change(records: list[Record]) -> None:
        for record in records:
            del record["ListCost"]

    assert changed(change) == ["the column ListCost is missing"]


def test_a_missing_row_is_seen_in_the_sum() -> None:
    assert changed(lambda records: records.pop(0)) == [
        "BilledCost adds up to 45.74, the total of the statement is 53.95"
    ]


def test_a_broken_line_is_told_and_not_more() -> None:
    lines = written()
    lines[1] = "a,b\r\n"
    assert "line 2: the number of cells is not that of the header" in focus_problems(lines, statement())


def test_the_number_of_problems_is_bounded() -> None:
    lines = written()
    assert len(focus_problems([lines[0], *["x\r\n"] * 1000], statement())) == MAX_PROBLEMS


@pytest.mark.parametrize("unit", ["Hours", "GiB-Hours", "GB", "Requests", "1000 Requests", "Mb/Second", "vCPU-Hours"])
def test_units_of_the_specification_are_accepted(unit: str) -> None:
    assert UNIT.fullmatch(unit)


@pytest.mark.parametrize(
    ("value", "text"),
    [("24", "24.0"), ("1E+3", "1000.0"), ("-0.00", "0.0"), ("1E-18", "0.000000000000000001"), ("8.210", "8.21")],
)
def test_numbers_have_a_point_and_no_exponent(value: str, text: str) -> None:
    assert decimal_text(Decimal(value)) == text


def test_a_name_that_is_a_formula_is_text_to_a_spreadsheet() -> None:
    names = {record["SubAccountName"] for record in csv.DictReader(written())}
    assert FORMULA not in names
    assert FORMULA in {restore(name) for name in names}
