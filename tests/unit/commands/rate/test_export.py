"""``meter-rate export`` writes a statement from a file or the store in every format, and refuses what does not belong together."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python import usage

from meter.commands.command import CommandError
from meter.commands.rate.export import ExportOptions
from meter.commands.rate.export import work
from meter.rating.exports.focus_check import focus_problems
from meter.rating.statements.annex import AnnexPage
from meter.rating.statements.annex import annex_line
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import StatementAccount
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement import statement_sha256
from tests.statement_documents import ANNEX
from tests.statement_documents import annex_bytes
from tests.statement_documents import signed
from tests.statement_documents import statement


class StatementsById:
    def __init__(self, *documents: SignedStatement) -> None:
        self.documents = {each.statement.statement_id: each for each in documents}

    async def statement(self, statement_id: str) -> SignedStatement | None:
        return self.documents.get(statement_id)

    async def summaries(self, period: str, limit: int) -> list[Any]:
        return [each.statement for each in self.documents.values() if each.statement.period.name == period]

    async def annex_pages(self, statement_id: str, project_id: str | None = None) -> AsyncIterator[AnnexPage]:
        for row in ANNEX:
            yield AnnexPage.of(row.project_id, [annex_line(row)])


class StoreContext:
    def __init__(self, *documents: SignedStatement) -> None:
        self.rating = SimpleNamespace(statements=StatementsById(*documents))

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Any]:
        yield self


class BytesOutput(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = io.BytesIO()


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "statement.json"
    path.write_bytes(signed_document(signed()))
    return str(path)


@pytest.fixture
def annex(tmp_path: Path) -> str:
    path = tmp_path / "annex.ndjson"
    path.write_bytes(annex_bytes())
    return str(path)


def export(monkeypatch: pytest.MonkeyPatch, *words: str, store: Any = None) -> tuple[int, str, str]:
    """Return the exit status, what was written, and the problems that were told."""
    options = ExportOptions()
    options.parseOptions(words)
    output = BytesOutput()
    monkeypatch.setattr(sys, "stdout", output)
    results: list[Any] = []
    Deferred.fromCoroutine(work(store or StoreContext(), options)).addBoth(results.append)
    [result] = results
    if not isinstance(result, int):
        result.raiseException()
    return result, output.buffer.getvalue().decode(), output.getvalue()


def test_json_is_the_signed_document(monkeypatch: pytest.MonkeyPatch, document: str) -> None:
    assert read_statement(export(monkeypatch, document, "--format", "json")[1].encode()) == signed()


def test_csv_is_the_default(monkeypatch: pytest.MonkeyPatch, document: str) -> None:
    found = list(csv.DictReader(io.StringIO(export(monkeypatch, document)[1], newline="")))
    assert sum(Decimal(row["amount"]) for row in found) == statement().total


def test_page_has_the_hash_of_the_statement(monkeypatch: pytest.MonkeyPatch, document: str) -> None:
    assert statement_sha256(statement()) in export(monkeypatch, document, "-f", "html")[1]


@pytest.mark.parametrize(("chosen", "version"), [("focus", "1.2"), ("focus-1.4", "1.4")])
def test_focus_is_by_resource_with_the_annex(
    monkeypatch: pytest.MonkeyPatch, document: str, annex: str, chosen: str, version: Any
) -> None:
    lines = export(monkeypatch, document, "-f", chosen, "--annex", annex)[1]
    assert focus_problems(io.StringIO(lines, newline=""), statement(), version) == []
    assert {row["ResourceId"] for row in csv.DictReader(io.StringIO(lines, newline=""))} >= {"web", "worker", "port-1"}


@pytest.mark.parametrize(("dataset", "rows"), [("billing-period", 1), ("invoice-detail", 10)])
def test_other_data_sets_of_focus(monkeypatch: pytest.MonkeyPatch, document: str, dataset: str, rows: int) -> None:
    lines = export(monkeypatch, document, "-f", "focus-1.4", "--dataset", dataset)[1]
    assert len(list(csv.DictReader(io.StringIO(lines, newline="")))) == rows


def test_statement_of_the_store_is_found_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    store = StoreContext(signed())
    assert export(monkeypatch, "2026-11.acme", store=store)[0] == 0
    lines = export(monkeypatch, "2026-11.acme", "-f", "focus", "-a", "stored", store=store)[1]
    assert ",worker," in lines


def test_annex_is_written_as_it_was_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = export(monkeypatch, "2026-11.acme", "-f", "annex", store=StoreContext(signed()))[1]
    assert written.encode() == annex_bytes()


def test_what_is_neither_a_file_nor_an_id_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match=r"there is no file 2026-12\.acme, and no closed statement with this id"):
        export(monkeypatch, "2026-12.acme")


def test_annex_of_another_statement_is_refused(monkeypatch: pytest.MonkeyPatch, document: str, annex: str) -> None:
    Path(annex).write_bytes(annex_bytes(ANNEX[:2]))
    with pytest.raises(CommandError, match=r"is not the annex of 2026-11\.acme"):
        export(monkeypatch, document, "-f", "focus", "--annex", annex)


def test_file_that_is_no_statement_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"statement": 1}')
    with pytest.raises(CommandError, match="not a signed statement"):
        export(monkeypatch, str(path))


def test_output_appears_when_it_is_complete_and_for_its_owner_alone(
    monkeypatch: pytest.MonkeyPatch, document: str, annex: str, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    export(monkeypatch, document, "-o", str(output))
    assert output.stat().st_mode & 0o777 == 0o600
    assert output.read_text().startswith("statement_id,")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    before = set(tmp_path.iterdir())
    with pytest.raises(CommandError, match="pip install"):
        export(monkeypatch, document, "-f", "parquet", "-o", str(tmp_path / "out.parquet"))
    assert set(tmp_path.iterdir()) == before


def test_check_tells_problems_and_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, document: str) -> None:
    assert export(monkeypatch, document, "-f", "focus", "--check") == (0, "", "")
    path = tmp_path / "wrong.json"
    path.write_bytes(signed_document(signed(statement(total=Decimal("54.00")))))
    status, _, problems = export(monkeypatch, str(path), "-f", "focus", "--check")
    assert (status, problems) == (1, "BilledCost adds up to 53.95, the total of the statement is 54.00\n")


@pytest.mark.parametrize(
    "words",
    [
        ["x", "-f", "pdf"],
        ["x", "-d", "invoices"],
        ["x", "-f", "focus", "-d", "invoice-detail"],
        ["x", "-f", "csv", "-a", "annex"],
        ["x", "-f", "csv", "--check"],
        ["x", "-f", "focus", "--check", "--output", "y"],
        [],
        ["x", "y", "-f", "html"],
        ["x", "--period", "2026-11"],
        ["x", "y", "-f", "focus", "-a", "annex"],
        ["--period", "2026-11", "-f", "json"],
    ],
)
def test_options_that_do_not_belong_together_are_refused(words: list[str]) -> None:
    with pytest.raises(usage.UsageError):
        ExportOptions().parseOptions(words)


OTHER = signed(statement(statement_id="2026-11.other", account=StatementAccount(id="other", name="")))


def test_statements_of_a_period_are_one_table_with_one_header(monkeypatch: pytest.MonkeyPatch) -> None:
    store = StoreContext(signed(), OTHER)
    for words in (["--period", "2026-11"], ["2026-11.acme", "2026-11.other"]):
        table = export(monkeypatch, *words, "-f", "focus", "-a", "stored", store=store)[1]
        assert table.count("BilledCost") == 1
        billed: dict[str, Decimal] = {}
        for row in csv.DictReader(io.StringIO(table, newline="")):
            billed[row["InvoiceId"]] = billed.get(row["InvoiceId"], Decimal(0)) + Decimal(row["BilledCost"])
        assert billed == {"2026-11.acme": Decimal("53.95"), "2026-11.other": Decimal("53.95")}
    lines = export(monkeypatch, "--period", "2026-11", store=store)[1]
    assert {row["account_id"] for row in csv.DictReader(io.StringIO(lines, newline=""))} == {"acme", "other"}


def test_a_billing_period_of_several_statements_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    store = StoreContext(signed(), OTHER)
    words = ("--period", "2026-11", "-f", "focus-1.4", "-d", "billing-period")
    assert len(export(monkeypatch, *words, store=store)[1].splitlines()) == 2


def test_period_without_statements_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="there is no closed statement of 2026-10"):
        export(monkeypatch, "--period", "2026-10", store=StoreContext(signed()))


def test_check_of_several_statements_fails_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = signed(statement(statement_id="2026-11.wrong", total=Decimal("1.00")))
    status, _, problems = export(
        monkeypatch, "--period", "2026-11", "-f", "focus", "--check", store=StoreContext(signed(), wrong)
    )
    assert (status, len(problems.splitlines())) == (1, 1)
