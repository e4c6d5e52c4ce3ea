"""A statement is verified offline; whatever is altered in it, and whatever else is in the file, is found."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.rating.statements.annex import annex_line
from meter.rating.statements.statement import StatementUnpriced
from meter.rating.statements.statement import canonical
from meter.rating.statements.statement import signed_document
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.verification import verify_document
from tests.statements import KEYS
from tests.statements import LINES
from tests.statements import ROWS
from tests.statements import line
from tests.statements import signed
from tests.statements import statement

ANNEX = tuple(annex_line(row) for row in ROWS)
BEFORE = statement(period="2026-10")
STATEMENT = statement(previous=statement_sha256(BEFORE))


def outcomes(body, keys=KEYS, annex=ANNEX, previous=None):
    return {check.name: check.outcome for check in verify_document(body, keys, annex, previous)}


def failures(body, **given):
    checks = verify_document(body, KEYS, **given)
    return {check.name: check.text for check in checks if check.outcome == "failed"}


def changed(**members):
    return signed_document(signed(msgspec.structs.replace(STATEMENT, **members)))


def test_untouched_statement_passes_every_check():
    checks = outcomes(signed_document(signed(STATEMENT)), previous=signed_document(signed(BEFORE)))
    assert set(checks.values()) == {"passed"}
    assert len(checks) == 8


def test_what_is_not_given_is_said_not_to_be_checked():
    checks = outcomes(signed_document(signed(STATEMENT)), keys={}, annex=None)
    assert {name for name, outcome in checks.items() if outcome == "not checked"} == {"signature", "annex", "chain"}
    assert {name for name, outcome in checks.items() if outcome == "failed"} == set()


def test_first_statement_of_an_account_needs_none_before():
    assert outcomes(signed_document(signed(BEFORE)))["chain"] == "passed"


def test_canonical_form_has_no_exponents_and_does_not_depend_on_the_order_of_members():
    document = canonical(STATEMENT)
    assert b'"exact_amount":"0.00000000001"' in document
    shuffled = json.loads(document)
    reordered = json.dumps(
        {"signature": signed(STATEMENT).signature, "key_id": next(iter(KEYS)), "statement": shuffled}, indent=5
    )
    assert set(outcomes(reordered.encode(), previous=signed_document(signed(BEFORE))).values()) == {"passed"}


def test_altered_amount_breaks_the_signature_and_the_sums():
    body = signed_document(signed(STATEMENT)).replace(b'"total": "0.44"', b'"total": "0.43"')
    assert failures(body).keys() == {"signature", "sums"}


def test_statement_of_an_unknown_key_fails():
    other = Ed25519PrivateKey.generate()
    assert "is not among the given ones" in failures(signed_document(signed(STATEMENT, other)))["signature"]


def test_statement_signed_by_another_key_under_the_name_of_a_known_one_fails():
    forged = msgspec.structs.replace(
        signed(STATEMENT), signature=signed(STATEMENT, Ed25519PrivateKey.generate()).signature
    )
    assert "has not signed this statement" in failures(signed_document(forged))["signature"]


@pytest.mark.parametrize("signature", ["", "not base64!", "AAAA"])
def test_unreadable_signature_fails(signature):
    forged = msgspec.structs.replace(signed(STATEMENT), signature=signature)
    assert failures(signed_document(forged)).keys() == {"signature"}


@pytest.mark.parametrize(
    ("members", "check", "text"),
    [
        ({"total": Decimal("0.45")}, "sums", "the sum of all lines is 0.44, not 0.45"),
        ({"net": Decimal("0.36")}, "sums", "the sum of the lines before tax is 0.37, not 0.36"),
        ({"tax": Decimal("0.08")}, "sums", "the sum of the lines of tax is 0.07, not 0.08"),
        ({"lines": (line(1, amount=Decimal("0.36")), *LINES[1:])}, "lines", "line 1: 0.365 rounds to 0.37, not 0.36"),
        ({"lines": (line(2), *LINES[1:])}, "lines", "line 1 has the number 2"),
        ({"lines": (LINES[0], line(2, key="usage/1"), LINES[2])}, "lines", "has the key of a line before: 'usage/1'"),
        ({"lines": (line(1, kind="tax"), line(2))}, "lines", "line 2, usage, is not in the order of kinds"),
        ({"lines": (line(1, kind="gift"),)}, "lines", "is of the kind 'gift'"),
        ({"currency": "EUROS"}, "lines", "'EUROS' is not a currency"),
        ({"format": "meter-statement-9"}, "description", "the format is 'meter-statement-9'"),
        ({"state": "open"}, "description", "the state is 'open', not 'closed'"),
        ({"statement_id": "2026-11.other"}, "description", "is called '2026-11.acme'"),
        (
            {"period": msgspec.structs.replace(STATEMENT.period, until=date(2026, 11, 30))},
            "description",
            "has the days from 2026-11-01 until before 2026-12-01",
        ),
        (
            {"period": msgspec.structs.replace(STATEMENT.period, end=STATEMENT.period.start)},
            "description",
            "in Europe/Paris the period lasts",
        ),
        (
            {"period": msgspec.structs.replace(STATEMENT.period, timezone="../../etc/passwd")},
            "description",
            "the period: ",
        ),
        ({"period": msgspec.structs.replace(STATEMENT.period, name="2026-13")}, "description", "the period: "),
    ],
)
def test_statement_that_says_what_cannot_be_fails_although_it_is_signed(members, check, text):
    found = failures(changed(**members))
    assert text in found[check]
    assert "signature" not in found


def test_many_problems_are_counted():
    lines = tuple(line(number, amount=Decimal("0.36")) for number in range(1, 101))
    assert failures(changed(lines=lines))["lines"].endswith("; and 90 more")


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ((), "its SHA-256 is"),
        (ANNEX[:1], "its SHA-256 is"),
        (ANNEX[::-1], "row 2: row 2 of the annex is not in order"),
        ((ANNEX[0], ANNEX[0]), "row 2 of the annex is not in order"),
        ((b"{}\n",), "this is not a row of an annex"),
        ((b'{"days":{"2026-11-01":1.5}}\n',), "1.5 is not an integer"),
        ((ANNEX[0].replace(b'"24"', b'"25"'), ANNEX[1]), "its SHA-256 is"),
    ],
)
def test_other_annex_fails(lines, text):
    assert text in failures(signed_document(signed(STATEMENT)), annex=lines)["annex"]


def test_quantities_of_lines_are_those_of_the_annex():
    lines = (line(1, quantity=Decimal(36)), *LINES[1:])
    text = failures(changed(lines=lines), annex=ANNEX)["annex"]
    assert text == "vm of project 'p1': the lines have 36, the annex 36.5"


def test_unpriced_usage_is_in_the_annex_too():
    unpriced = StatementUnpriced(
        project_id="p1",
        sku="vm",
        values={"flavor": "m9"},
        first=date(2026, 11, 1),
        until=date(2026, 11, 3),
        quantity=Decimal("0.5"),
        unit="Hours",
    )
    lines = (line(1, quantity=Decimal(36)), *LINES[1:])
    assert "annex" not in failures(changed(lines=lines, unpriced=(unpriced,)), annex=ANNEX)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (statement(period="2026-09"), "the SHA-256 of '2026-09.acme' is"),
        (statement("other", "2026-10"), "is the statement of another account"),
        (statement(period="2026-12"), "is not of an earlier period"),
    ],
)
def test_chain_with_another_statement_fails(before, text):
    assert text in failures(signed_document(signed(STATEMENT)), previous=signed_document(signed(before)))["chain"]


def test_statement_before_must_be_signed_too():
    forged = signed_document(signed(BEFORE, Ed25519PrivateKey.generate()))
    assert "the statement before: the key" in failures(signed_document(signed(STATEMENT)), previous=forged)["chain"]


def with_text(old, new):
    body = signed_document(signed(STATEMENT))
    assert old in body
    return body.replace(old, new, 1)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"null", "Expected `object`, got `null`"),
        (b'{"statement": ' * 100_000, "nested too deeply"),
        (with_text(b'"currency": "EUR"', b'"currency": "EUR", "currency": "JPY"'), "stands twice"),
        (with_text(b'"currency": "EUR"', b'"currency": "EUR", "discount": "9"'), "unknown field `discount`"),
        (with_text(b'"currency": "EUR"', b'"currency": 1'), "Expected `str`, got `int` - at `$.statement.currency`"),
        (with_text(b'"total": "0.44"', b'"total": 0.44'), "0.44 is not an integer"),
        (with_text(b'"total": "0.44"', b'"total": "NaN"'), "is out of the bounds of numbers - at `$.statement.total`"),
        (with_text(b'"total": "0.44"', b'"total": "1E999999999"'), "is out of the bounds of numbers"),
        (with_text(b'"total": "0.44"', b'"total": "1E-999999999"'), "is out of the bounds of numbers"),
        (with_text(b'"number": 1', b'"number": 99999999999999999999'), "not a signed statement"),
        (with_text(b'"number": 1', b'"number": 9007199254740992'), "an integer is out of the bounds"),
        (with_text(b'"first": "2026-11-01"', b'"first": "2026-02-30"'), "$.statement.period.first"),
        (with_text(b'"issuer": "Cloud Ltd"', rb'"issuer": "\udc00"'), "half of a surrogate pair"),
    ],
)
def test_hostile_file_is_refused_with_the_reason(body, text):
    [check] = verify_document(body, KEYS)
    assert (check.name, check.outcome) == ("document", "failed")
    assert text in check.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"total": "0.44"', b'"total": "+0.44"'),
        (b'"total": "0.44"', b'"total": " 0.44"'),
        (b'"total": "0.44"', b'"total": "4.4E-1"'),
        (b'"total": "0.44"', '"total": "٠.٤٤"'.encode()),
        (b'"total": "0.44"', b'"total": "0.4_4"'),
        (b'"tier": 1,', b""),
    ],
)
def test_other_notation_of_the_same_is_not_the_canonical_form(old, new):
    assert "canonical form" in failures(with_text(old, new))


@settings(max_examples=200)
@given(st.data())
def test_any_changed_byte_is_found(data):
    body = signed_document(signed(STATEMENT))
    place = data.draw(st.integers(0, len(body) - 1))
    changed = bytearray(body)
    changed[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[place]))
    checks = verify_document(bytes(changed), KEYS, ANNEX)
    same = json.loads(body)
    try:
        differs = json.loads(bytes(changed)) != same
    except ValueError:
        differs = True
    assert any(check.outcome == "failed" for check in checks) == differs
