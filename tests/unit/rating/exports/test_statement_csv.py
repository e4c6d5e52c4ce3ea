"""The lines of a statement as CSV."""

from __future__ import annotations

import csv
from decimal import Decimal

from meter.rating.exports.statement_csv import COLUMNS
from meter.rating.exports.statement_csv import statement_csv
from meter.spreadsheet import restore
from tests.statement_documents import FORMULA
from tests.statement_documents import LINES
from tests.statement_documents import line
from tests.statement_documents import statement


def rows(**changes: object) -> list[dict[str, str]]:
    return list(csv.DictReader(statement_csv(statement(**changes))))


def test_there_is_a_record_for_each_line_and_they_add_up_to_the_total() -> None:
    found = rows()
    assert [row["number"] for row in found] == [str(each.number) for each in LINES]
    assert list(found[0]) == list(COLUMNS)
    assert sum(Decimal(row["amount"]) for row in found) == statement().total


def test_numbers_and_days_are_written_as_they_are_in_the_statement() -> None:
    row = rows()[7]
    assert (row["quantity"], row["unit_price"], row["exact_amount"], row["amount"]) == ("-4", "0.01", "-0.04", "-0.04")
    assert (row["first"], row["until"], row["tier"]) == ("2026-10-01", "2026-11-01", "1")
    assert (row["amends_statement_id"], row["amends_line"]) == ("2026-10.acme", "1")


def test_a_tiny_amount_is_written_without_an_exponent() -> None:
    tiny = line(1, "usage", "k", list_amount=Decimal("1E-9"), exact_amount=Decimal("1E-9"), amount=Decimal("0.00"))
    assert rows(lines=(tiny,))[0]["exact_amount"] == "0.000000001"


def test_a_name_that_is_a_formula_is_text_to_a_spreadsheet() -> None:
    name = rows()[3]["project_name"]
    assert name.startswith("'=")
    assert restore(name) == FORMULA


def test_values_are_json_without_semicolons() -> None:
    odd = line(
        1, "usage", "k", values={"a": "x;=1+1"}, list_amount=Decimal(0), exact_amount=Decimal(0), amount=Decimal(0)
    )
    assert rows(lines=(odd,))[0]["values"] == '{"a":"x\\u003b=1+1"}'
