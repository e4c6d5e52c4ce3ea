"""A closed statement with a line of every kind, and its annex, written down by hand: what exports are tested with."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC
from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meter.rating.statements.annex import annex_line
from meter.rating.statements.statement import FORMAT
from meter.rating.statements.statement import AcceptedGap
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import StatementAccount
from meter.rating.statements.statement import StatementAmends
from meter.rating.statements.statement import StatementBook
from meter.rating.statements.statement import StatementCompleteness
from meter.rating.statements.statement import StatementLine
from meter.rating.statements.statement import StatementPeriod
from meter.rating.statements.statement import StatementUnmetered
from meter.rating.statements.statement import StatementUnpriced
from meter.rating.statements.statement import canonical

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY_ID = "example-key"
HEBREW = "חנות הספרים"
FORMULA = "=HYPERLINK(\"https://evil.example\"; 'x')"
LONG = "very long project name " * 13


def dec(text: str) -> Decimal:
    return Decimal(text)


def line(number: int, kind: str, key: str, **fields: Any) -> StatementLine:
    defaults: dict[str, Any] = {
        "project_id": "shop",
        "project_name": HEBREW,
        "description": f"line {number}",
        "first": date(2026, 11, 1),
        "until": date(2026, 12, 1),
    }
    return StatementLine(number=number, kind=kind, key=key, **{**defaults, **fields})


VM = {"sku": "vm", "unit": "Hours", "service": "Virtual Machines", "category": "Compute"}
EGRESS = {"sku": "egress", "unit": "GiB", "service": "Network Connectivity", "category": "Networking"}

LINES = (
    # 2 instances of m1.small: 720 h and 100.5 h, at 0.0125 list and 0.01 contracted.
    line(
        1,
        "usage",
        "usage/shop/vm/vm-small/1/flavor=m1.small",
        description="Instances m1.small",
        price_id="vm-small",
        tier=1,
        values={"flavor": "m1.small", "availability_zone": "az-1"},
        quantity=dec("820.5"),
        list_unit_price=dec("0.0125"),
        unit_price=dec("0.01"),
        list_amount=dec("10.25625"),
        exact_amount=dec("8.205"),
        amount=dec("8.21"),
        **VM,
    ),
    # 10 GiB free, then 120.333333333 GiB at 0.05.
    line(
        2,
        "usage",
        "usage/shop/egress/egress/0/",
        description="Egress, free",
        price_id="egress",
        tier=0,
        quantity=dec("10"),
        list_unit_price=dec("0"),
        unit_price=dec("0"),
        list_amount=dec("0"),
        exact_amount=dec("0"),
        amount=dec("0.00"),
        **EGRESS,
    ),
    line(
        3,
        "usage",
        "usage/shop/egress/egress/1/",
        description="Egress",
        price_id="egress",
        tier=1,
        quantity=dec("120.333333333"),
        list_unit_price=dec("0.05"),
        unit_price=dec("0.05"),
        list_amount=dec("6.01666666665"),
        exact_amount=dec("6.01666666665"),
        amount=dec("6.02"),
        **EGRESS,
    ),
    # A price of 30 a month, for 361 h of 720.
    line(
        4,
        "usage",
        "usage/lab/support/support/1/",
        project_id="lab",
        project_name=FORMULA,
        description="Router, by the month",
        sku="router",
        price_id="router",
        tier=1,
        quantity=dec("361"),
        unit="Hours",
        list_unit_price=dec("30"),
        unit_price=dec("30"),
        pricing_quantity=dec("0.501388888889"),
        pricing_unit="Months",
        list_amount=dec("15.041666666667"),
        exact_amount=dec("15.041666666667"),
        amount=dec("15.04"),
        service="routers",
        category="Networking",
    ),
    line(
        5,
        "fixed",
        "fixed/support-plan",
        project_id="",
        project_name="",
        description="Support plan",
        price_id="support-plan",
        quantity=dec("1"),
        unit="Months",
        list_unit_price=dec("20"),
        unit_price=dec("20"),
        list_amount=dec("20"),
        exact_amount=dec("20"),
        amount=dec("20.00"),
        service="Support",
        category="Management and Governance",
    ),
    line(
        6,
        "discount",
        "discount/autumn/shop/vm",
        description="Autumn discount 10 %",
        sku="vm",
        list_amount=dec("0"),
        exact_amount=dec("-0.8205"),
        amount=dec("-0.82"),
    ),
    line(
        7,
        "minimum",
        "minimum/floor",
        project_id="",
        project_name="",
        description="Minimum",
        list_amount=dec("1.55"),
        exact_amount=dec("1.55"),
        amount=dec("1.55"),
    ),
    line(
        8,
        "correction",
        "correction/2026-10.acme/usage/shop/vm/vm-small/1/flavor=m1.small",
        description="Correction of Instances m1.small",
        first=date(2026, 10, 1),
        until=date(2026, 11, 1),
        price_id="vm-small",
        tier=1,
        values={"flavor": "m1.small"},
        quantity=dec("-4"),
        list_unit_price=dec("0.0125"),
        unit_price=dec("0.01"),
        list_amount=dec("-0.05"),
        exact_amount=dec("-0.04"),
        amount=dec("-0.04"),
        amends=StatementAmends(statement_id="2026-10.acme", line=1),
        **VM,
    ),
    line(
        9,
        "credit",
        "credit/welcome",
        project_id="",
        project_name="",
        description="Welcome credit",
        list_amount=dec("-5"),
        exact_amount=dec("-5"),
        amount=dec("-5.00"),
    ),
    # 20 % of 44.96.
    line(
        10,
        "tax",
        "tax/standard",
        project_id="",
        project_name="",
        description="VAT 20 %",
        tax_category="standard",
        list_amount=dec("8.992"),
        exact_amount=dec("8.992"),
        amount=dec("8.99"),
    ),
)

ANNEX = (
    AnnexRow(
        project_id="lab",
        sku="router",
        resource_id="router-1",
        values={},
        days={"2026-11-16": dec("24"), "2026-11-17": dec("337")},
    ),
    AnnexRow(project_id="shop", sku="egress", resource_id="port-1", values={}, days={"2026-11-03": dec("100")}),
    AnnexRow(
        project_id="shop",
        sku="egress",
        resource_id="port-2",
        values={},
        days={"2026-11-03": dec("0.333333333"), "2026-11-30": dec("30")},
    ),
    AnnexRow(
        project_id="shop",
        sku="vm",
        resource_id="web",
        values={"flavor": "m1.small", "availability_zone": "az-1"},
        days={"2026-11-01": dec("24"), "2026-11-02": dec("696")},
    ),
    AnnexRow(
        project_id="shop",
        sku="vm",
        resource_id="worker",
        values={"flavor": "m1.small", "availability_zone": "az-1"},
        days={"2026-11-30": dec("100.5")},
    ),
)
"""The quantities of resources and days; a day with 337 hours keeps the example short."""


def annex_bytes(rows: tuple[AnnexRow, ...] = ANNEX) -> bytes:
    return b"".join(map(annex_line, rows))


def statement(**changes: Any) -> Statement:
    """Return the statement of November 2026 of the account ``acme``: 44.96 net, 8.99 tax."""
    fields: dict[str, Any] = {
        "format": FORMAT,
        "statement_id": "2026-11.acme",
        "state": "closed",
        "issuer": "Example Cloud",
        "region": "eu-west",
        "account": StatementAccount(
            id="acme", name="Acme <b>Ltd</b> & Söhne", billing_address="1 High Street\nParis", reference="PO-7"
        ),
        "currency": "EUR",
        "period": StatementPeriod(
            name="2026-11",
            first=date(2026, 11, 1),
            until=date(2026, 12, 1),
            start=datetime(2026, 10, 31, 23, tzinfo=UTC),
            end=datetime(2026, 11, 30, 23, tzinfo=UTC),
            timezone="Europe/Paris",
        ),
        "as_of": datetime(2026, 12, 6, 8, tzinfo=UTC),
        "closed_at": datetime(2026, 12, 6, 8, 0, 1, tzinfo=UTC),
        "book": StatementBook(name="eur", sha256=hashlib.sha256(b"{}").hexdigest()),
        "completeness": StatementCompleteness(
            expected=8640,
            received=8630,
            percent="99.88",
            gaps=(AcceptedGap(code="gap", text="agent was down on host c3", samples=10),),
            accepted="known outage of 3 November",
        ),
        "lines": LINES,
        "unpriced": (
            StatementUnpriced(
                project_id="shop",
                sku="gpu",
                values={"model": "a100"},
                first=date(2026, 11, 4),
                until=date(2026, 11, 5),
                quantity=dec("3.5"),
                unit="Hours",
            ),
        ),
        "unmetered": (StatementUnmetered(project_id="lab", sku="router", seconds=3600),),
        "net": dec("44.96"),
        "tax": dec("8.99"),
        "total": dec("53.95"),
        "annex_sha256": hashlib.sha256(annex_bytes()).hexdigest(),
        "previous_sha256": "",
    }
    return Statement(**{**fields, **changes})


def signed(document: Statement | None = None) -> SignedStatement:
    """Return ``document``, or that of :func:`statement`, with its signature."""
    document = document or statement()
    signature = base64.b64encode(KEY.sign(canonical(document))).decode()
    return SignedStatement(statement=document, key_id=KEY_ID, signature=signature)
