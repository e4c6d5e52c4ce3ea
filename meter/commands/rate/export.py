"""``meter-rate export``: statements as signed JSON, CSV, page or FOCUS data set, from files or from the database."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import AsyncExitStack
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from typing import BinaryIO
from typing import cast
from typing import get_args

from twisted.python import usage

from meter.commands.command import EXIT_FOUND_PROBLEMS
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import escape_terminal
from meter.commands.rate.export_output import FOCUS_VERSIONS
from meter.commands.rate.export_output import TABLES
from meter.commands.rate.export_output import output_file
from meter.commands.rate.export_output import statement_output
from meter.commands.rate.subcommand import RateContext
from meter.commands.rate.subcommand import RateOptions
from meter.rating.exports.focus_check import focus_problems
from meter.rating.exports.focus_columns import FocusDataset
from meter.rating.exports.focus_csv import focus_csv
from meter.rating.exports.focus_parquet import ParquetUnavailable
from meter.rating.exports.formats import TEXT_FORMATS
from meter.rating.exports.formats import focus_columns
from meter.rating.exports.formats import focus_rows
from meter.rating.statements.annex import read_annex_line
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement_store import IStatementStore

FORMATS = (*TEXT_FORMATS, "focus-1.4", "parquet", "parquet-1.4", "annex")

MAX_STATEMENTS = 1_000_000

MAX_STATEMENT_BYTES = 256 * 1024 * 1024
"""The largest document that is read."""

MAX_ANNEX_LINE_BYTES = 1024 * 1024
"""The longest line of an annex: a resource has at most a quantity for each day of a month."""

STORED = "stored"
"""The value of --annex for the annex in the database."""


class ExportOptions(RateOptions):
    """The options of ``meter-rate export``."""

    synopsis = "FILE|STATEMENT_ID ... [--period PERIOD] [--format FORMAT] [--output FILE]"
    optParameters = [  # noqa: N815, RUF012  # Twisted reads it so
        ["format", "f", "csv", f"One of {', '.join(FORMATS)}."],
        ["period", None, None, "Export all closed statements of this period, such as 2026-11."],
        ["dataset", "d", "cost-and-usage", "Data set of FOCUS 1.4: cost-and-usage, billing-period or invoice-detail."],
        ["annex", "a", None, f"Annex of the statement, for FOCUS by resource: a file, or '{STORED}'."],
        ["output", "o", None, "File to write. [default: standard output]"],
    ]
    optFlags = [  # noqa: N815, RUF012
        ["check", None, "Check the FOCUS file instead of writing it: every problem on a line, exit status 1."]
    ]

    def parseArgs(self, *sources: str) -> None:
        """Take the statements: files or ids."""
        self["sources"] = sources

    def postOptions(self) -> None:
        """Check what belongs together."""
        chosen = self["format"]
        if chosen not in FORMATS:
            raise usage.UsageError(f"--format must be one of {', '.join(FORMATS)}, not {chosen}")
        if bool(self["sources"]) == bool(self["period"]):
            raise usage.UsageError("give statements, each a file or an id, or --period")
        if (self["period"] or len(self["sources"]) > 1) and chosen not in TABLES:
            raise usage.UsageError(f"several statements need one of the formats {', '.join(TABLES)}")
        if self["dataset"] not in get_args(FocusDataset):
            raise usage.UsageError(f"--dataset must be one of {', '.join(get_args(FocusDataset))}")
        if self["dataset"] != "cost-and-usage" and FOCUS_VERSIONS.get(chosen) != "1.4":
            raise usage.UsageError("--dataset needs --format focus-1.4 or parquet-1.4")
        if self["annex"] is not None and (chosen not in FOCUS_VERSIONS or self["dataset"] != "cost-and-usage"):
            raise usage.UsageError("--annex is for the data set cost-and-usage of FOCUS")
        if self["annex"] not in (None, STORED) and len(self["sources"]) != 1:
            raise usage.UsageError(f"the annex of several statements can only be '{STORED}'")
        if self["check"] and self["output"] is not None:
            raise usage.UsageError("--check writes no file: leave --output out")
        if self["check"] and self["dataset"] != "cost-and-usage":
            raise usage.UsageError("--check is for the data set cost-and-usage")
        if self["check"] and (not chosen.startswith("focus")):
            raise usage.UsageError("--check needs --format focus or focus-1.4")
        if chosen.startswith("parquet") and self["output"] is None and sys.stdout.isatty():
            raise usage.UsageError("Parquet is not for a terminal: give --output FILE")


async def work(context: RateContext, options: Any) -> int:
    """Write the export; return the exit status."""
    async with AsyncExitStack() as stack:
        statements = _StoredStatements(context, stack)
        sources = options["sources"] or await _ids_of(options["period"], await statements.get())
        try:
            if options["check"]:
                return await _check(statements, sources, options)
            await _write(statements, sources, options, stack.enter_context(output_file(options["output"])))
        except ParquetUnavailable as error:
            raise CommandError(str(error)) from error
        except ValueError as error:
            wrong = "the statement" if options["annex"] is None else "the statement or its annex"
            raise CommandError(f"{wrong} is wrong: {error}") from error
    return EXIT_OK


class _StoredStatements:
    """The closed statements of the database, which is connected to when it is needed first."""

    def __init__(self, context: RateContext, stack: AsyncExitStack) -> None:
        self._context = context
        self._stack = stack
        self._statements: IStatementStore | None = None

    async def get(self) -> IStatementStore:
        """Return the statements."""
        if self._statements is None:
            store = await self._stack.enter_async_context(self._context.store())
            self._statements = store.rating.statements
        return self._statements


async def _ids_of(period: str, statements: IStatementStore) -> list[str]:
    found = await statements.summaries(period=period, limit=MAX_STATEMENTS)
    if not found:
        raise CommandError(f"there is no closed statement of {period}")
    return [each.statement_id for each in found]


async def _write(statements: _StoredStatements, sources: Sequence[str], options: Any, output: BinaryIO) -> None:
    if options["format"] == "annex":
        async for page in (await statements.get()).annex_pages(await _id_of(statements, sources[0])):
            output.write(page.text())
        return
    writer = statement_output(output, options["format"], options["dataset"])
    for source in sources:
        with ExitStack() as files:
            signed = await _statement(statements, source)
            writer.add(signed, await _annex(statements, signed, options["annex"], files))
    writer.close()


async def _check(statements: _StoredStatements, sources: Sequence[str], options: Any) -> int:
    version = FOCUS_VERSIONS[options["format"]]
    status = EXIT_OK
    for source in sources:
        with ExitStack() as files:
            signed = await _statement(statements, source)
            rows = focus_rows(
                signed.statement, version, annex=await _annex(statements, signed, options["annex"], files)
            )
            for problem in focus_problems(focus_csv(focus_columns(version), rows), signed.statement, version):
                status = EXIT_FOUND_PROBLEMS
                sys.stdout.write(f"{escape_terminal(problem)}\n")
    return status


async def _statement(statements: _StoredStatements, source: str) -> SignedStatement:
    """Return the statement in the file ``source``, or the closed one with this id."""
    signed = _read(source) or await (await statements.get()).statement(source)
    if signed is None:
        raise CommandError(f"there is no file {source}, and no closed statement with this id")
    return signed


async def _id_of(statements: _StoredStatements, source: str) -> str:
    return (await _statement(statements, source)).statement.statement_id


async def _annex(
    statements: _StoredStatements, signed: SignedStatement, chosen: str | None, files: ExitStack
) -> Iterator[AnnexRow] | None:
    """Return the rows of the annex that is ``chosen``: a file, or that in the database; ``None`` without a choice."""
    if chosen is None:
        return None
    if chosen != STORED:
        return _decoded(_annex_file(chosen, signed, files))
    return _decoded(await _stored_annex(await statements.get(), signed.statement.statement_id, files))


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


def _annex_file(path: str, signed: SignedStatement, files: ExitStack) -> BinaryIO:
    """Return the open file ``path``, which has to be the annex of the statement."""
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
