"""What the page ``/completeness`` is asked for: rows of agents or projects, columns of hours or days, and the selected cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import Literal
from urllib.parse import urlencode

from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.errors import invalid_input
from meter.api.handlers.completeness import MAX_DAYS
from meter.api.request.paging import offset_of
from meter.api.request.times import parse_time_argument
from meter.api.web.page_range import page_range
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import GroupField

RowKind = Literal["agent", "project"]
GROUPS: Mapping[RowKind, GroupField] = {"agent": "agent", "project": "project_id"}
DEFAULT_RANGES: Mapping[RowKind, str] = {"agent": "24h", "project": "30d"}

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MAX_HOURLY = timedelta(days=2)
"""Longer periods are shown by day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletenessView:
    """The period ``start`` to ``end``, in whole hours or days, of ``step``.

    ``row`` is the selected agent or project, ``None`` if none is, ``at`` the selected hour or day of it. ``given`` are the
    parameters of the URL that select rows and columns. ``all_gaps``: the gaps of the whole period are asked for.
    """

    by: RowKind
    start: datetime
    end: datetime
    step: timedelta
    name: str | None
    project_id: str | None
    meter: str | None
    row: str | None
    at: datetime | None
    offset: int
    all_gaps: bool
    gap_offset: int
    given: Mapping[str, str]

    def query(self, **changes: Any) -> CompletenessQuery:
        """Return the question about the period."""
        values: dict[str, Any] = {
            "start": self.start,
            "end": self.end,
            "project_id": self.project_id,
            "meter": self.meter,
            **changes,
        }
        return CompletenessQuery(**values)

    @property
    def group(self) -> GroupField:
        """The field of the rows."""
        return GROUPS[self.by]

    @property
    def shows_gaps(self) -> bool:
        """Whether gaps are asked for: of a cell, a row or the period."""
        return self.all_gaps or self.row is not None

    def selected(self) -> CompletenessQuery:
        """Return the question about the selected cell, row or period."""
        changes: dict[str, Any] = {}
        if self.row is not None:
            changes["agent" if self.by == "agent" else "project_id"] = self.row
        if self.at is not None:
            changes |= {"start": self.at, "end": min(self.at + self.step, self.end)}
        return self.query(**changes)

    def link(self, row: str | None = None, at: datetime | None = None, **changes: str) -> str:
        """Return the view with a selected row or cell, and other parameters."""
        pairs = {**self.given, **changes}
        if row is not None:
            pairs["row"] = row
        if at is not None:
            pairs["at"] = f"{at:%Y-%m-%dT%H:%M}"
        return f"?{urlencode(pairs)}"


def completeness_view(arguments: Mapping[str, Any], now: float, *, is_admin: bool) -> CompletenessView:
    """Return the view that ``arguments`` name. Raises :class:`ApiError` 400 for wrong ones, 403 for agents if not ``is_admin``."""
    text = arguments["by"] or ("agent" if is_admin else "project")
    by = next((each for each in GROUPS if each == text), None)
    if by is None:
        raise invalid_input("by", text, f"use {' or '.join(GROUPS)}.")
    if by == "agent" and not is_admin:
        raise HttpError(403, "Agents are shown to administrators only.")
    chosen = page_range(arguments, now, DEFAULT_RANGES[by])
    step = HOUR if chosen.end - chosen.start <= MAX_HOURLY else DAY
    start, end = _floor(chosen.start, step), _floor(chosen.end, step)
    if end < chosen.end:
        try:
            end += step
        except OverflowError:
            raise ApiError(400, "end is too late.") from None
    if end - start > timedelta(days=MAX_DAYS):
        raise ApiError(400, f"The period can have at most {MAX_DAYS} days.")
    names = ("by", "range", "start", "end", "project", "meter")
    at = arguments["at"]
    row = arguments["row"]
    if at is not None and row is None:
        raise ApiError(400, "at selects a cell of a row: it needs row.")
    cell = None if at is None else _floor(parse_time_argument("at", at), step)
    if cell is not None and not start <= cell < end:
        raise ApiError(400, "at must be in the period.")
    return CompletenessView(
        by=by,
        start=start,
        end=end,
        step=step,
        name=chosen.name,
        project_id=arguments["project"] or None,
        meter=arguments["meter"] or None,
        row=row,
        at=cell,
        offset=offset_of(arguments["marker"]),
        all_gaps=bool(arguments["gaps"]),
        gap_offset=offset_of(arguments["gap_marker"]),
        given={name: arguments[name] for name in names if arguments[name]},
    )


def _floor(at: datetime, step: timedelta) -> datetime:
    seconds = int(step.total_seconds())
    at = at.astimezone(UTC)
    begin = datetime(1970, 1, 1, tzinfo=UTC)
    return begin + timedelta(seconds=(at - begin) // timedelta(seconds=1) // seconds * seconds)
