"""Verifies a signed statement without a store: structure, signature, sums, annex and the statement before it."""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from typing import Literal

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meter.counts import counted
from meter.rating.currency import minor_digits
from meter.rating.currency import rounded
from meter.rating.exact import EXACT
from meter.rating.exact import total_of
from meter.rating.money.rated import LINE_ORDER
from meter.rating.period import BillingPeriod
from meter.rating.period import timezone_named
from meter.rating.statements.annex import AnnexDigest
from meter.rating.statements.annex import read_annex_line
from meter.rating.statements.statement import FORMAT
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import canonical
from meter.rating.statements.statement import statement_of
from meter.rating.statements.statement import statement_sha256
from meter.rating.statements.statement_id import statement_id
from meter.rating.statements.strict_json import decoded

Outcome = Literal["passed", "failed", "not checked"]

MAX_PROBLEMS = 10
"""Differences of one kind that are listed; the number of the others is stated."""

NOT_SUMMED = "tax"


@dataclass(frozen=True, slots=True)
class StatementCheck:
    """The outcome of one check: what was found, or why it was not checked."""

    name: str
    outcome: Outcome
    text: str


def verify_document(
    body: bytes,
    keys: Mapping[str, Ed25519PublicKey],
    annex: Iterable[bytes] | None = None,
    previous: bytes | None = None,
) -> list[StatementCheck]:
    """Return the outcome of each check of the signed statement in ``body``.

    ``annex`` are the lines of the file of its annex, ``previous`` is the file of the account's statement before. What the
    documents contain is not trusted. If the document cannot be read, that is the only check.
    """
    try:
        document = decoded(body)
        signed = statement_of(document)
    except ValueError as error:
        return [StatementCheck("document", "failed", str(error))]
    statement = signed.statement
    return [
        StatementCheck("document", "passed", f"statement {statement.statement_id}"),
        _signature(document, signed, keys),
        _canonical_form(document, signed),
        _check("description", f"{statement.format}, {statement.state}", _description(statement)),
        _check("lines", counted(len(statement.lines), "line"), _lines(statement)),
        _check("sums", f"total {statement.total} {statement.currency}", _sums(statement)),
        _annex(statement, annex),
        _chain(statement, previous, keys),
    ]


def _check(name: str, text: str, problems: Iterable[str]) -> StatementCheck:
    found = list(problems)
    if not found:
        return StatementCheck(name, "passed", text)
    more = len(found) - MAX_PROBLEMS
    listed = "; ".join(found[:MAX_PROBLEMS])
    return StatementCheck(name, "failed", f"{listed}; and {more} more" if more > 0 else listed)


def _signature(document: Any, signed: SignedStatement, keys: Mapping[str, Ed25519PublicKey]) -> StatementCheck:
    name = "signature"
    if not keys:
        return StatementCheck(name, "not checked", f"no public key is given; the statement names {signed.key_id!r:.80}")
    key = keys.get(signed.key_id)
    if key is None:
        known = ", ".join(sorted(keys))
        return StatementCheck(name, "failed", f"the key {signed.key_id!r:.80} is not among the given ones: {known}")
    try:
        # As any other reader verifies it: over the members as they stand in the file.
        key.verify(base64.b64decode(signed.signature, validate=True), rfc8785.dumps(document["statement"]))
    except (binascii.Error, rfc8785.CanonicalizationError) as error:
        return StatementCheck(name, "failed", f"it cannot be read: {error}")
    except InvalidSignature:
        return StatementCheck(name, "failed", f"the key {signed.key_id} has not signed this statement: it was altered")
    return StatementCheck(name, "passed", f"Ed25519, key {signed.key_id}")


def _canonical_form(document: Any, signed: SignedStatement) -> StatementCheck:
    try:
        same = rfc8785.dumps(document["statement"]) == canonical(signed.statement)
    except rfc8785.CanonicalizationError as error:
        return StatementCheck("canonical form", "failed", str(error))
    if not same:
        text = "a number, time or member is not written as Meter writes it"
        return StatementCheck("canonical form", "failed", text)
    return StatementCheck("canonical form", "passed", f"RFC 8785, SHA-256 {statement_sha256(signed.statement)}")


def _description(statement: Statement) -> Iterator[str]:
    if statement.format != FORMAT:
        yield f"the format is {statement.format!r:.80}, not {FORMAT!r}"
    if statement.state != "closed":
        yield f"the state is {statement.state!r:.80}, not 'closed'"
    expected = statement_id(statement.period.name, statement.account.id)
    if statement.statement_id != expected:
        yield f"the statement of the account and period is called {expected!r:.200}"
    stated = statement.period
    try:
        period = BillingPeriod.named(stated.name, timezone_named(stated.timezone))
    except ValueError as error:
        yield f"the period: {error}"
        return
    if (stated.first, stated.until) != (period.first, period.until):
        yield f"the period {period.name} has the days from {period.first} until before {period.until}"
    if (stated.start, stated.end) != (period.start, period.end):
        # Rules of time zones are published anew each year, and change for times to come.
        yield f"in {stated.timezone} the period lasts from {period.start.isoformat()} until {period.end.isoformat()}"


