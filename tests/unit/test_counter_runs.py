"""Which run a sample belongs to, and what its increase, rate and integral are: the steps of runs never mix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.counter_runs import NO_RUN
from meter.counter_runs import Run
from meter.counter_runs import RunKind
from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.write.record import record_of
from meter.testing import MemoryStore
from tests.store_messages import message

RUBBISH: list[Any] = [
    *(None, "text", 7, True, [], ["run"], {}, {"run": None, "interval": None}, {"run": "", "interval": ""}),
    {"run": "x" * 256, "interval": -1},
    {"run": "x" * 10_000, "interval": "300"},
    {"run": ["a"], "interval": [300]},
    {"run": {"a": 1}, "interval": {"s": 1}},
    {"run": 7, "interval": True},
    {"run": True, "interval": 0},
    {"run": 1.5, "interval": 1e300},
    {"interval": 10**400},
    {"interval": math.nan},
    {"interval": math.inf},
]


@pytest.mark.parametrize("rubbish", RUBBISH, ids=lambda each: repr(each)[:40])
def test_what_is_no_run_and_no_interval_counts_as_absent(rubbish: Any) -> None:
    assert run_of("gauge", {"_meter": rubbish}) == NO_RUN
    assert run_of("cumulative", {"_meter": rubbish, "instance_host": "hv1"}) == (RunKind.INSTANCE_HOST, "hv1")
    assert interval_of({"_meter": rubbish}) == 0


@pytest.mark.parametrize(
    ("type", "metadata", "run"),
    [
        ("gauge", {"_meter": {"run": "a"}}, Run(RunKind.DECLARED, "a")),
        ("cumulative", {"_meter": {"run": "ü" * 255}, "instance_host": "hv1"}, Run(RunKind.DECLARED, "ü" * 255)),
        ("cumulative", {"instance_host": "hv1", "host": "digest"}, Run(RunKind.INSTANCE_HOST, "hv1")),
        ("cumulative", {"instance_host": None, "host": "hv1"}, Run(RunKind.HOST, "hv1")),
        ("cumulative", {"instance_host": "x" * 256, "host": {"name": "hv1"}}, NO_RUN),
        ("gauge", {"instance_host": "hv1"}, NO_RUN),
        ("delta", {"host": "hv1"}, NO_RUN),
        ("cumulative", {}, NO_RUN),
    ],
)
def test_a_run_is_declared_or_for_counters_that_of_a_host(type: Any, metadata: Mapping[str, Any], run: Run) -> None:
    assert run_of(type, metadata) == run


@pytest.mark.parametrize(("interval", "seconds"), [(300, 300.0), (0.5, 0.5), (366 * 86_400, 366 * 86_400.0)])
def test_an_interval_is_a_number_of_seconds(interval: float, seconds: float) -> None:
    assert interval_of({"_meter": {"interval": interval}}) == seconds


def test_a_record_has_the_run_and_the_interval_of_its_metadata() -> None:
    series = record_of(message(metadata={"_meter": {"run": "a", "interval": 300}})).series
    assert (series.run_kind, series.run, series.interval) == (1, "a", 300.0)


def compute_statistics(messages: list[Any], *functions: Any) -> list[float]:
    store, rows = MemoryStore(Clock()), []
    Deferred.fromCoroutine(store.write(messages))
    aggregates = tuple(Aggregate(function) for function in functions)
    asked = StatisticsQuery(filter=SampleFilter(), aggregates=aggregates)
    Deferred.fromCoroutine(store.statistics(asked)).addCallback(rows.extend)
    [row] = rows
    return [row.values[function] for function in functions]


@st.composite
def runs(draw: st.DrawFn) -> list[list[int]]:
    """Draw what the counters of some runs say from poll to poll: they only grow."""
    counters = st.lists(st.integers(0, 1000), min_size=1, max_size=6).map(sorted)
    return draw(st.lists(counters, min_size=1, max_size=4))


@given(runs(), st.randoms(use_true_random=False))
def test_however_runs_interleave_the_increase_is_the_sum_of_what_each_counted(
    counted: list[list[int]], drawn: Any
) -> None:
    turns = [n for n, counters in enumerate(counted) for _ in counters]
    drawn.shuffle(turns)
    waiting = [iter(counters) for counters in counted]
    sent = [
        message(volume=next(waiting[n]), at=at, type="cumulative", metadata={"_meter": {"run": f"run {n}"}})
        for at, n in enumerate(turns)
    ]

    assert compute_statistics(sent, "increase") == [sum(counters[-1] - counters[0] for counters in counted)]


def test_within_a_declared_run_a_lower_volume_counts_nothing() -> None:
    sent = [message(volume=n, at=at, metadata={"_meter": {"run": "a"}}) for at, n in enumerate((5, 3, 4))]
    assert compute_statistics(sent, "increase") == [1]


@pytest.mark.parametrize(
    ("hosts", "increase"),
    [
        ([{"instance_host": "a"}, {"instance_host": "b"}], 7),
        ([{"host": "a"}, {"host": "b"}], 7),
        ([{"host": "digest"}, {"instance_host": "b"}], 0),  # an agent was upgraded: these are no two hosts
        ([{"_meter": {"run": "a"}, "host": "a"}, {"host": "a"}], 0),
        ([{"host": "a"}, {"_meter": {"run": "a"}, "host": "a"}], 0),
        ([{}, {"instance_host": "a"}], 0),
        ([{"instance_host": "a"}, {"instance_host": "a"}], 7 - 5),
    ],
)
def test_a_domain_that_arrives_from_another_host_counts_from_zero(hosts: list[dict[str, Any]], increase: float) -> None:
    sent = [message(volume=n, at=n, type="cumulative", metadata=host) for n, host in zip((5, 7), hosts, strict=True)]
    assert compute_statistics(sent, "increase") == [increase]


def test_two_hosts_of_one_moment_did_not_arrive_one_from_the_other() -> None:
    sent = [message(volume=5, type="cumulative", metadata={"host": host}) for host in "ab"]
    assert compute_statistics(sent, "increase") == [0]


def test_a_rate_is_that_of_the_seconds_within_runs() -> None:
    sent = [
        message(volume=n, at=at, metadata={"_meter": {"run": run}})
        for at, n, run in ((0, 0, "a"), (10, 20, "a"), (1000, 0, "b"), (1010, 20, "b"))
    ]
    assert compute_statistics(sent, "increase", "rate") == [40, 2]


HOUR = 3600


@pytest.mark.parametrize(
    ("first", "second", "hours"),
    [
        ({"run": "a", "interval": 300}, {"run": "a", "interval": 300}, 2),  # it lived: the agent was away
        ({"run": "a", "interval": 300}, {"run": "b", "interval": 300}, 0.25),
        ({"interval": 300}, {"interval": 300}, 0.25),
        ({"interval": 3600}, {"interval": 300}, 2),
        ({"run": "a"}, {"run": "b"}, 2),
        ({}, {"interval": 300}, 2),
    ],
)
def test_a_volume_is_carried_over_three_intervals_unless_its_resource_lived(
    first: Any, second: Any, hours: float
) -> None:
    sent = [
        message(volume=4, at=at, metadata={"_meter": reserved}) for at, reserved in ((0, first), (2 * HOUR, second))
    ]
    assert compute_statistics(sent, "integral") == [pytest.approx(4 * hours)]


@pytest.mark.parametrize(
    ("last", "hours"),
    [
        ({"run": "a", "interval": 300}, 2 + 3),  # the run went on: what a notification said meanwhile changes nothing
        ({"run": "b", "interval": 300}, 0.25 + 3),
        ({}, 0.25 + 3),
    ],
)
def test_a_resource_lived_until_the_last_sample_of_its_run_whatever_came_between(last: Any, hours: float) -> None:
    told = [(0, {"run": "a", "interval": 300}), (2, {}), (5, last)]
    sent = [message(volume=4, at=at * HOUR, metadata={"_meter": reserved}) for at, reserved in told]
    assert compute_statistics(sent, "integral") == [pytest.approx(4 * hours)]
