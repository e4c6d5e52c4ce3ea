"""A statement as it is signed and handed over: docs/statements.rst has the document field by field.

The structs are the JSON document. Decimals are strings in it, so that no reader's floating point changes them; times are in
UTC, days are those of the book's time zone. What is signed is the canonical form (RFC 8785) of :class:`Statement`.
"""

from __future__ import annotations

from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import rfc8785

FORMAT = "meter-statement-1"


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class StatementAccount(_Document, frozen=True):
    """Who pays, as it was known when the statement was closed."""

    id: str
    name: str
    billing_address: str = ""
    reference: str = ""


class StatementPeriod(_Document, frozen=True):
    """The billing period: from ``start`` until before ``end``, days from ``first`` until before ``until``."""

    name: str
    first: date
    until: date
    start: datetime
    end: datetime
    timezone: str


class StatementBook(_Document, frozen=True):
    """The price book by which the statement was rated."""

    name: str
    sha256: str


class AcceptedGap(_Document, frozen=True):
    """A reason why the ledger does not call the period complete, and that was accepted at the close."""

    code: str
    text: str
    samples: int = 0


class StatementCompleteness(_Document, frozen=True):
    """What the completeness ledger said of the account's samples. ``percent`` is ``None`` if it expected none."""

    expected: int
    received: int
    percent: str | None
    gaps: tuple[AcceptedGap, ...] = ()
    accepted: str = ""
    """Why the gaps were accepted: the text given at the close."""


class StatementAmends(_Document, frozen=True):
    """The line of an earlier statement that a correction amends; ``line`` is ``None`` if that statement has none of this kind."""

    statement_id: str
    line: int | None


class StatementLine(_Document, frozen=True):
    """A line: :class:`meter.rating.money.rated.RatedLine` says what the fields mean. ``exact_amount`` rounded is ``amount``."""

    number: int
    kind: str
    key: str
    project_id: str
    project_name: str
    description: str
    first: date
    until: date
    list_amount: Decimal
    exact_amount: Decimal
    amount: Decimal
    sku: str | None = None
    price_id: str | None = None
    tier: int | None = None
    values: dict[str, str] = msgspec.field(default_factory=dict)
    quantity: Decimal | None = None
    unit: str | None = None
    list_unit_price: Decimal | None = None
    unit_price: Decimal | None = None
    pricing_quantity: Decimal | None = None
    pricing_unit: str | None = None
    resource_id: str | None = None
    service: str = ""
    category: str = ""
    tax_category: str | None = None
    amends: StatementAmends | None = None


class StatementUnpriced(_Document, frozen=True):
    """Usage that no price covers: it is in no line."""

    project_id: str
    sku: str
    values: dict[str, str]
    first: date
    until: date
    quantity: Decimal
    unit: str


class StatementUnmetered(_Document, frozen=True):
    """Time in which resources existed and their usage is unknown: it is in no line."""

    project_id: str
    sku: str
    seconds: int


class Statement(_Document, frozen=True):
    """A closed statement of an account and period. ``state`` of a preview is *open*; it has no signature.

    ``previous_sha256`` is the hash of the canonical form of the account's statement before, "" for its first.
    ``annex_sha256`` is that of the annex: the quantities of each resource and day (docs/statements.rst).
    """

    format: str
    statement_id: str
    state: str
    issuer: str
    region: str
    account: StatementAccount
    currency: str
    period: StatementPeriod
    as_of: datetime
    closed_at: datetime | None
    book: StatementBook
    completeness: StatementCompleteness
    lines: tuple[StatementLine, ...]
    unpriced: tuple[StatementUnpriced, ...]
    unmetered: tuple[StatementUnmetered, ...]
    net: Decimal
    tax: Decimal
    total: Decimal
    annex_sha256: str
    previous_sha256: str


class SignedStatement(_Document, frozen=True):
    """A statement, the id of the key that signed it and the Ed25519 signature, as base64, over its canonical form."""

    statement: Statement
    key_id: str
    signature: str


class AnnexRow(_Document, frozen=True):
    """A row of the annex, one JSON object a line: what one resource used of a SKU, by day; the sum of all is the lines' quantity."""

    project_id: str
    sku: str
    resource_id: str
    values: dict[str, str]
    days: dict[str, Decimal]


def builtins(document: msgspec.Struct) -> Any:
    """Return ``document`` as what JSON has: dictionaries, lists, strings, integers, booleans and ``None``; no floats."""
    return msgspec.to_builtins(document, builtin_types=())


def canonical(statement: Statement) -> bytes:
    """Return what is signed: the canonical form (RFC 8785) of ``statement``."""
    return rfc8785.dumps(builtins(statement))


def read_statement(body: bytes) -> SignedStatement:
    """Return the signed statement in the JSON document ``body``; its signature is not checked.

    :raises ValueError: it is no such document; the text says which field is wrong and how.
    """
    try:
        return msgspec.json.decode(body, type=SignedStatement)
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise ValueError(f"this is not a signed statement of Meter: {fault}") from fault
