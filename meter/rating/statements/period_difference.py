"""What changed between the statements of two periods: amounts by SKU, and by kind for lines without one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from meter.rating.exact import EXACT
from meter.rating.statements.extract import ExtractLine
from meter.rating.statements.statement import StatementLine

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodDifference:
    """The sum of the lines of one ``kind`` and ``sku`` in both periods; a period without such lines has ``None``."""

    kind: str
    sku: str | None
    before: Decimal | None
    after: Decimal | None

    @property
    def difference(self) -> Decimal:
        """``after`` less ``before``."""
        return EXACT.subtract(self.after or ZERO, self.before or ZERO)


def period_differences(
    before: Iterable[StatementLine | ExtractLine], after: Iterable[StatementLine | ExtractLine]
) -> list[PeriodDifference]:
    """Return the differences between two statements in one currency, the largest first, whatever its sign."""
    old, new = _sums(before), _sums(after)
    found = [
        PeriodDifference(kind=kind, sku=sku or None, before=old.get((kind, sku)), after=new.get((kind, sku)))
        for kind, sku in {**old, **new}
    ]
    return sorted(found, key=lambda each: (-abs(each.difference), each.kind, each.sku or ""))


def _sums(lines: Iterable[StatementLine | ExtractLine]) -> dict[tuple[str, str], Decimal]:
    sums: dict[tuple[str, str], Decimal] = {}
    for line in lines:
        key = line.kind, line.sku or ""
        sums[key] = EXACT.add(sums.get(key, ZERO), line.amount)
    return sums
