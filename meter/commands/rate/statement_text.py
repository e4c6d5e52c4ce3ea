"""Statements as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from decimal import Decimal

from meter.rating.statements.statement import Statement

WIDTH = 14
"""Columns of amounts and quantities."""


def statement_lines(statement: Statement) -> Iterator[str]:
    """Yield a statement as lines of text: its head, a line for each line, what it does not bill, and its sums."""
    account = statement.account
    name = f" ({account.name})" if account.name and account.name != account.id else ""
    yield f"{statement.statement_id}  {statement.state}  {account.id}{name}  {statement.period.name}  {statement.currency}"
    completeness = statement.completeness
    percent = "-" if completeness.percent is None else f"{completeness.percent} %"
    yield f"samples: expected {completeness.expected}  received {completeness.received}  {percent}"
    for gap in completeness.gaps:
        yield f"gap: {gap.text}"
    if completeness.accepted:
        yield f"gaps accepted: {completeness.accepted}"
    project = None
    for line in statement.lines:
        if line.project_id != project:
            project = line.project_id
            named = f" ({line.project_name})" if line.project_name not in ("", project) else ""
            yield f"project {project}{named}" if project else "account"
        quantity = "" if line.quantity is None else f"{line.quantity:f} {line.unit or ''}"
        yield f"  {line.amount:>{WIDTH}f}  {line.kind:<10}  {quantity:>{WIDTH}}  {line.description}"
    yield from unpriced_lines(statement)
    for unmetered in statement.unmetered:
        where = f"{unmetered.sku} of project {unmetered.project_id}"
        yield f"unmetered  {unmetered.seconds} s  {where}: not billed"
    for label, amount in (("net", statement.net), ("tax", statement.tax), ("total", statement.total)):
        yield f"  {amount:>{WIDTH}f}  {label}"


def unpriced_lines(statement: Statement) -> Iterator[str]:
    """Yield the usage that no price covers, a line for each kind."""
    for unpriced in statement.unpriced:
        where = f"{unpriced.sku} of project {unpriced.project_id}{_values(unpriced.values)}"
        yield f"UNPRICED  {unpriced.quantity:f} {unpriced.unit}  {where}: no price covers it"


def _values(values: dict[str, str]) -> str:
    return "".join(f" {name}={value}" for name, value in sorted(values.items()))


def table(rows: Sequence[Sequence[str | Decimal | None]]) -> Iterator[str]:
    """Yield ``rows`` as lines with columns of the same width; numbers are aligned at their ends."""
    cells = [["-" if cell is None else cell if isinstance(cell, str) else f"{cell:f}" for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))] if cells else []
    for row, given in zip(cells, rows, strict=True):
        yield "  ".join(
            text.rjust(width) if isinstance(cell, Decimal) else text.ljust(width)
            for text, width, cell in zip(row, widths, given, strict=True)
        ).rstrip()
