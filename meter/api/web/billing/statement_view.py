"""A statement as its page shows it: the whole document or the extract of a project, one page of its lines at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from meter.api.auth.visible_statements import VisibleStatement
from meter.rating.exports.statement_page import line_groups
from meter.rating.statements.extract import ExtractLine
from meter.rating.statements.extract import StatementExtract
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import StatementLine

MAX_ROWS = 100
"""Lines on one page, and rows of each of its other tables."""

Line = StatementLine | ExtractLine


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedGroup:
    """Lines of a project on this page, and the sum of all its lines; without ``project_id`` those of the account."""

    project_id: str
    project_name: str
    lines: Sequence[Line]
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementView:
    """What the page shows: ``groups`` has the lines from ``offset`` on, ``count`` is the number of all that are asked for.

    ``next_offset`` is that of the next page, ``None`` on the last one.
    """

    document: Statement | StatementExtract
    groups: Sequence[ViewedGroup]
    projects: Sequence[ViewedGroup]
    taxes: Sequence[Line]
    count: int
    offset: int
    next_offset: int | None

    @property
    def whole(self) -> bool:
        """Whether all of the statement is visible."""
        return isinstance(self.document, Statement)


def document_of(visible: VisibleStatement) -> Statement | StatementExtract:
    """Return what is visible."""
    found = visible.part if visible.whole is None else visible.whole.statement
    assert found is not None
    return found


def statement_view(
    document: Statement | StatementExtract, project_id: str | None = None, offset: int = 0
) -> StatementView:
    """Return the lines from ``offset`` on, of all or of one project."""
    groups = [each for each in _groups(document) if project_id is None or each.project_id == project_id]
    count = sum(len(each.lines) for each in groups)
    shown, first = [], 0
    for each in groups:
        lines = each.lines[max(0, offset - first) : max(0, offset + MAX_ROWS - first)]
        if lines:
            shown.append(
                ViewedGroup(project_id=each.project_id, project_name=each.project_name, lines=lines, amount=each.amount)
            )
        first += len(each.lines)
    return StatementView(
        document=document,
        groups=shown,
        projects=groups,
        taxes=[line for line in document.lines if line.kind == "tax"],
        count=count,
        offset=offset,
        next_offset=offset + MAX_ROWS if offset + MAX_ROWS < count else None,
    )


def _groups(document: Statement | StatementExtract) -> list[ViewedGroup]:
    if isinstance(document, Statement):
        return [
            ViewedGroup(
                project_id=each.project_id, project_name=each.project_name, lines=each.lines, amount=each.amount
            )
            for each in line_groups(document)
        ]
    return [
        ViewedGroup(
            project_id=document.project_id,
            project_name=document.project_name,
            lines=document.lines,
            amount=document.amount,
        )
    ]
