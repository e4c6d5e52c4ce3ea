"""The lines of a statement as CSV: one record a line, in their order. The amounts add up to the statement's total."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec

from meter.rating.statements.statement import Statement
from meter.spreadsheet import neutralize

_OF_STATEMENT = ("statement_id", "account_id", "account_name", "period", "currency")
_OF_LINE = (
    "number",
    "kind",
    "project_id",
    "project_name",
    "description",
    "first",
    "until",
    "sku",
    "price_id",
    "tier",
    "values",
    "quantity",
    "unit",
    "list_unit_price",
    "unit_price",
    "pricing_quantity",
    "pricing_unit",
    "list_amount",
    "exact_amount",
    "amount",
    "resource_id",
    "service",
    "category",
    "tax_category",
    "key",
)
COLUMNS = (*_OF_STATEMENT, *_OF_LINE, "amends_statement_id", "amends_line")
"""The header: fields of the statement and of its lines, as docs/statements.rst names them."""


def statement_csv(statement: Statement) -> Iterator[str]:
    """Yield the CSV of the statement's lines, its header first."""
    record = io.StringIO(newline="")
    writer = csv.writer(record)

    def text(cells: Iterable[Any]) -> str:
        record.seek(0)
        record.truncate()
        writer.writerow([_cell(each) for each in cells])
        return record.getvalue()

    yield text(COLUMNS)
    account = statement.account
    common = (statement.statement_id, account.id, account.name, statement.period.name, statement.currency)
    for line in statement.lines:
        amends = (None, None) if line.amends is None else (line.amends.statement_id, line.amends.line)
        yield text((*common, *(getattr(line, name) for name in _OF_LINE), *amends))


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case Decimal():
            return f"{value:f}"
        case int():
            return str(value)
        case date():
            return value.isoformat()
        case dict():
            # A spreadsheet whose separator is a semicolon would see a cell after it: JSON can write it otherwise.
            return msgspec.json.encode(value, order="sorted").decode().replace(";", "\\u003b")
    return neutralize(str(value))
