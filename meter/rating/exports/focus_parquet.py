"""FOCUS data sets as Parquet files. Needs pyarrow: the extra ``focus`` of the package."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from decimal import ROUND_HALF_EVEN
from decimal import Context
from decimal import Decimal
from itertools import islice
from typing import Any
from typing import BinaryIO

from meter.rating.exports.focus_columns import FocusColumn
from meter.rating.exports.focus_columns import FocusVersion
from meter.rating.exports.focus_rows import FocusRow
from meter.rating.exports.focus_rows import json_text

BATCH_ROWS = 10_000
"""Rows in memory, and in a row group of the file."""

DECIMAL_DIGITS = 38
DECIMAL_PLACES = 18
"""The decimals of all numbers; products of quantity and unit price are rounded to them."""

_STEP = Decimal(1).scaleb(-DECIMAL_PLACES)
_ROUNDING = Context(prec=DECIMAL_DIGITS, rounding=ROUND_HALF_EVEN)


class ParquetUnavailable(Exception):
    """The library that writes Parquet is not installed; the text says how to install it."""


def write_parquet(
    output: BinaryIO, columns: Sequence[FocusColumn], rows: Iterable[FocusRow], version: FocusVersion
) -> None:
    """Write ``rows`` to ``output``, a batch at a time.

    :raises ParquetUnavailable: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ParquetUnavailable("Parquet needs pyarrow: pip install 'meter[focus]'") from error

    types = {
        "text": pyarrow.string(),
        "json": pyarrow.string(),
        "time": pyarrow.timestamp("us", tz="UTC"),
        "decimal": pyarrow.decimal128(DECIMAL_DIGITS, DECIMAL_PLACES),
    }
    schema = pyarrow.schema(
        [pyarrow.field(column.name, types[column.type], nullable=column.nullable) for column in columns],
        metadata={"focus_version": version},
    )
    remaining = iter(rows)
    with pyarrow.parquet.ParquetWriter(output, schema) as writer:
        while batch := list(islice(remaining, BATCH_ROWS)):
            arrays = [
                pyarrow.array([_value(row.get(column.name)) for row in batch], types[column.type]) for column in columns
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def _value(value: Any) -> Any:
    match value:
        case Decimal():
            return value.quantize(_STEP, ROUND_HALF_EVEN, _ROUNDING)
        case datetime():
            return value.astimezone(UTC)
        case dict():
            return json_text(value)
    return value
