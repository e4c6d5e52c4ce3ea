"""The heat map: numbers, links and the size of the picture."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest

from meter.api.web.charts.heat_map import MAX_MARKS
from meter.api.web.charts.heat_map import HeatMap
from meter.api.web.charts.heat_map import cell_look
from meter.api.web.charts.heat_map import heat_map
from meter.api.web.charts.heat_map import short_count
from meter.api.web.page import environment
from meter.completeness_query import CompletenessRow

START = datetime(2026, 11, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)


def cell(hour: int, expected: int = 240, **causes: int) -> CompletenessRow:
    at = START + hour * HOUR
    missing = {name.replace("_", " "): samples for name, samples in causes.items()}
    return CompletenessRow(
        start=at, end=at + HOUR, expected=expected, received=expected - sum(missing.values()), causes=missing
    )


def drawn(rows: dict[str, list[CompletenessRow]], hours: int = 24, **changes: Any) -> HeatMap:
    cells = {(key, row.start): row for key, found in rows.items() for row in found}
    values: dict[str, Any] = {"name": str, "link": lambda key, at: f"?row={key}&at={at and at.hour}", **changes}
    return heat_map(list(rows), cells, START, START + hours * HOUR, HOUR, **values)


def test_cell_in_which_something_is_missing_is_a_link_with_a_number_and_a_text() -> None:
    [row] = drawn({"host1": [cell(13, poll_failed=12)]}).rows
    [mark] = row.marks
    assert mark.title == "host1, 2026-11-22 13:00 UTC: 12 of 240 missing"
    assert (mark.text, mark.look, mark.link) == ("12", "few", "?row=host1&at=13")


def test_complete_neighbours_are_one_bar_and_hours_without_expectation_are_empty() -> None:
    [row] = drawn({"host1": [*map(cell, range(10)), cell(10, 0), *map(cell, range(11, 13))]}).rows
    first, second = row.marks
    assert first.title == "host1, 2026-11-22 00:00 to 2026-11-22 10:00 UTC: none of 2400 missing"
    assert first.x + first.width < second.x
    assert (first.link, second.link) == ("", "")


@pytest.mark.parametrize(
    ("row", "look"),
    [
        (cell(0), "complete"),
        (cell(0, unknown=23), "few"),
        (cell(0, unknown=24), "many"),
        (cell(0, unknown=240), "none"),
        (cell(0, not_finalized=240), "pending"),
        (cell(0, not_finalized=1, rejected=1), "few"),
    ],
)
def test_looks(row: CompletenessRow, look: str) -> None:
    assert cell_look(row) == look


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "1"), (999, "999"), (1000, "1k"), (12_345, "12k"), (240_000, "240k"), (3_000_000, "3M"), (10**11, "100G")],
)
def test_counts_have_at_most_four_characters(count: int, text: str) -> None:
    assert short_count(count) == text
    assert len(text) <= 4


def test_map_of_the_worst_hosts_is_small_and_has_whole_rows() -> None:
    host = "meter-compute@" + "h" * 40
    rows = {f"{host}{n}": [cell(hour, unknown=240) for hour in range(48)] for n in range(40)}
    found = drawn(rows, 48, link=lambda key, at: f"?by=agent&range=24h&row={key}&at=2026-11-22T13%3A00")
    assert [each.key for each in found.rows] == list(rows)[: len(found.rows)]
    assert sum(len(each.marks) for each in found.rows) <= MAX_MARKS
    text = (
        environment()
        .from_string('{% from "heat_map.html" import heat_map %}{{ heat_map(map, "agent") }}')
        .render(map=found)
    )
    assert len(text.encode()) < 80_000


def test_map_has_at_least_one_row() -> None:
    assert len(drawn({"host1": [cell(n, unknown=1) for n in range(300)]}, 300, max_marks=10).rows) == 1


def test_complete_hosts_are_many_on_one_map() -> None:
    assert len(drawn({f"host{n}": [*map(cell, range(24))] for n in range(40)}).rows) == 40


def test_map_escapes_names_and_shortens_labels() -> None:
    name = '"><script>alert(1)</script>' + "x" * 300
    found = drawn({name: [cell(1, unknown=1)]})
    assert len(found.rows[0].label) == 30
    text = (
        environment()
        .from_string('{% from "heat_map.html" import heat_map %}{{ heat_map(map, "agent") }}')
        .render(map=found)
    )
    assert "<script>" not in text
    assert "style=" not in text
