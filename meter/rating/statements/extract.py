"""The extract of a statement for one of several projects: its own lines and usage, and nothing of the others.

It has no sums of the account, no address, no numbers of lines and no counts, because these say something about other projects.
It is not signed: what is signed is the statement, which belongs to whoever pays.
"""

from __future__ import annotations

import re
from datetime import date
from datetime import datetime
from decimal import Decimal

import msgspec

from meter.rating.exact import EXACT
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import StatementLine
from meter.rating.statements.statement import StatementPeriod
from meter.rating.statements.statement import StatementUnmetered
from meter.rating.statements.statement import StatementUnpriced

EXTRACT_FORMAT = "meter-statement-extract-1"

NOTE = (
    "An extract of a statement with the lines of one project. It is not signed, and has neither charges nor credits and"
    " taxes of the account as a whole."
)

_AMENDED_LINE = re.compile(r"\bline \d+ of statement\b")


class ExtractLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line as in the statement, without its number; ``amends_statement_id`` is the statement that a correction amends."""

    kind: str
    key: str
    description: str
    first: date
    until: date
    list_amount: Decimal
    exact_amount: Decimal
    amount: Decimal
    sku: str | None
    price_id: str | None
    tier: int | None
    values: dict[str, str]
    quantity: Decimal | None
    unit: str | None
    list_unit_price: Decimal | None
    unit_price: Decimal | None
    pricing_quantity: Decimal | None
    pricing_unit: str | None
    resource_id: str | None
    service: str
    category: str
    tax_category: str | None
    amends_statement_id: str | None


class StatementExtract(msgspec.Struct, frozen=True, kw_only=True):
    """What a project sees of a statement that has others', too. ``amount`` is the sum of its lines."""

    format: str
    note: str
    statement_id: str
    state: str
    issuer: str
    region: str
    project_id: str
    project_name: str
    currency: str
    period: StatementPeriod
    as_of: datetime
    closed_at: datetime | None
    lines: tuple[ExtractLine, ...]
    unpriced: tuple[StatementUnpriced, ...]
    unmetered: tuple[StatementUnmetered, ...]
    amount: Decimal


def projects_of(statement: Statement) -> set[str]:
    """Return the ids of the projects that a statement says anything about."""
    found = {line.project_id for line in statement.lines}
    found.update(each.project_id for each in statement.unpriced)
    found.update(each.project_id for each in statement.unmetered)
    return found - {""}


def extract(statement: Statement, project_id: str) -> StatementExtract:
    """Return what the project sees of ``statement``."""
    lines = [line for line in statement.lines if line.project_id == project_id]
    amount = Decimal(0)
    for line in lines:
        amount = EXACT.add(amount, line.amount)
    return StatementExtract(
        format=EXTRACT_FORMAT,
        note=NOTE,
        statement_id=statement.statement_id,
        state=statement.state,
        issuer=statement.issuer,
        region=statement.region,
        project_id=project_id,
        project_name=next((line.project_name for line in lines if line.project_name), ""),
        currency=statement.currency,
        period=statement.period,
        as_of=statement.as_of,
        closed_at=statement.closed_at,
        lines=tuple(map(_line, lines)),
        unpriced=tuple(each for each in statement.unpriced if each.project_id == project_id),
        unmetered=tuple(each for each in statement.unmetered if each.project_id == project_id),
        amount=amount,
    )


def _line(line: StatementLine) -> ExtractLine:
    fields = {name: getattr(line, name) for name in ExtractLine.__struct_fields__ if name != "amends_statement_id"}
    fields["description"] = _AMENDED_LINE.sub("statement", line.description)
    return ExtractLine(**fields, amends_statement_id=None if line.amends is None else line.amends.statement_id)