def _lines(statement: Statement) -> Iterator[str]:
    try:
        minor_digits(statement.currency)
    except ValueError as error:
        yield str(error)
        return
    kinds = {kind: place for place, kind in enumerate(LINE_ORDER)}
    last = 0
    keys: set[str] = set()
    for number, line in enumerate(statement.lines, 1):
        if line.number != number:
            yield f"line {number} has the number {line.number}"
        place = kinds.get(line.kind)  # type: ignore[call-overload]
        if place is None:
            yield f"line {number} is of the kind {line.kind!r:.80}"
        elif place < last:
            yield f"line {number}, {line.kind}, is not in the order of kinds"
        else:
            last = place
        if line.key in keys:
            yield f"line {number} has the key of a line before: {line.key!r:.200}"
        keys.add(line.key)
        if rounded(line.exact_amount, statement.currency) != line.amount:
            yield f"line {number}: {line.exact_amount} rounds to {rounded(line.exact_amount, statement.currency)}, not {line.amount}"


def _sums(statement: Statement) -> Iterator[str]:
    net = total_of(line.amount for line in statement.lines if line.kind != NOT_SUMMED)
    tax = total_of(line.amount for line in statement.lines if line.kind == NOT_SUMMED)
    if statement.net != net:
        yield f"the sum of the lines before tax is {net}, not {statement.net}"
    if statement.tax != tax:
        yield f"the sum of the lines of tax is {tax}, not {statement.tax}"
    if statement.total != EXACT.add(net, tax):
        yield f"the sum of all lines is {EXACT.add(net, tax)}, not {statement.total}"


def _annex(statement: Statement, lines: Iterable[bytes] | None) -> StatementCheck:
    if lines is None:
        return StatementCheck(
            "annex", "not checked", f"no file is given; its SHA-256 is {statement.annex_sha256!r:.80}"
        )
    digest = AnnexDigest()
    try:
        for line in lines:
            digest.add(read_annex_line(line), line)
    except ValueError as error:
        return StatementCheck("annex", "failed", f"row {digest.rows + 1}: {error}")
    if digest.sha256 != statement.annex_sha256:
        text = f"its SHA-256 is {digest.sha256}, and the statement was closed with {statement.annex_sha256!r:.80}"
        return StatementCheck("annex", "failed", text)
    return _check(
        "annex", f"{counted(digest.rows, 'row')}, SHA-256 {digest.sha256}", quantity_differences(statement, digest)
    )


def quantity_differences(statement: Statement, digest: AnnexDigest) -> Iterator[str]:
    """Yield where the quantities of the lines, with those that no price covers, differ from those of the annex."""
    stated: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for line in statement.lines:
        if line.kind == "usage" and line.sku is not None and line.quantity is not None:
            stated[line.project_id, line.sku] = EXACT.add(stated[line.project_id, line.sku], line.quantity)
    for usage in statement.unpriced:
        stated[usage.project_id, usage.sku] = EXACT.add(stated[usage.project_id, usage.sku], usage.quantity)
    for project_id, sku in sorted({*stated, *digest.quantities}):
        lines, annex = stated[project_id, sku], digest.quantities[project_id, sku]
        if lines != annex:
            yield f"{sku} of project {project_id!r:.80}: the lines have {lines}, the annex {annex}"


def _chain(statement: Statement, previous: bytes | None, keys: Mapping[str, Ed25519PublicKey]) -> StatementCheck:
    name = "chain"
    if previous is None:
        text = f"no statement before is given; its SHA-256 is {statement.previous_sha256}"
        if not statement.previous_sha256:
            text = "it is the first statement of the account"
        return StatementCheck(name, "not checked" if statement.previous_sha256 else "passed", text)
    try:
        document = decoded(previous)
        before = statement_of(document)
    except ValueError as error:
        return StatementCheck(name, "failed", f"the statement before: {error}")
    if keys and (signature := _signature(document, before, keys)).outcome == "failed":
        return StatementCheck(name, "failed", f"the statement before: {signature.text}")
    return _check(name, f"follows {before.statement.statement_id}", _following(statement, before.statement))


def _following(statement: Statement, before: Statement) -> Iterator[str]:
    if before.account.id != statement.account.id:
        yield f"{before.statement_id!r:.200} is the statement of another account"
    if before.period.name >= statement.period.name:
        yield f"{before.statement_id!r:.200} is not of an earlier period"
    if (found := statement_sha256(before)) != statement.previous_sha256:
        yield f"the SHA-256 of {before.statement_id!r:.200} is {found}, not {statement.previous_sha256!r:.80}"
