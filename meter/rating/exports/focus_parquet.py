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


class FocusParquet:
    """A Parquet file that is written to ``output``, a batch of rows at a time; it is complete once it is closed.

    :raises ParquetUnavailable: pyarrow is not installed.
    """

    def __init__(self, output: BinaryIO, columns: Sequence[FocusColumn], version: FocusVersion) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ParquetUnavailable(
                "Parquet needs the library pyarrow, which is not installed: pip install pyarrow"
            ) from error

        self._pyarrow: Any = pyarrow
        self._columns = columns
        self._types = {
            "text": pyarrow.string(),
            "json": pyarrow.string(),
            "time": pyarrow.timestamp("us", tz="UTC"),
            "decimal": pyarrow.decimal128(DECIMAL_DIGITS, DECIMAL_PLACES),
        }
        fields = [pyarrow.field(each.name, self._types[each.type], nullable=each.nullable) for each in columns]
        self._schema = pyarrow.schema(fields, metadata={"focus_version": version})
        self._writer = pyarrow.parquet.ParquetWriter(output, self._schema)

    def write(self, rows: Iterable[FocusRow]) -> None:
        """Write rows."""
        remaining = iter(rows)
        while batch := list(islice(remaining, BATCH_ROWS)):
            arrays = [
                self._pyarrow.array([_value(row.get(column.name)) for row in batch], self._types[column.type])
                for column in self._columns
            ]
            self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()


def _value(value: Any) -> Any:
    match value:
        case Decimal():
            return value.quantize(_STEP, ROUND_HALF_EVEN, _ROUNDING)
        case datetime():
            return value.astimezone(UTC)
        case dict():
            return json_text(value)
    return value
