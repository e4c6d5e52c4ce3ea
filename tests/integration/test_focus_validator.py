"""What Meter exports as FOCUS passes the validator of the FinOps Foundation, as CSV and as Parquet."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import msgspec

from meter.rating.exports.focus_columns import COST_AND_USAGE
from meter.rating.exports.focus_csv import focus_csv
from meter.rating.exports.focus_rows import cost_and_usage
from meter.rating.statements.annex import read_annex_line
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import read_statement
from meter.rating.statements.statement import signed_document
from tests.servers.focus_validator import FocusReport
from tests.servers.focus_validator import python
from tests.servers.focus_validator import validate
from tests.statement_documents import ANNEX
from tests.statement_documents import annex_bytes
from tests.statement_documents import signed
from tests.statement_documents import statement

TOP = Path(__file__).parents[2]
MONTH = TOP / "tests/data/rating/worked-month"

INVOICE_RULE = "InvoiceId-C-004-C"
"""One half of "either null or not null": it fails where the other half passes."""

PURCHASE_RULE = "EffectiveCost-C-005-C"
"""The cost of a purchase *for future charges* is 0; the validator forgets the condition and wants it of every purchase."""

PARQUET = """
import json, sys
from pathlib import Path
import pyarrow.parquet
from meter.rating.exports.focus_columns import COST_AND_USAGE
from meter.rating.exports.focus_parquet import FocusParquet
from meter.rating.exports.focus_rows import cost_and_usage
from meter.rating.statements.annex import read_annex_line
from meter.rating.statements.statement import read_statement
document, annex, output = map(Path, sys.argv[1:])
rows = map(read_annex_line, annex.read_bytes().splitlines())
with output.open("wb") as file:
    statement = read_statement(document.read_bytes()).statement
    parquet = FocusParquet(file, COST_AND_USAGE["1.2"], "1.2")
    parquet.write(cost_and_usage(statement, "1.2", rows))
    parquet.close()
table = pyarrow.parquet.read_table(output)
print(json.dumps({
    "rows": table.num_rows,
    "billed": str(sum(table["BilledCost"].to_pylist())),
    "version": table.schema.metadata[b"focus_version"].decode(),
    "types": {name: str(table.schema.field(name).type) for name in ("BilledCost", "ChargePeriodStart", "Tags")},
}))
"""


def in_ascii(document: Statement) -> Statement:
    """The validator wants names in ASCII, which the specification does not."""
    lines = tuple(msgspec.structs.replace(line, project_name=line.project_id) for line in document.lines)
    account = msgspec.structs.replace(document.account, name="Acme")
    return msgspec.structs.replace(document, lines=lines, account=account)


def assert_passed(report: FocusReport, rows: int, purchases: int) -> None:
    assert report.failed == {INVOICE_RULE: rows, PURCHASE_RULE: purchases}
    assert report.passed > 250


def test_csv_with_a_line_of_every_kind_passes(tmp_path: Path) -> None:
    path = tmp_path / "focus.csv"
    table = focus_csv(COST_AND_USAGE["1.2"], cost_and_usage(in_ascii(statement()), "1.2", ANNEX))
    path.write_text("".join(table), newline="")
    assert_passed(validate(path), 13, 1)


def test_csv_of_the_worked_month_passes(tmp_path: Path) -> None:
    path = tmp_path / "focus.csv"
    document = read_statement((MONTH / "statement-acme.json").read_bytes()).statement
    annex = map(read_annex_line, (MONTH / "annex-acme.jsonl").read_bytes().splitlines())
    table = list(focus_csv(COST_AND_USAGE["1.2"], cost_and_usage(in_ascii(document), "1.2", annex)))
    path.write_text("".join(table), newline="")
    assert_passed(validate(path), len(table) - 1, 1)


def test_a_mistake_fails(tmp_path: Path) -> None:
    path = tmp_path / "focus.csv"
    table = "".join(focus_csv(COST_AND_USAGE["1.2"], cost_and_usage(in_ascii(statement()))))
    path.write_text(table.replace(",EUR,", ",EURO,"), newline="")
    assert "BillingCurrency-C-003-M" in validate(path).failed


def test_parquet_has_exact_decimals_and_passes(tmp_path: Path) -> None:
    document, annex, output = tmp_path / "statement.json", tmp_path / "annex.ndjson", tmp_path / "focus.parquet"
    document.write_bytes(signed_document(signed(in_ascii(statement()))))
    annex.write_bytes(annex_bytes())
    words = [str(python()), "-c", PARQUET, str(document), str(annex), str(output)]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "rows": 13,
        "billed": "53.950000000000000000",
        "version": "1.2",
        "types": {
            "BilledCost": "decimal128(38, 18)",
            "ChargePeriodStart": "timestamp[us, tz=UTC]",
            "Tags": "string",
        },
    }
    assert_passed(validate(output), 13, 1)
