"""The chart of values over time: what the script draws, and the table that says the same."""

from __future__ import annotations

import json
import re
from datetime import UTC
from datetime import datetime
from datetime import timedelta

from meter.api.web.charts.time_series import MAX_TABLE_ROWS
from meter.api.web.charts.time_series import ChartSeries
from meter.api.web.charts.time_series import TimeSeriesChart
from meter.api.web.page import environment

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "‮evil", "n" * 300, "</script><b>", "")


def chart(*series: ChartSeries, stacked: bool = True, unit: str = "GB") -> TimeSeriesChart:
    return TimeSeriesChart(
        key="usage", title="Increase of x", unit=unit, start=NOON, step=3600, series=series, stacked=stacked
    )


def rendered(chart: TimeSeriesChart) -> str:
    template = environment().from_string(
        "{% import 'charts.html' as charts with context %}{{ charts.time_series(chart) }}"
    )
    return template.render(chart=chart)


def drawn(html: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    content = json.loads(found[1])
    assert isinstance(content, dict)
    return content


def test_a_window_without_samples_is_a_gap_in_the_data_and_in_the_table() -> None:
    html = rendered(chart(ChartSeries("a", (1.5, None, 0.0))))
    assert drawn(html)["series"] == [{"name": "a", "rest": False, "values": [1.5, None, 0]}]
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', html)
    assert rows == [("2026-11-22 14:00:00", "0"), ("2026-11-22 13:00:00", "–"), ("2026-11-22 12:00:00", "1.5")]


def test_the_data_has_the_times_the_unit_and_what_is_stacked() -> None:
    content = chart(ChartSeries("a", (1,)), ChartSeries("others", (2,), rest=True)).data
    assert (content["start"], content["step"], content["unit"]) == (NOON.timestamp(), 3600, "GB")
    assert content["stacked"] is True
    assert [each["rest"] for each in content["series"]] == [False, True]


def test_negative_values_are_not_stacked() -> None:
    assert chart(ChartSeries("a", (1, None)), ChartSeries("b", (None, -0.5))).data["stacked"] is False


def test_values_are_drawn_with_seven_digits() -> None:
    (series,) = chart(ChartSeries("a", (1 / 3, 123456789.123, 1e300, 2.0))).data["series"]
    assert json.dumps(series["values"]) == "[0.3333333, 123456800, 1e+300, 2]"


def test_the_table_has_the_newest_windows_and_says_how_many() -> None:
    long = chart(ChartSeries("a", [float(n) for n in range(MAX_TABLE_ROWS + 68)]))
    rows = list(long.table_rows())
    assert len(rows) == MAX_TABLE_ROWS
    assert rows[0].start == NOON + timedelta(hours=167)
    assert rows[-1].values == [68.0]
    assert "The newest 100 of 168 windows" in rendered(long)
    assert "newest" not in rendered(chart(ChartSeries("a", (1.0,))))


def test_names_of_others_are_text() -> None:
    html = rendered(chart(*(ChartSeries(name, (1.0,), link=f"/usage?x={name}") for name in HOSTILE), unit=HOSTILE[0]))
    assert [each["name"] for each in drawn(html)["series"]] == list(HOSTILE)  # type: ignore[attr-defined]
    assert html.count("<script") == 1
    assert html.count("</script>") == 1
    assert "<img" not in html
    assert "<b>" not in html


def test_a_chart_without_series_has_an_empty_table() -> None:
    html = rendered(chart())
    assert drawn(html)["series"] == []
    assert "<tbody>\n</tbody>" in html
