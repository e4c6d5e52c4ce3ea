from __future__ import annotations

import argparse

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.measuring import Spread
from benchmarks.measuring import Table


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (32_123, "32 100"), (1_234_567, "1 230 000"), (0.27012, "0.270"), (9.996, "10.00"), (-45.67, "-45.7")],
)
def test_number_has_three_significant_digits(value: float, text: str) -> None:
    assert measuring.number(value) == text


def test_spread_is_the_median_with_its_range() -> None:
    assert str(Spread.of([3.0, 1.0, 20.0])) == "3.00 (1.00 to 20.0)"


def test_ratio_is_taken_run_by_run() -> None:
    table = Table("a table")
    for base, value in ((10.0, 5.0), (100.0, 20.0), (1.0, 1.0)):
        table.add("base", base, "s")
        table.add("value", value, "s", "base")
    assert table.ratio("value") == Spread(0.5, 0.2, 1.0)
    assert table.ratio("base") is None


def test_run_without_a_value_is_left_out_of_median_and_ratio() -> None:
    table = Table("a table")
    for value in (None, 6.0):
        table.add("base", 2.0, "s")
        table.add("value", value, "s", "base")
    assert table.spread("value") == Spread(6.0, 6.0, 6.0)
    assert table.ratio("value") == Spread(3.0, 3.0, 3.0)


def test_figure_without_any_value_is_not_measured() -> None:
    table = Table("a table")
    table.add("value", None, "s")
    assert table.spread("value") is None
    assert list(table.lines())[1].split() == ["value", "not", "measured", "s"]


def test_line_of_a_table_has_figure_median_unit_and_ratio() -> None:
    table = Table("a table")
    table.add("base", 10.0, "s")
    table.add("value", 5.0, "s", "base")
    assert list(table.lines()) == [
        "a table  median (min to max)     ratio (min to max) to",
        "base     10.0 (10.0 to 10.0)  s",
        "value    5.00 (5.00 to 5.00)  s  0.500 (0.500 to 0.500) base",
    ]


def test_report_with_equal_comparisons_exits_with_0() -> None:
    lines: list[str] = []
    report = Report(lines.append)
    report.compare("rows", 3, 3)
    assert report.conclude() == 0
    assert lines[-1] == "compared: 1, all equal"


def test_report_with_a_difference_exits_with_1_and_says_which() -> None:
    lines: list[str] = []
    report = Report(lines.append)
    report.compare("rows", 3, 2)
    report.compare("others", 1, 1)
    assert report.conclude() == 1
    assert lines == ["DIFFERS: rows: expected 3, found 2", "", "FAILED: 1 of 2 comparisons differ"]


def test_report_that_compared_nothing_exits_with_1() -> None:
    lines: list[str] = []
    assert Report(lines.append).conclude() == 1
    assert lines[-1] == "FAILED: nothing was compared"


def test_difference_of_mappings_shows_only_what_differs() -> None:
    lines: list[str] = []
    Report(lines.append).compare("outcomes", {"a": 1, "b": 2}, {"a": 1, "c": 3})
    assert lines == ["DIFFERS: outcomes: expected {'b': 2, 'c': None}, found {'b': None, 'c': 3}"]


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (["a"], "'missing': 1"),
        (["a", "b", "c"], "'unexpected': 1"),
        (["a", "b", "b"], "'twice': 1"),
    ],
)
def test_ids_that_are_missing_unexpected_or_twice_differ(found: list[str], text: str) -> None:
    lines: list[str] = []
    Report(lines.append).compare_ids("samples", ["a", "b"], found)
    assert "DIFFERS: ids of samples" in lines[0]
    assert text in lines[0].split("found")[1]


def test_same_ids_in_another_order_do_not_differ() -> None:
    report = Report(lambda line: None)
    report.compare_ids("samples", ["a", "b"], ["b", "a"])
    assert not report.differences


def test_both_modes_are_durable_and_not_durable() -> None:
    parser = measuring.with_postgresql(measuring.parser("a benchmark"), "both")
    assert measuring.modes(parser.parse_args([])) == ["durable", "not-durable"]
    assert measuring.modes(parser.parse_args(["--mode", "durable"])) == ["durable"]
    assert measuring.MODES["durable"]["fsync"] == measuring.MODES["durable"]["synchronous_commit"] == "on"


def test_no_runs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        measuring.parser("a benchmark").parse_args(["--runs", "0"])
    assert refused.value.code == 2
    assert "must be at least 1" in capsys.readouterr().err


def counting(values: list[int], clock: Clock, seconds: float) -> tuple[Deferred[bool], list[int]]:
    """Start to wait until ``values``, one of them a look, have reached 3."""
    looks: list[int] = []

    def count() -> int:
        looks.append(1)
        return values[min(len(looks), len(values)) - 1]

    waited = measuring.until_counted(clock, count, 3, every=1.0, stalled_seconds=seconds)
    return Deferred.fromCoroutine(waited), looks


def test_waiting_ends_when_the_count_is_reached() -> None:
    clock = Clock()
    done, looks = counting([0, 1, 3], clock, 100.0)
    clock.pump([1.0, 1.0])
    assert done.result is True
    assert len(looks) == 3


def test_waiting_ends_when_the_count_stands_still() -> None:
    clock = Clock()
    done, _ = counting([0, 1], clock, 2.0)
    clock.pump([1.0] * 5)
    assert done.result is False


def test_arguments_have_what_each_benchmark_adds() -> None:
    parser = measuring.with_stall(measuring.parser("a benchmark"))
    assert parser.parse_args(["--runs", "3"]) == argparse.Namespace(runs=3, stalled_seconds=measuring.STALLED_SECONDS)


@pytest.mark.parametrize(
    ("average", "line"),
    [(0.2, "load average before: 0.2"), (3.04, "load average before: 3.0, measured beside other work")],
)
def test_load_before_a_benchmark_says_whether_other_work_ran(
    monkeypatch: pytest.MonkeyPatch, average: float, line: str
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (average, 0.0, 0.0))
    assert measuring.load("before") == line
