"""The files that ``meter-rate export`` writes: statements one after the other, in one format."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import mkstemp
from typing import IO
from typing import BinaryIO
from typing import Protocol
from typing import cast

from meter.commands.command import CommandError
from meter.rating.exports.focus_columns import FocusDataset
from meter.rating.exports.focus_columns import FocusVersion
from meter.rating.exports.focus_csv import focus_csv
from meter.rating.exports.focus_parquet import FocusParquet
from meter.rating.exports.focus_rows import FocusRow
from meter.rating.exports.formats import TEXT_FORMATS
from meter.rating.exports.formats import focus_columns
from meter.rating.exports.formats import focus_rows
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement import statement_sha256

FOCUS_VERSIONS: dict[str, FocusVersion] = {"focus": "1.2", "focus-1.4": "1.4", "parquet": "1.2", "parquet-1.4": "1.4"}

TABLES = ("csv", *FOCUS_VERSIONS)
"""Formats that have room for several statements."""


class StatementOutput(Protocol):
    """Writes statements in a format."""

    def add(self, signed: SignedStatement, annex: Iterable[AnnexRow] | None) -> None:
        """Write a statement; ``ValueError`` if the annex is wrong."""

    def close(self) -> None:
        """Write what a file ends with."""


class TextOutput:
    """Writes statements as text. Of the second and later ones the header is left out."""

    def __init__(self, output: BinaryIO, chosen: str, dataset: FocusDataset) -> None:
        self._output = output
        self._format = chosen
        self._dataset = dataset
        self._first = True
        self._periods: set[tuple[object, ...]] = set()

    def add(self, signed: SignedStatement, annex: Iterable[AnnexRow] | None) -> None:
        """Write a statement."""
        for piece in islice(self._pieces(signed, annex), 0 if self._first else 1, None):
            self._output.write(piece.encode())
        self._first = False

    def close(self) -> None:
        """Do nothing: text has no end."""

    def _pieces(self, signed: SignedStatement, annex: Iterable[AnnexRow] | None) -> Iterator[str]:
        version = FOCUS_VERSIONS.get(self._format)
        if version is not None:
            rows = focus_rows(signed.statement, version, self._dataset, annex)
            return focus_csv(focus_columns(version, self._dataset), new_rows(rows, self._dataset, self._periods))
        if self._format == "json":
            return iter([signed_document(signed).decode()])
        sha256 = statement_sha256(signed.statement) if self._format == "html" else ""
        return TEXT_FORMATS[self._format].write(signed, sha256)


class ParquetOutput:
    """Writes statements as a Parquet file."""

    def __init__(self, output: BinaryIO, version: FocusVersion, dataset: FocusDataset) -> None:
        self._file = FocusParquet(output, focus_columns(version, dataset), version)
        self._version = version
        self._dataset = dataset
        self._periods: set[tuple[object, ...]] = set()

    def add(self, signed: SignedStatement, annex: Iterable[AnnexRow] | None) -> None:
        """Write a statement."""
        rows = focus_rows(signed.statement, self._version, self._dataset, annex)
        self._file.write(new_rows(rows, self._dataset, self._periods))

    def close(self) -> None:
        """Write the end of the file, without which it cannot be read."""
        self._file.close()


def statement_output(output: BinaryIO, chosen: str, dataset: FocusDataset) -> StatementOutput:
    """Return what writes the format ``chosen``."""
    if chosen.startswith("parquet"):
        return ParquetOutput(output, FOCUS_VERSIONS[chosen], dataset)
    return TextOutput(output, chosen, dataset)


def new_rows(rows: Iterable[FocusRow], dataset: FocusDataset, seen: set[tuple[object, ...]]) -> Iterator[FocusRow]:
    """Yield ``rows``, but a billing period, which several statements have, only once."""
    for row in rows:
        if dataset == "billing-period":
            key = (row["BillingPeriodStart"], row["BillingPeriodEnd"], row["InvoiceIssuerName"])
            if key in seen:
                continue
            seen.add(key)
        yield row


@contextmanager
def output_file(path: str | None) -> Iterator[BinaryIO]:
    """Provide the output. A file appears under its name when it is complete, and only its owner can read it."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    try:
        handle, name = mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error
    try:
        file: IO[bytes]
        with os.fdopen(handle, "wb") as file:
            yield cast(BinaryIO, file)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
