"""FOCUS data sets as CSV: UTF-8, a header, one record a line, empty where a value is null."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from decimal import Decimal
from typing import Any

from meter.rating.exports.focus_columns import FocusColumn
from meter.rating.exports.focus_rows import FocusRow
from meter.rating.exports.focus_rows import json_text
from meter.spreadsheet import neutralize


def focus_csv(columns: Sequence[FocusColumn], rows: Iterable[FocusRow]) -> Iterator[str]:
    """Yield the CSV of ``rows`` line by line, its header first."""
    record = io.StringIO(newline="")
    writer = csv.writer(record)

    def line(cells: Iterable[str]) -> str:
        record.seek(0)
        record.truncate()
        writer.writerow(cells)
        return record.getvalue()

    yield line(column.name for column in columns)
    for row in rows:
        yield line(cell(row.get(column.name)) for column in columns)


def cell(value: Any) -> str:
    """Return a value as it stands in a cell; text that a spreadsheet could take for a formula has an apostrophe before it."""
    match value:
        case None:
            return ""
        case Decimal():
            return decimal_text(value)
        case datetime():
            return time_text(value)
        case dict():
            # A spreadsheet whose separator is a semicolon would see a cell after it: JSON can write it otherwise.
            return json_text(value).replace(";", "\\u003b")
    return neutralize(str(value))


def decimal_text(value: Decimal) -> str:
    """Return a number with a point, without exponent and needless zeros: readers take a column of integers for another type."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    if text in ("-0", ""):
        text = "0"
    return text if "." in text else f"{text}.0"


def time_text(value: datetime) -> str:
    """Return a time as ``2026-11-01T00:00:00Z``; whole seconds, as FOCUS wants them."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
