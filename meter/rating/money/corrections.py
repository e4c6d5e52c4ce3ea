"""Corrections: what the lines of a closed period are now, less all that was billed for them so far.

Computed anew whenever they are needed, they are idempotent: what was billed as a correction is part of what was billed so far.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from decimal import Decimal

from meter.rating.exact import EXACT
from meter.rating.exact import plain
from meter.rating.money.descriptions import number
from meter.rating.money.line_keys import line_key
from meter.rating.money.rated import AmendedLine
from meter.rating.money.rated import RatedLine
from meter.rating.money.tiers import ZERO
from meter.rating.statements.statement import StatementLine

AMENDED_KINDS = frozenset(("usage", "fixed", "discount", "minimum"))
"""Kinds that corrections amend. Credits and taxes are those of the statement that has the correction."""

INSTEAD = " instead of "
"""Begins what a correction says of the quantity that was billed."""


def correction_lines(
    statement_id: str,
    now: Iterable[RatedLine],
    billed: Sequence[StatementLine],
    corrections: Iterable[StatementLine],
) -> Iterator[RatedLine]:
    """Yield a line for each line of a closed statement whose amount is another ``now``.

    :param statement_id: the closed statement
    :param now: its period rated now, by the same book
    :param billed: the lines of the closed statement
    :param corrections: the lines of all later statements; of these the corrections of ``statement_id`` count
    """
    current = {each.key: each for each in now if each.kind in AMENDED_KINDS}
    original = {each.key: each for each in billed if each.kind in AMENDED_KINDS}
    corrected: dict[str, list[StatementLine]] = {}
    prefix = correction_key(statement_id, "")
    for each in corrections:
        if each.kind == "correction" and each.key.startswith(prefix):
            corrected.setdefault(each.key.removeprefix(prefix), []).append(each)
    for key in sorted({*original, *corrected, *current}):
        so_far = [*([original[key]] if key in original else ()), *corrected.get(key, ())]
        line = _correction(statement_id, key, current.get(key), so_far)
        if line is not None:
            yield line


def correction_key(statement_id: str, key: str) -> str:
    """Return the key of lines that correct the line with ``key`` of a closed statement."""
    return f"{line_key('correction', statement_id)}/{key}"


def _correction(
    statement_id: str, key: str, now: RatedLine | None, so_far: Sequence[StatementLine]
) -> RatedLine | None:
    amount = _difference(now.amount if now else ZERO, (each.amount for each in so_far))
    if not amount:
        return None
    like = now or so_far[0]
    amended = next((each.number for each in so_far if each.kind != "correction"), None)
    what = like.description.split(": ", 1)[1] if like.kind == "correction" else like.description
    named = f"line {amended} of statement {statement_id}" if amended else f"statement {statement_id}"
    quantity = None
    if like.quantity is not None:
        before = [each.quantity or ZERO for each in so_far]
        quantity = _difference((now.quantity or ZERO) if now else ZERO, before)
        billed = EXACT.subtract((now.quantity or ZERO) if now else ZERO, quantity)
        what = what.partition(INSTEAD)[0]
        if now is None:
            what = f"{what}, taken back"
        elif billed and quantity:
            what = f"{what}{INSTEAD}{number(billed)} {like.unit or ''}".rstrip()
    return RatedLine(
        kind="correction",
        key=correction_key(statement_id, key),
        project_id=like.project_id,
        description=f"Correction of {named}: {what}",
        first=like.first,
        until=like.until,
        exact_amount=plain(amount),
        amount=amount,
        list_amount=_difference(now.list_amount if now else ZERO, (each.list_amount for each in so_far)),
        sku=like.sku,
        price_id=like.price_id,
        tier=like.tier,
        values=dict(like.values),
        quantity=quantity,
        unit=like.unit,
        list_unit_price=like.list_unit_price,
        unit_price=like.unit_price,
        resource_id=like.resource_id,
        service=like.service,
        category=like.category,
        tax_category=like.tax_category,
        amends=AmendedLine(statement_id=statement_id, line=amended),
    )


def _difference(now: Decimal, so_far: Iterable[Decimal]) -> Decimal:
    difference = now
    for each in so_far:
        difference = EXACT.subtract(difference, each)
    return EXACT.plus(difference)
