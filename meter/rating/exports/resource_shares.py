"""Shares: what each resource has of the lines of a statement, by the quantities in its annex.

A line's quantity and amounts are divided in proportion to what each resource used in the days of the line. Each share is
the difference of two rounded running sums, so that the shares of a line add up to it exactly.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import groupby

from meter.rating.exact import EXACT
from meter.rating.exact import QUANTITY_DECIMALS
from meter.rating.exact import divided
from meter.rating.exact import total_of
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import StatementLine

COST_DECIMALS = 12
"""Decimals of a resource's share of a cost."""


@dataclass(frozen=True, slots=True)
class ResourceShare:
    """What a resource has of a line. ``values`` are those of the resource's usage."""

    resource_id: str
    values: Mapping[str, str]
    quantity: Decimal
    pricing_quantity: Decimal
    list_amount: Decimal
    exact_amount: Decimal
    amount: Decimal


def shared_lines(
    statement: Statement, annex: Iterable[AnnexRow] | None
) -> Iterator[tuple[StatementLine, ResourceShare | None]]:
    """Yield each line, without a share; or with ``annex`` a line of usage once for each resource that used it.

    With ``annex`` the lines of usage come in its order, project by project and SKU by SKU, so that only the rows of one SKU
    and project are in memory.

    :raises ValueError: the annex is not ordered by project and SKU.
    """
    if annex is None:
        for line in statement.lines:
            yield line, None
        return
    usage: dict[tuple[str, str], list[StatementLine]] = {}
    others = []
    for line in statement.lines:
        if line.kind == "usage" and line.sku is not None:
            usage.setdefault((line.project_id, line.sku), []).append(line)
        else:
            others.append(line)
    seen = set()
    for key, rows in groupby(annex, lambda row: (row.project_id, row.sku)):
        if key in seen:
            raise ValueError(f"the annex is not in its order: {key[1]} of {key[0] or 'no project'} comes twice")
        seen.add(key)
        if key in usage:
            yield from _shares(usage.pop(key), list(rows))
    for lines in usage.values():
        for line in lines:
            yield line, None
    for line in others:
        yield line, None


def _shares(
    lines: Sequence[StatementLine], rows: Sequence[AnnexRow]
) -> Iterator[tuple[StatementLine, ResourceShare | None]]:
    for line in lines:
        used = [(row, quantity) for row in rows if _is_of(row, line) and (quantity := _used(row, line))]
        total = total_of(quantity for _, quantity in used)
        if not total:
            yield line, None
            continue
        before = Decimal(0)
        for row, quantity in used:
            after = EXACT.add(before, quantity)
            yield line, _share(line, row, before, after, total)
            before = after


def _is_of(row: AnnexRow, line: StatementLine) -> bool:
    if line.resource_id is not None and row.resource_id != line.resource_id:
        return False
    return all(row.values.get(name) == value for name, value in line.values.items())


def _used(row: AnnexRow, line: StatementLine) -> Decimal:
    days = (quantity for day, quantity in row.days.items() if line.first <= date.fromisoformat(day) < line.until)
    return total_of(days)


def _share(line: StatementLine, row: AnnexRow, before: Decimal, after: Decimal, total: Decimal) -> ResourceShare:
    def part(whole: Decimal, decimals: int) -> Decimal:
        return EXACT.subtract(
            _running(whole, after, total, max(decimals, _decimals(whole))),
            _running(whole, before, total, max(decimals, _decimals(whole))),
        )

    return ResourceShare(
        resource_id=row.resource_id,
        values=row.values,
        quantity=part(line.quantity or Decimal(0), QUANTITY_DECIMALS),
        pricing_quantity=part(_pricing_quantity(line), COST_DECIMALS if line.pricing_quantity else QUANTITY_DECIMALS),
        list_amount=part(line.list_amount, COST_DECIMALS),
        exact_amount=part(line.exact_amount, COST_DECIMALS),
        amount=part(line.amount, COST_DECIMALS),
    )


def _pricing_quantity(line: StatementLine) -> Decimal:
    return (line.quantity if line.pricing_quantity is None else line.pricing_quantity) or Decimal(0)


def _running(whole: Decimal, position: Decimal, total: Decimal, decimals: int) -> Decimal:
    """Return ``whole`` × ``position`` / ``total``, rounded to ``decimals``: 0 at the start and ``whole`` at the end."""
    share = EXACT.multiply(whole, position)
    return divided(share if total > 0 else EXACT.minus(share), EXACT.abs(total), decimals, "half even")


def _decimals(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0
