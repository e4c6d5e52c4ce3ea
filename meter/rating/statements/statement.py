"""A statement as it is signed and handed over: docs/statements.rst has the document field by field.

The structs are the JSON document. Decimals are strings in it, so that no reader's floating point changes them; times are in
UTC, days are those of the book's time zone. What is signed is the canonical form (RFC 8785) of :class:`Statement`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import date
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import rfc8785

from meter.rating.statements.strict_json import decoded

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


MAX_WHOLE_DIGITS = 40
MAX_DECIMALS = 50
"""Digits that a number of a statement may have before and after its point: sums of such numbers are exact in ``EXACT``."""

FIRST_YEAR, LAST_YEAR = 1970, 9998
"""Times of a statement are of these years: in any time zone they are times that Python has."""

MAX_INTEGER = 2**53 - 1
"""Largest integer of the canonical form."""


def builtins(document: msgspec.Struct) -> Any:
    """Return ``document`` as what JSON has: dictionaries, lists, strings, integers, booleans and ``None``; no floats.

    A decimal is a string of digits with a point, never with an exponent.
    """
    return _without_decimals(msgspec.to_builtins(document, builtin_types=(Decimal,)))


def _without_decimals(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return {name: _without_decimals(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_without_decimals(member) for member in value]
    return value


def canonical(statement: Statement) -> bytes:
    """Return what is signed: the canonical form (RFC 8785) of ``statement``."""
    return rfc8785.dumps(builtins(statement))


def statement_sha256(statement: Statement) -> str:
    """Return the hash of the canonical form of ``statement``: that by which the next statement of the account names it."""
    return hashlib.sha256(canonical(statement)).hexdigest()


def signed_document(signed: SignedStatement) -> bytes:
    """Return the file that is handed over: JSON, one member a line, with a line break at its end."""
    return json.dumps(builtins(signed), ensure_ascii=False, indent=1).encode() + b"\n"


def read_statement(body: bytes) -> SignedStatement:
    """Return the signed statement in the JSON document ``body``, which anybody may have written; its signature is not checked.

    :raises ValueError: it is no such document; the text says which field is wrong and how.
    """
    return statement_of(decoded(body))


def statement_of(document: Any) -> SignedStatement:
    """Return the signed statement in a decoded JSON document; ``ValueError`` as for :func:`read_statement`."""
    try:
        signed = msgspec.convert(document, type=SignedStatement)
    except (msgspec.MsgspecError, ValueError, OverflowError) as fault:
        raise ValueError(f"this is not a signed statement of Meter: {fault}") from fault
    for place, value in _bounded(msgspec.to_builtins(signed, builtin_types=(Decimal, datetime, date)), "$"):
        if problem := _out_of_bounds(value):
            raise ValueError(f"this is not a signed statement of Meter: {problem} - at `{place}`")
    return signed


def _out_of_bounds(value: Decimal | int | date) -> str:
    """Return what is wrong with a number or time, which formats could not write; an empty text if nothing is."""
    if isinstance(value, date):
        if not FIRST_YEAR <= value.year <= LAST_YEAR:
            return f"{value} is not in the years {FIRST_YEAR} to {LAST_YEAR}"
        return f"{value} has no time zone" if isinstance(value, datetime) and value.utcoffset() is None else ""
    if _in_bounds(value):
        return ""
    text = f"{value:.20}" if isinstance(value, Decimal) else "an integer"
    return f"{text} is out of the bounds of numbers"


def _in_bounds(number: Decimal | int) -> bool:
    if isinstance(number, int):
        return abs(number) <= MAX_INTEGER
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_DECIMALS and number.adjusted() < MAX_WHOLE_DIGITS


def _bounded(value: Any, place: str) -> Iterator[tuple[str, Decimal | int | date]]:
    if isinstance(value, Decimal | int | date):
        yield place, value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _bounded(member, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for number, member in enumerate(value):
            yield from _bounded(member, f"{place}[{number}]")
