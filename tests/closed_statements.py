"""Closed statements in a store: one that two projects share, and one of a single project."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from meter.rating.statements.annex import AnnexPage
from meter.rating.statements.annex import annex_line
from meter.rating.statements.annex import annex_order
from meter.rating.statements.extract import projects_of
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import StatementAccount
from meter.rating.statements.statement_store import ClosingStatement
from tests.statement_documents import ANNEX
from tests.statement_documents import LINES
from tests.statement_documents import signed
from tests.statement_documents import statement

NAMES = {"shop": "blue", "lab": "green", "": ""}
"""The projects of the example, and those of the tokens of tests."""


def renamed(entry: Any) -> Any:
    """Return a line or another part of the example with the project of a token."""
    changes = {"project_id": NAMES[entry.project_id]}
    if "project_name" in entry.__struct_fields__ and entry.project_id:
        changes["project_name"] = f"{NAMES[entry.project_id]} project"
    return msgspec.structs.replace(entry, **changes)


def shared_statement() -> Statement:
    """Return the statement of the account ``acme``, which pays for *blue* and *green*."""
    document = statement()
    return msgspec.structs.replace(
        document,
        lines=tuple(map(renamed, document.lines)),
        unpriced=tuple(map(renamed, document.unpriced)),
        unmetered=tuple(map(renamed, document.unmetered)),
        annex_sha256=hashlib.sha256(b"".join(map(annex_line, annex_rows()))).hexdigest(),
    )


def own_statement() -> Statement:
    """Return the statement of the account ``b/ue``, which pays for *blue* alone."""
    return statement(
        statement_id="2026-11.b%2Fue",
        account=StatementAccount(id="b/ue", name="Blue", billing_address="Secret Street"),
        lines=(renamed(LINES[0]),),
        unpriced=(),
        unmetered=(),
        net=Decimal("8.21"),
        tax=Decimal("0.00"),
        total=Decimal("8.21"),
    )


def annex_rows() -> list[AnnexRow]:
    """Return the annex of :func:`shared_statement`, in its order."""
    return sorted(map(renamed, ANNEX), key=annex_order)


def closing(document: SignedStatement, projects: Sequence[str] = ()) -> ClosingStatement:
    """Return what a close stores."""
    return ClosingStatement(
        signed=document,
        book_text="{}",
        projects=tuple(sorted({*projects, *projects_of(document.statement)})),
        closed_by="operator",
        usage_skus=("vm", "egress", "router"),
    )


async def annex_pages(rows: Sequence[AnnexRow]) -> AsyncIterator[AnnexPage]:
    """Yield the pages of an annex, one for each row."""
    for row in rows:
        yield AnnexPage.of(row.project_id, [annex_line(row)])


async def close_both(store: Any) -> None:
    """Store both statements."""
    statements = store.rating.statements
    await statements.add(closing(signed(shared_statement())), annex_pages(annex_rows()))
    own = [row for row in annex_rows() if (row.project_id, row.sku) == ("blue", "vm")]
    await statements.add(closing(signed(own_statement())), annex_pages(own))
