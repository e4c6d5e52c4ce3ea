"""Bars: lengths relative to the longest, shares of the total, and names as text."""

from __future__ import annotations

from meter.api.web.charts.bars import Bar
from meter.api.web.charts.bars import BarRow
from meter.api.web.charts.bars import bar_rows
from meter.api.web.page import environment


def rendered(rows: list[BarRow], unit: str = "GB") -> str:
    template = environment().from_string(
        "{% import 'charts.html' as charts with context %}{{ charts.bars(rows, unit) }}"
    )
    return template.render(rows=rows, unit=unit)


def test_the_longest_bar_fills_its_column() -> None:
    rows = bar_rows([Bar("a", 30.0), Bar("b", 10.0), Bar("c", 0.0)], 60.0)
    assert [each.percent for each in rows] == [100.0, 33.33, 0.0]
    assert [each.share for each in rows] == [0.5, 10 / 60, 0.0]


def test_negative_values_have_no_bar_and_without_a_total_there_is_no_share() -> None:
    rows = bar_rows([Bar("a", -1.0), Bar("b", -2.0)], -3.0)
    assert [(each.percent, each.share) for each in rows] == [(0.0, None), (0.0, None)]
    assert bar_rows([Bar("a", 1.0)])[0].share is None
    assert bar_rows([]) == []


def test_a_row_shows_its_name_its_id_its_value_and_its_share() -> None:
    html = rendered(
        bar_rows([Bar("Blue", 30.0, key="0b1", link="/usage?project=0b1"), Bar("9 others", 10.0, rest=True)], 40.0)
    )
    assert '<a href="/usage?project=0b1"><bdi>Blue</bdi></a><br><code>0b1</code>' in html
    assert '<rect width="100.0%" height="14"/>' in html
    assert '<rect width="33.33%" height="14" class="rest"/>' in html
    assert "75.0\u202f%" in html


def test_names_of_others_are_text() -> None:
    html = rendered(bar_rows([Bar("<script>", 1.0, key='"><img>', link='"><b>')]), "<i>")
    for hostile in ("<script>", "<img>", "<b>", "<i>"):
        assert hostile not in html
