"""JSON schemas of ``/v2/statements``, and what a requester sees of a statement in the list."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec

from meter.api.auth.visible_statements import VisibleStatement
from meter.rating.statements.extract import StatementExtract
from meter.rating.statements.extract import projects_of
from meter.rating.statements.statement import Statement
from meter.rating.statements.statement_store import StatementSummary
from meter.sample import utc_text


class StatementEntry(msgspec.Struct, kw_only=True):
    """A statement in the list. ``state`` is *closed* or *open*.

    ``extract``: the requester sees the lines of their project only; ``account_name`` and ``total`` are null then, and
    ``projects`` has that project alone. ``closed_by`` is for administrators.
    ``forecast`` is the total that is expected at the end of an open period.
    """

    statement_id: str
    state: str
    account_id: str
    account_name: str | None
    period: str
    currency: str
    total: str | None
    closed_at: str | None
    closed_by: str | None
    projects: list[str]
    extract: bool
    forecast: str | None = None


def open_entry(preview: VisibleStatement) -> StatementEntry:
    """Return an open statement in the list."""
    found: Statement | StatementExtract | None = preview.part if preview.whole is None else preview.whole.statement
    assert found is not None
    return StatementEntry(
        statement_id=found.statement_id,
        state=found.state,
        account_id=unquote(found.statement_id.partition(".")[2]),
        account_name=found.account.name if isinstance(found, Statement) else None,
        period=found.period.name,
        currency=found.currency,
        total=f"{found.total:f}" if isinstance(found, Statement) else None,
        closed_at=None,
        closed_by=None,
        projects=[found.project_id] if isinstance(found, StatementExtract) else sorted(projects_of(found)),
        extract=isinstance(found, StatementExtract),
        forecast=None if preview.forecast is None else f"{preview.forecast:f}",
    )


def entry(summary: StatementSummary, only_project: str | None) -> StatementEntry:
    """Return a statement in the list; ``only_project`` is the project that the requester may see, ``None`` if all."""
    is_part = only_project is not None and set(summary.projects) != {only_project}
    return StatementEntry(
        statement_id=summary.statement_id,
        state="closed",
        account_id=summary.account_id,
        account_name=None if is_part else summary.account_name,
        period=summary.period,
        currency=summary.currency,
        total=None if is_part else summary.total,
        closed_at=utc_text(summary.closed_at),
        closed_by=summary.closed_by if only_project is None else None,
        projects=list(summary.projects) if only_project is None else [only_project],
        extract=is_part,
    )
