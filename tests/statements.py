"""Statements for tests: documents, signed by a key made for the test."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC
from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meter.rating.period import BillingPeriod
from meter.rating.statements.annex import AnnexDigest
from meter.rating.statements.annex import AnnexPage
from meter.rating.statements.annex import annex_line
from meter.rating.statements.statement import FORMAT
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import StatementAccount
from meter.rating.statements.statement import StatementBook
from meter.rating.statements.statement import StatementCompleteness
from meter.rating.statements.statement import StatementLine
from meter.rating.statements.statement import StatementPeriod
from meter.rating.statements.statement import canonical
from meter.rating.statements.statement_id import statement_id
from meter.rating.statements.statement_keys import key_id_of
from meter.rating.statements.statement_store import ClosingStatement

PARIS = ZoneInfo("Europe/Paris")
BOOK_TEXT = '{"book":"standard"}'
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY_ID = key_id_of(KEY.public_key())
KEYS = {KEY_ID: KEY.public_key()}

ROWS = (
    AnnexRow(
        project_id="p1",
        sku="vm",
        resource_id="r1",
        values={"flavor": "m1.small"},
        days={"2026-11-01": Decimal("24"), "2026-11-02": Decimal("12.5")},
    ),
    AnnexRow(
        project_id="p2",
        sku="vm",
        resource_id="ünï 💾",
        values={"flavor": "m1.small"},
        days={"2026-11-30": Decimal("0.000000001")},
    ),
)


def line(number: int, **members: Any) -> StatementLine:
    values: dict[str, Any] = {
        "kind": "usage",
        "key": f"usage/{number}",
        "project_id": "p1",
        "project_name": "shop",
        "description": "Virtual machines",
        "first": date(2026, 11, 1),
        "until": date(2026, 12, 1),
        "list_amount": Decimal("0.365"),
        "exact_amount": Decimal("0.365"),
        "amount": Decimal("0.37"),
        "sku": "vm",
        "price_id": "vm-2026",
        "tier": 1,
        "values": {"flavor": "m1.small"},
        "quantity": Decimal("36.5"),
        "unit": "Hours",
        "list_unit_price": Decimal("0.01"),
        "unit_price": Decimal("0.01"),
    }
    return StatementLine(number=number, **{**values, **members})


LINES = (
    line(1),
    line(2, project_id="p2", quantity=Decimal("0.000000001"), exact_amount=Decimal("1E-11"), amount=Decimal("0.00")),
    line(3, kind="tax", key="tax/standard", quantity=None, exact_amount=Decimal("0.0740"), amount=Decimal("0.07")),
)


def annex_sha256(rows: Sequence[AnnexRow]) -> str:
    digest = AnnexDigest()
    for row in rows:
        digest.add(row, annex_line(row))
    return digest.sha256


def statement(
    account: str = "acme",
    period: str = "2026-11",
    *,
    previous: str = "",
    rows: Sequence[AnnexRow] = ROWS,
    **members: Any,
) -> Statement:
    """Return a closed statement whose sums are right."""
    month = BillingPeriod.named(period, PARIS)
    values: dict[str, Any] = {
        "format": FORMAT,
        "statement_id": statement_id(period, account),
        "state": "closed",
        "issuer": "Cloud Ltd",
        "region": "eu-1",
        "account": StatementAccount(id=account, name="ACME"),
        "currency": "EUR",
        "period": StatementPeriod(
            name=period,
            first=month.first,
            until=month.until,
            start=month.start,
            end=month.end,
            timezone="Europe/Paris",
        ),
        "as_of": datetime(2026, 12, 6, 1, tzinfo=UTC),
        "closed_at": datetime(2026, 12, 6, 1, 0, 1, tzinfo=UTC),
        "book": StatementBook(name="standard", sha256=hashlib.sha256(BOOK_TEXT.encode()).hexdigest()),
        "completeness": StatementCompleteness(expected=100, received=100, percent="100"),
        "lines": LINES,
        "unpriced": (),
        "unmetered": (),
        "net": Decimal("0.37"),
        "tax": Decimal("0.07"),
        "total": Decimal("0.44"),
        "annex_sha256": annex_sha256(rows),
        "previous_sha256": previous,
    }
    return Statement(**{**values, **members})


def signed(document: Statement, key: Ed25519PrivateKey = KEY) -> SignedStatement:
    signature = base64.b64encode(key.sign(canonical(document))).decode()
    return SignedStatement(statement=document, key_id=key_id_of(key.public_key()), signature=signature)


def closing(document: Statement, **members: Any) -> ClosingStatement:
    values: dict[str, Any] = {
        "signed": signed(document),
        "book_text": BOOK_TEXT,
        "projects": ("p1", "p2"),
        "closed_by": "ann@billing",
        "usage_skus": ("vm",),
    }
    return ClosingStatement(**{**values, **members})


async def pages(rows: Sequence[AnnexRow] = ROWS):
    for row in rows:
        yield AnnexPage.of(row.project_id, [annex_line(row)])
