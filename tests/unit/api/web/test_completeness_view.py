"""What the page of completeness is asked for: whole hours and days, defaults, links."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from typing import Any

import pytest

from meter.api.web.completeness import PARAMETERS
from meter.api.web.completeness_view import DAY
from meter.api.web.completeness_view import HOUR
from meter.api.web.completeness_view import CompletenessView
from meter.api.web.completeness_view import completeness_view

NOW = datetime(2026, 11, 22, 12, 10, tzinfo=UTC).timestamp()


def view(*, is_admin: bool = True, **arguments: Any) -> CompletenessView:
    return completeness_view({each.name: None for each in PARAMETERS} | arguments, NOW, is_admin=is_admin)


def times(found: CompletenessView) -> tuple[str, str]:
    return f"{found.start:%m-%d %H:%M}", f"{found.end:%m-%d %H:%M}"


def test_administrators_begin_with_agents_by_hour_and_tenants_with_their_project_by_day() -> None:
    assert (view().by, view().step, times(view())) == ("agent", HOUR, ("11-21 12:00", "11-22 13:00"))
    tenant = view(is_admin=False)
    assert (tenant.by, tenant.step, times(tenant)) == ("project", DAY, ("10-23 00:00", "11-23 00:00"))


def test_period_is_widened_to_whole_hours_or_days_so_that_sums_serve_it() -> None:
    assert times(view(start="2026-11-20T10:20", end="2026-11-20T11:40")) == ("11-20 10:00", "11-20 12:00")
    assert times(view(start="2026-11-10T10:20", end="2026-11-20T11:40")) == ("11-10 00:00", "11-21 00:00")
    assert times(view(start="2026-11-20T10:00", end="2026-11-20T11:00")) == ("11-20 10:00", "11-20 11:00")


def test_selected_cell_is_one_question() -> None:
    found = view(range="24h", row="meter-compute@hv1", at="2026-11-22T05:30")
    query = found.selected()
    assert (query.agent, query.start.hour, query.end.hour) == ("meter-compute@hv1", 5, 6)
    assert view(by="project", row="").selected().project_id == ""
    assert view(gaps=True).shows_gaps
    assert not view().shows_gaps


@pytest.mark.parametrize("row", ["", "a&b=c", "é"])
def test_link_keeps_the_view_and_encodes_the_row(row: str) -> None:
    found = view(by="project", range="7d", meter="cpu")
    link = found.link(row, found.start)
    assert link.startswith("?by=project&range=7d&meter=cpu&row=")
    assert link.endswith("&at=2026-11-15T00%3A00")
    assert " " not in link
