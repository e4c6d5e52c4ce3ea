"""Makes the document of a statement of what was rated."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meter.completeness_query import ClosingReason
from meter.completeness_query import CompletenessRow
from meter.rating.exact import plain
from meter.rating.money.rated import Rated
from meter.rating.money.rated import RatedLine
from meter.rating.statements.closing_problems import ClosingProblem
from meter.rating.statements.payers import Payer
from meter.rating.statements.project_history import ProjectHistory
from meter.rating.statements.statement import FORMAT
from meter.rating.statements.statement import AcceptedGap
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
from meter.rating.statements.statement_id import statement_id
from meter.rating.statements.statement_keys import key_id_of


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftTimes:
    """``as_of``: the samples that were recorded until then count; ``closed_at`` is ``None`` for a preview."""

    as_of: datetime
    closed_at: datetime | None = None


def draft(
    payer: Payer,
    rated: Rated,
    history: ProjectHistory,
    completeness: StatementCompleteness,
    times: DraftTimes,
    *,
    annex_sha256: str = "",
    previous_sha256: str = "",
) -> Statement:
    """Return the statement of ``payer``; names are those of the end of the period, or of ``as_of`` if that is earlier."""
    period, account, book = payer.period, payer.account, payer.book
    named_at = min(period.end, times.as_of) - timedelta(microseconds=1)

    def name_of(project_id: str) -> str:
        return history.name_at(project_id, named_at) if project_id else ""

    state: Literal["closed", "open"] = "open" if times.closed_at is None else "closed"
    return Statement(
        format=FORMAT,
        statement_id=statement_id(period.name, account.id),
        state=state,
        issuer=book.issuer,
        region=book.region,
        account=StatementAccount(
            id=account.id,
            name=account.name or (name_of(account.id) if account.implied else account.id),
            billing_address=account.billing_address,
            reference=account.reference,
        ),
        currency=book.currency,
        period=StatementPeriod(
            name=period.name,
            first=period.first,
            until=period.until,
            start=period.start,
            end=period.end,
            timezone=period.timezone.key,
        ),
        as_of=times.as_of,
        closed_at=times.closed_at,
        book=StatementBook(name=book.name, sha256=book.sha256),
        completeness=completeness,
        lines=tuple(
            statement_line(number, line, name_of(line.project_id)) for number, line in enumerate(rated.lines, 1)
        ),
        unpriced=tuple(
            StatementUnpriced(
                project_id=each.project_id,
                sku=each.sku,
                values=dict(each.values),
                first=each.first,
                until=each.until,
                quantity=plain(each.quantity),
                unit=each.unit,
            )
            for each in rated.unpriced
        ),
        unmetered=tuple(
            StatementUnmetered(project_id=each.project_id, sku=each.sku, seconds=each.seconds)
            for each in rated.unmetered
        ),
        net=rated.net,
        tax=rated.tax,
        total=rated.total,
        annex_sha256=annex_sha256,
        previous_sha256=previous_sha256,
    )


def statement_line(number: int, line: RatedLine, project_name: str) -> StatementLine:
    """Return a line of the document. Numbers besides amounts of money lose the zeros at their ends."""
    amends = None
    if line.amends is not None:
        amends = StatementAmends(statement_id=line.amends.statement_id, line=line.amends.line)
    return StatementLine(
        number=number,
        kind=line.kind,
        key=line.key,
        project_id=line.project_id,
        project_name=project_name,
        description=line.description,
        first=line.first,
        until=line.until,
        list_amount=plain(line.list_amount),
        exact_amount=plain(line.exact_amount),
        amount=line.amount,
        sku=line.sku,
        price_id=line.price_id,
        tier=line.tier,
        values=dict(line.values),
        quantity=_plain(line.quantity),
        unit=line.unit,
        list_unit_price=_plain(line.list_unit_price),
        unit_price=_plain(line.unit_price),
        pricing_quantity=_plain(line.pricing_quantity),
        pricing_unit=line.pricing_unit,
        resource_id=line.resource_id,
        service=line.service,
        category=line.category,
        tax_category=line.tax_category,
        amends=amends,
    )


def _plain(value: Decimal | None) -> Decimal | None:
    return None if value is None else plain(value)


def completeness_of(
    rows: Mapping[str, CompletenessRow],
    projects: Sequence[str],
    reasons: Iterable[ClosingReason | ClosingProblem] = (),
    accepted: str = "",
) -> StatementCompleteness:
    """Return what the ledger said of ``projects``; ``rows`` are those of all projects, by id."""
    found = [rows[each] for each in projects if each in rows]
    expected, received = sum(row.expected for row in found), sum(row.received for row in found)
    percent = None
    if expected:
        # Rounded down to 4 decimals, as the ledger does: 100 only if nothing is missing.
        percent = format(plain(Decimal(received * 1_000_000 // expected).scaleb(-4)), "f")
    gaps = tuple(AcceptedGap(code=each.code, text=each.text, samples=each.samples) for each in reasons)
    return StatementCompleteness(expected=expected, received=received, percent=percent, gaps=gaps, accepted=accepted)


def sign(statement: Statement, key: Ed25519PrivateKey) -> SignedStatement:
    """Return ``statement`` with the signature of ``key``."""
    signature = base64.b64encode(key.sign(canonical(statement))).decode()
    return SignedStatement(statement=statement, key_id=key_id_of(key.public_key()), signature=signature)
