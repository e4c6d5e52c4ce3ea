"""``meter-rate export``: a statement as signed JSON, CSV, page or FOCUS data set, from a file or from the database."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from tempfile import mkstemp
from typing import IO
from typing import Any
from typing import BinaryIO
from typing import cast
from typing import get_args

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import escape_terminal
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.rating.exports.focus_check import focus_problems
from meter.rating.exports.focus_columns import FocusDataset
from meter.rating.exports.focus_columns import FocusVersion
from meter.rating.exports.focus_csv import focus_csv
from meter.rating.exports.focus_parquet import ParquetUnavailable
from meter.rating.exports.focus_parquet import write_parquet
from meter.rating.exports.formats import TEXT_FORMATS
from meter.rating.exports.formats import focus_table
from meter.rating.statements.annex import read_annex_line
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_store import IStatementStore

FOCUS_VERSIONS: dict[str, FocusVersion] = {"focus": "1.2", "focus-1.4": "1.4", "parquet": "1.2", "parquet-1.4": "1.4"}
FORMATS = (*TEXT_FORMATS, "focus-1.4", "parquet", "parquet-1.4", "annex")

MAX_STATEMENT_BYTES = 256 * 1024 * 1024
"""The largest document that is read."""

MAX_ANNEX_LINE_BYTES = 1024 * 1024
"""The longest line of an annex: a resource has at most a quantity for each day of a month."""

STORED = "stored"
"""The value of --annex for the annex in the database."""


class ExportOptions(RateOptions):
    """The options of ``meter-rate export``."""

    synopsis = "Usage: meter-rate export FILE|STATEMENT_ID [--format FORMAT] [--annex FILE] [--output FILE]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["format", "f", "csv", f"One of {', '.join(FORMATS)}."],
        ["dataset", "d", "cost-and-usage", "Data set of FOCUS 1.4: cost-and-usage, billing-period or invoice-detail."],
        ["annex", "a", None, f"Annex of the statement, for FOCUS by resource: a file, or '{STORED}'."],
        ["output", "o", None, "File to write. [default: standard output]"],
    ]
    optFlags = [  # noqa: N815, RUF012
        ["check", None, "Check the FOCUS file instead of writing it: every problem on a line, exit status 1."]
    ]

    def parseArgs(self, source: str) -> None:  # type: ignore[override]
        """Take the statement: a file or an id."""
        self["source"] = source

    def postOptions(self) -> None:
        """Check what belongs together."""
        chosen = self["format"]
        if chosen not in FORMATS:
            raise usage.UsageError(f"--format must be one of {', '.join(FORMATS)}, not {chosen}")
        if self["dataset"] not in get_args(FocusDataset):
            raise usage.UsageError(f"--dataset must be one of {', '.join(get_args(FocusDataset))}")
        if self["dataset"] != "cost-and-usage" and FOCUS_VERSIONS.get(chosen) != "1.4":
            raise usage.UsageError("--dataset needs --format focus-1.4 or parquet-1.4")
        if self["annex"] is not None and (chosen not in FOCUS_VERSIONS or self["dataset"] != "cost-and-usage"):
            raise usage.UsageError("--annex is for the data set cost-and-usage of FOCUS")
        if self["check"] and (not chosen.startswith("focus") or self["dataset"] != "cost-and-usage"):
            raise usage.UsageError("--check needs --format focus or focus-1.4")
        if chosen.startswith("parquet") and self["output"] is None and sys.stdout.isatty():
            raise usage.UsageError("Parquet is not for a terminal: give --output FILE")


async def work(context: RateContext, options: Any) -> int:
    """Write the export; return the exit status."""
    with ExitStack() as files:
        signed, annex = await _source(context, options, files)
        if options["check"]:
            return _check(signed, annex, FOCUS_VERSIONS[options["format"]])
        output = files.enter_context(_output(options["output"]))
        try:
            _write(output, signed, annex, options)
        except ParquetUnavailable as error:
            raise CommandError(str(error)) from error
        except ValueError as error:
            raise CommandError(f"the annex is wrong: {error}") from error
    return EXIT_OK


async def _source(context: RateContext, options: Any, files: ExitStack) -> tuple[SignedStatement, BinaryIO | None]:
    """Return the statement and its annex, if it is needed: from files, or from the database."""
    signed = _read(options["source"])
    stored = options["annex"] == STORED or options["format"] == "annex"
    if signed is not None and not stored:
        return signed, _annex_file(options["annex"], signed, files)
    async with context.store() as store:
        statements = store.rating.statements
        signed = signed or await statements.statement(options["source"])
        if signed is None:
            raise CommandError(f"there is no file {options['source']}, and no closed statement with this id")
        if stored:
            return signed, await _stored_annex(statements, signed.statement.statement_id, files)
    return signed, _annex_file(options["annex"], signed, files)


def _read(source: str) -> SignedStatement | None:
    """Return the statement in the file ``source``, ``None`` if there is no such file."""
    path = Path(source)
    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        return None
    try:
        if size > MAX_STATEMENT_BYTES:
            raise CommandError(f"{path} has {size} bytes: a statement has at most {MAX_STATEMENT_BYTES}")
        return read_statement(path.read_bytes())
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from error


def _annex_file(path: str | None, signed: SignedStatement, files: ExitStack) -> BinaryIO | None:
    """Return the open file ``path``, which has to be the annex of the statement."""
    if path is None:
        return None
    try:
        annex = files.enter_context(Path(path).open("rb"))  # noqa: SIM115
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error
    if hashlib.file_digest(annex, "sha256").hexdigest() != signed.statement.annex_sha256:
        raise CommandError(f"{path} is not the annex of {signed.statement.statement_id}: its SHA-256 is another")
    annex.seek(0)
    return annex


async def _stored_annex(statements: IStatementStore, statement_id: str, files: ExitStack) -> BinaryIO:
    """Return a temporary file with the annex of a statement, byte by byte as it was hashed."""
    annex = cast(BinaryIO, files.enter_context(TemporaryFile()))  # noqa: SIM115
    async for page in statements.annex_pages(statement_id):
        annex.write(page.text())
    annex.seek(0)
    return annex


def _decoded(annex: BinaryIO) -> Iterator[AnnexRow]:
    number = 0
    while line := annex.readline(MAX_ANNEX_LINE_BYTES):
        number += 1
        try:
            yield read_annex_line(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error


def _rows(annex: BinaryIO | None) -> Iterator[AnnexRow] | None:
    return None if annex is None else _decoded(annex)


def _write(output: BinaryIO, signed: SignedStatement, annex: BinaryIO | None, options: Any) -> None:
    chosen = options["format"]
    if chosen == "annex":
        for line in annex or ():
            output.write(line)
        return
    if chosen == "json":
        output.write(signed_document(signed))
        return
    version = FOCUS_VERSIONS.get(chosen)
    if version is None:
        sha256 = statement_sha256(signed.statement) if chosen == "html" else ""
        _write_text(output, TEXT_FORMATS[chosen].write(signed, sha256))
        return
    columns, rows = focus_table(signed.statement, version, options["dataset"], _rows(annex))
    if chosen.startswith("parquet"):
        write_parquet(output, columns, rows, version)
    else:
        _write_text(output, focus_csv(columns, rows))


def _write_text(output: BinaryIO, pieces: Iterable[str]) -> None:
    for piece in pieces:
        output.write(piece.encode())


def _check(signed: SignedStatement, annex: BinaryIO | None, version: FocusVersion) -> int:
    columns, rows = focus_table(signed.statement, version, annex=_rows(annex))
    problems = focus_problems(focus_csv(columns, rows), signed.statement, version)
    for problem in problems:
        sys.stdout.write(f"{escape_terminal(problem)}\n")
    return EXIT_FOUND_PROBLEMS if problems else EXIT_OK


@contextmanager
def _output(path: str | None) -> Iterator[BinaryIO]:
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
