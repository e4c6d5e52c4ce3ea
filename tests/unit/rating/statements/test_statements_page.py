"""The page of statements: every member of the document, and a script that verifies one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature

from meter.rating.statements import statement as documents
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement_keys import public_pem
from meter.rating.statements.verification import verify_document
from tests.statements import KEY
from tests.statements import LINES
from tests.statements import line
from tests.statements import signed
from tests.statements import statement

PAGE = (Path(__file__).parents[4] / "docs/statements.rst").read_text(encoding="utf-8")
DOCUMENT = PAGE.split("\nThe document\n")[1]

SECTIONS = {
    "statement": documents.Statement,
    "account": documents.StatementAccount,
    "period": documents.StatementPeriod,
    "book": documents.StatementBook,
    "completeness": documents.StatementCompleteness,
    "gaps": documents.AcceptedGap,
    "lines": documents.StatementLine,
    "amends": documents.StatementAmends,
    "unpriced": documents.StatementUnpriced,
    "unmetered": documents.StatementUnmetered,
}


def members(text):
    """The members in the first table of ``text``."""
    table = re.split(r"^=+  =+$", text, flags=re.MULTILINE)[1]
    return re.findall(r"^``(\w+)``", table, re.MULTILINE)


def fields(kind):
    return [field.encode_name for field in msgspec.structs.fields(kind)]


@pytest.mark.parametrize("section", SECTIONS)
def test_page_has_every_member_in_its_order(section):
    assert members(DOCUMENT.split(f"\n``{section}``\n")[1]) == fields(SECTIONS[section])


def test_page_has_the_envelope_and_the_annex():
    assert members(DOCUMENT) == fields(documents.SignedStatement)
    assert sorted(members(DOCUMENT.split("Each line has")[1])) == sorted(fields(documents.AnnexRow))
    assert f"``{documents.FORMAT}``" in PAGE


def test_page_has_every_check():
    checks = re.findall(r"^``([a-z ]+)``", PAGE.split("\nVerify\n")[1].split("and prints the outcome")[0], re.MULTILINE)
    assert checks == [check.name for check in verify_document(signed_document(signed(statement())), {})]


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """Return a function that runs the script of the page on a document."""
    block = PAGE.split("the library ``cryptography``::\n")[1].split("\nIt raises")[0]
    code = "\n".join(each.removeprefix("    ") for each in block.splitlines())
    assert len([each for each in code.splitlines() if each]) <= 15
    (tmp_path / "key.pem").write_text(public_pem(KEY.public_key()))

    def run(body):
        (tmp_path / "statement.json").write_bytes(body)
        monkeypatch.setattr(sys, "argv", ["verify.py", str(tmp_path / "statement.json"), str(tmp_path / "key.pem")])
        exec(compile(code, "verify.py", "exec"), {"__name__": "__main__"})
        return capsys.readouterr().out

    return run


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_script_verifies_a_statement_with_names_of_every_alphabet(script):
    named = line(1, project_name='\x00\x1f\u2028"\\ אבג 💾', values={"\uffff": "a", "💾": "b", "ü": "c", "a": "d"})
    body = signed_document(signed(statement(lines=(named, *LINES[1:]))))
    assert script(body) == "verified 2026-11.acme 0.44\n"
    with pytest.raises(InvalidSignature):
        script(body.replace(b'"0.44"', b'"0.40"'))
