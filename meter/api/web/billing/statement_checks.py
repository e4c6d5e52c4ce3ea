"""The checks of ``meter-rate verify``, made by the server with the keys that it publishes."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.threads import deferToThread

from meter.api.request.context import RequestContext
from meter.interfaces import Unavailable
from meter.rating.statements.statement import SignedStatement
from meter.rating.statements.statement import signed_document
from meter.rating.statements.verification import StatementCheck
from meter.rating.statements.verification import verify_document

MAX_LINES_AT_ONCE = 100
"""Lines of a statement that is checked without being asked for, in the reactor; longer ones take a thread."""


async def previous_statement(context: RequestContext, signed: SignedStatement) -> SignedStatement | None:
    """Return the account's closed statement before ``signed``, ``None`` if there is none that is wholly visible."""
    statement = signed.statement
    if not statement.previous_sha256:
        return None
    found = await context.store.statements.summaries(statement.account.id, None, None, context.limits.max_limit)
    earlier = [each for each in found if each.period < statement.period.name]
    if not earlier:
        return None
    before = await context.store.statements.statement(max(earlier, key=lambda each: each.period).statement_id)
    return None if before is None else before.whole


async def statement_checks(context: RequestContext, signed: SignedStatement) -> Sequence[StatementCheck]:
    """Return what was checked of a closed statement, and with which outcome."""
    before = await previous_statement(context, signed)
    try:
        keys = {} if context.rating is None else context.rating.keys.by_id()
    except Unavailable:
        keys = {}

    def verify() -> Sequence[StatementCheck]:
        previous = None if before is None else signed_document(before)
        return verify_document(signed_document(signed), keys, previous=previous)

    if is_short(signed) and (before is None or is_short(before)):
        return verify()
    checks: Sequence[StatementCheck] = await deferToThread(verify)
    return checks


def is_short(signed: SignedStatement) -> bool:
    """Return whether the statement is checked whenever it is shown."""
    return len(signed.statement.lines) <= MAX_LINES_AT_ONCE
