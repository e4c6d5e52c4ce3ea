"""What selectors and functions of windows mean: edges, age, label changes, tenancy and limits."""

from __future__ import annotations

import math
from datetime import UTC
from datetime import datetime

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from meter.api.auth.requester import Requester
from meter.api.auth.visibility import VisibleStore
from meter.api.prometheus.evaluation import evaluate_instant
from meter.api.prometheus.evaluation import evaluate_range
from meter.api.prometheus.limits import PromqlLimits
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.source import PromqlSource
from meter.daemon.shared_slices import SharedSlices
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.testing import MemoryStore
from tests.promql import instant
from tests.promql import over_range
from tests.promql import result_of
from tests.promql import seconds
from tests.promql import source_of
from tests.store_messages import after
from tests.store_messages import message

HOUR = 3600
FLAVOR = {"flavor": "flavor.name"}
POLLED = {"_meter": {"interval": 300}}


def counter(volume, at, resource="r1", **fields):
    return message("cpu", volume, at=at, type="cumulative", resource_id=resource, **fields)


def gauge(volume, at, resource="r1", **fields):
    return message("memory.usage", volume, at=at, unit="MB", resource_id=resource, **fields)


async def stored(*messages, store=None):
    store = store or MemoryStore()
    assert not (await store.write(messages)).refused
    return store


@pytest_twisted.ensureDeferred
async def test_window_includes_its_start_and_excludes_its_end():
    source = source_of(await stored(gauge(1, 0), gauge(2, 1), gauge(4, 3599), gauge(8, 3600)))

    assert await instant("sum_over_time(ceilometer_memory_usage[1h])", HOUR, source) == {"project=p1 resource=r1": 7}
    assert await instant("ceilometer_memory_usage", HOUR, source) == {"project=p1 resource=r1": 4}
    assert await instant("ceilometer_memory_usage[1h]", HOUR, source) == {"project=p1 resource=r1": [1, 2, 4]}
    assert await instant("sum_over_time(ceilometer_memory_usage[1s])", HOUR + 1, source) == {
        "project=p1 resource=r1": 8
    }


@pytest_twisted.ensureDeferred
async def test_increase_of_an_hour_is_that_of_the_statistics():
    store = await stored(*(counter(n * n, n * 1000) for n in range(20)))
    query = StatisticsQuery(
        filter=SampleFilter(start=after(0), end=after(2 * HOUR)), period=HOUR, aggregates=(Aggregate("increase"),)
    )
    [_, row] = await store.statistics(query)

    assert row.values["increase"] == 7**2 - 3**2
    assert await instant("increase(ceilometer_cpu[1h])", 2 * HOUR, source_of(store)) == {
        "project=p1 resource=r1": row.values["increase"]
    }
    assert await instant("rate(ceilometer_cpu[1h])", 2 * HOUR, source_of(store)) == {
        "project=p1 resource=r1": row.values["increase"] / HOUR
    }


@pytest.mark.parametrize("step", [600, 1200, 7200])
@pytest_twisted.ensureDeferred
async def test_increases_of_overlapping_and_sparse_windows_are_as_each_alone(step):
    source = source_of(await stored(*(counter((n * 7) % 31, n * 290 + 1) for n in range(80))))

    [values] = (await over_range("increase(ceilometer_cpu[20m])", 0, 6 * HOUR, step, source)).values()
    for at, value in values.items():
        assert await instant("increase(ceilometer_cpu[20m])", at, source) == {"project=p1 resource=r1": value}
    assert len(values) >= 6 * HOUR // step - 1


@pytest_twisted.ensureDeferred
async def test_increase_of_a_series_that_ended_before_the_window_is_none():
    source = source_of(await stored(counter(1, 0), counter(5, 600), counter(9, 1200), counter(1, 4000, "r2")))

    assert await instant("increase(ceilometer_cpu[20m])", 2400, source) == {"project=p1 resource=r1": 4}
    assert await instant("increase(ceilometer_cpu[1h])", 4900, source) == {"project=p1 resource=r2": 0}


@pytest.mark.parametrize("step", [600, 1200, 7200])
@pytest_twisted.ensureDeferred
async def test_overlapping_and_sparse_windows_are_as_each_alone(step):
    source = source_of(await stored(*(gauge((n * 7) % 11, n * 290) for n in range(80))))

    for function in ("sum", "avg", "min", "max", "count", "last", "stddev", "stdvar", "present"):
        expression = f"{function}_over_time(ceilometer_memory_usage[20m])"
        [values] = (await over_range(expression, 0, 6 * HOUR, step, source)).values()
        for at, value in values.items():
            assert list((await instant(expression, at, source)).values()) == [pytest.approx(value)]
        assert len(values) >= 6 * HOUR // step - 1


@settings(max_examples=40)
@given(
    steps=st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 100)), min_size=1, max_size=30),
    width=st.sampled_from([60, 300, 3600, 7200]),
)
def test_increases_of_adjacent_windows_add_up_to_the_whole(steps, width):
    at, messages = 0, []
    for elapsed, volume in steps:
        at += elapsed
        messages.append(counter(volume, at))
    store = MemoryStore()
    source = source_of(store)
    count = at // width + 1

    async def increases():
        await store.write(messages)
        parts = await over_range(f"increase(ceilometer_cpu[{width}s])", width, width * count, width, source)
        whole = await instant(f"increase(ceilometer_cpu[{width * count}s])", width * count, source)
        return parts, whole

    parts, whole = result_of(increases())
    assert sum(sum(each.values()) for each in parts.values()) == sum(whole.values())


@pytest_twisted.ensureDeferred
async def test_sample_is_current_for_three_polling_intervals_or_for_the_lookback():
    source = source_of(
        await stored(gauge(1, 0, metadata=POLLED), gauge(2, 0, "r2")), limits=PromqlLimits(lookback_seconds=60)
    )

    assert set(await instant("ceilometer_memory_usage", 60, source)) == {
        "project=p1 resource=r1",
        "project=p1 resource=r2",
    }
    assert set(await instant("ceilometer_memory_usage", 900, source)) == {"project=p1 resource=r1"}
    assert await instant("ceilometer_memory_usage", 901, source) == {}
    by_minute = await over_range("ceilometer_memory_usage", 0, HOUR, 60, source)
    assert set(by_minute["project=p1 resource=r1"]) == set(range(60, 901, 60))
    assert set(by_minute["project=p1 resource=r2"]) == {60}


@pytest_twisted.ensureDeferred
async def test_sample_with_a_long_polling_interval_is_current_for_the_longest_lookback():
    daily = {"_meter": {"interval": 86_400}}
    source = source_of(await stored(gauge(1, 0, metadata=daily)), limits=PromqlLimits(max_lookback_seconds=7200))

    assert await instant("ceilometer_memory_usage", 7200, source) == {"project=p1 resource=r1": 1}
    assert await instant("ceilometer_memory_usage", 7201, source) == {}


@pytest_twisted.ensureDeferred
async def test_series_ends_when_the_resource_has_other_labels():
    store = await stored(
        *(gauge(1, n * 300 + 1, metadata=POLLED | {"flavor": {"name": "small"}}) for n in range(4)),
        *(gauge(2, n * 300 + 1, project_id="p2", metadata=POLLED | {"flavor": {"name": "large"}}) for n in range(4, 8)),
    )
    source = source_of(store, metadata_labels=FLAVOR)
    small, large = "flavor=small project=p1 resource=r1", "flavor=large project=p2 resource=r1"

    assert await instant("ceilometer_memory_usage", 1200, source) == {small: 1}
    assert await instant("ceilometer_memory_usage", 1500, source) == {large: 2}
    assert await over_range("sum(ceilometer_memory_usage)", 300, 2400, 300, source) == {
        "": {**dict.fromkeys(range(0, 901, 300), 1), **dict.fromkeys(range(1200, 2101, 300), 2)}
    }
    assert await instant('ceilometer_memory_usage{project="p1"}', 1500, source) == {}
    assert await instant('ceilometer_memory_usage{flavor="small"}', 1500, source) == {}
    assert await instant('ceilometer_memory_usage{project=~"p1|p3", resource="r1"}', 1200, source) == {small: 1}


@pytest_twisted.ensureDeferred
async def test_series_that_has_ended_does_not_return_when_the_newer_one_becomes_too_old():
    hourly = {"_meter": {"interval": 3600}}
    source = source_of(
        await stored(
            gauge(1, 0, metadata=hourly), gauge(2, 600, project_id="p2", metadata={"_meter": {"interval": 60}})
        )
    )

    assert await instant("ceilometer_memory_usage", 700, source) == {"project=p2 resource=r1": 2}
    assert await instant("ceilometer_memory_usage", 900, source) == {}


@pytest_twisted.ensureDeferred
async def test_increase_of_a_resource_that_changes_its_labels_is_counted_once():
    store = await stored(
        *(counter(n, n * 600, project_id="p1" if n < 3 else "p2") for n in range(6)),
    )

    assert await instant("increase(ceilometer_cpu[1h])", HOUR, source_of(store)) == {
        "project=p1 resource=r1": 2,
        "project=p2 resource=r1": 3,
    }
    assert await instant("sum(increase(ceilometer_cpu[1h]))", HOUR, source_of(store)) == {"": 5}
    assert await instant('increase(ceilometer_cpu{project="p2"}[1h])', HOUR, source_of(store)) == {
        "project=p2 resource=r1": 3
    }


@pytest_twisted.ensureDeferred
async def test_meters_with_one_metric_name_are_told_apart_and_named_in_a_warning():
    store = await stored(message("disk.read", 1, at=1), message("disk_read", 2, at=1), message("disk.write", 3, at=1))
    source = source_of(store)

    assert await instant("ceilometer_disk_read", 60, source) == {
        "meter=disk.read project=p1 resource=r1": 1,
        "meter=disk_read project=p1 resource=r1": 2,
    }
    [warning] = (await evaluate_instant("sum(ceilometer_disk_read)", seconds(60), source)).warnings
    assert "disk.read, disk_read" in warning
    chosen = await evaluate_instant('ceilometer_disk_read{meter="disk.read"}', seconds(60), source)
    assert (len(chosen.result.samples), chosen.warnings) == (1, ())
    assert await instant("ceilometer_disk_write", 60, source) == {"project=p1 resource=r1": 3}


@pytest_twisted.ensureDeferred
async def test_rate_of_a_meter_without_counters_is_refused():
    source = source_of(await stored(gauge(1, 0), message("requests", 1, type="delta")))

    with pytest.raises(PromqlError, match="ceilometer_memory_usage is a gauge meter; use delta"):
        await instant("rate(ceilometer_memory_usage[1h])", HOUR, source)
    with pytest.raises(PromqlError, match="is a delta meter; use sum_over_time"):
        await instant("increase(ceilometer_requests[1h])", HOUR, source)


@pytest_twisted.ensureDeferred
async def test_increase_counts_cumulative_samples_only_and_says_so():
    source = source_of(await stored(counter(1, 0), counter(5, 600), message("cpu", 3, at=900)))

    answer = await evaluate_instant("increase(ceilometer_cpu[1h])", seconds(HOUR), source)
    assert [each.point.value for each in answer.result.samples] == [4]
    assert "cumulative, gauge" in answer.warnings[0]


@pytest_twisted.ensureDeferred
async def test_delta_is_the_difference_of_the_last_and_the_first_sample_and_needs_two():
    source = source_of(await stored(gauge(10, 0), gauge(3, 1000), gauge(7, 3000)))

    assert await instant("delta(ceilometer_memory_usage[1h])", HOUR, source) == {"project=p1 resource=r1": -3}
    assert await over_range("delta(ceilometer_memory_usage[1h])", 1800, 5400, 1800, source) == {
        "project=p1 resource=r1": {0: -7, 1800: -3}
    }


class RecordingStore(MemoryStore):
    """A store that records the statistics that it is asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    async def statistics(self, query):
        self.asked.append(query)
        return await super().statistics(query)


@pytest.mark.parametrize(
    ("expression", "groupby"),
    [
        ("sum by (project) (increase(ceilometer_cpu[1h]))", {("project_id",)}),
        ('sum by (project) (rate(ceilometer_cpu{flavor="small"}[1h]))', {("project_id", "metadata.flavor.name")}),
        ("sum(increase(ceilometer_cpu[1h]))", {()}),
        ("max by (unit) (max_over_time(ceilometer_cpu[1h]))", {()}),
        ("sum without (user) (increase(ceilometer_cpu[1h]))", None),
        ("avg by (project) (avg_over_time(ceilometer_cpu[1h]))", None),
        ("max by (project) (increase(ceilometer_cpu[1h]))", None),
        ('sum(increase({__name__=~"ceilometer_(cpu|memory)"}[1h]))', None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_store_adds_up_what_is_added_up_anyway(expression, groupby):
    small, large = ({"flavor": {"name": name}} for name in ("small", "large"))
    store = await stored(
        *(
            counter(n * n * m, n * 500 + 1, f"r{m}", project_id=f"p{m % 2}", metadata=small if m else large)
            for n in range(30)
            for m in range(4)
        ),
        *(message("memory", n, at=n * 500 + 2, type="cumulative") for n in range(30)),
        store=RecordingStore(),
    )
    source = source_of(store, metadata_labels=FLAVOR)

    found = await over_range(expression, HOUR, 4 * HOUR, HOUR, source)
    asked = {query.groupby for query in store.asked}
    one_by_one = await over_range(expression.replace("[1h]))", "[1h]) + 0)"), HOUR, 4 * HOUR, HOUR, source)
    assert found == {labels: pytest.approx(values) for labels, values in one_by_one.items()}
    assert len(store.asked) > len(asked)
    if groupby is not None:
        assert asked == groupby
    else:
        assert all("resource_id" in each for each in asked)


@pytest_twisted.ensureDeferred
async def test_windows_are_grouped_by_metadata_only_of_resources_whose_labels_change():
    def flavor(n, m):
        return {"flavor": {"name": "large" if m == 0 and n >= 15 else "small"}}

    store = await stored(
        *(counter(n * n * (m + 1), n * 500 + 1, f"r{m}", metadata=flavor(n, m)) for n in range(30) for m in range(4)),
        store=RecordingStore(),
    )
    source = source_of(store, metadata_labels=FLAVOR)

    found = await over_range("increase(ceilometer_cpu[1h])", HOUR, 4 * HOUR, HOUR, source)
    described, narrow, of_varying = store.asked
    assert (described.period, narrow.groupby, of_varying.groupby) == (None, ("resource_id",), described.groupby)
    assert set(found) == {
        *(f"flavor=small project=p1 resource=r{m}" for m in range(4)),
        "flavor=large project=p1 resource=r0",
    }
    whole = await over_range("sum(increase(ceilometer_cpu[1h]))", HOUR, 4 * HOUR, HOUR, source)
    assert whole[""] == {at: sum(each.get(at, 0) for each in found.values()) for at in whole[""]}
    assert found["flavor=large project=p1 resource=r0"] == {
        at: value
        for at, value in (
            await over_range('increase(ceilometer_cpu{flavor="large"}[1h])', HOUR, 4 * HOUR, HOUR, source)
        )["flavor=large project=p1 resource=r0"].items()
    }


# --- tenancy -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_tenant_sees_their_own_series_whatever_they_select():
    store = await stored(
        gauge(1, 1), gauge(2, 1, "r2", project_id="p2"), message("secret.meter", 3, at=1, project_id="p2")
    )
    source = source_of(store, Requester(is_admin=False, project_id="p1"))

    assert await instant("ceilometer_memory_usage", 60, source) == {"project=p1 resource=r1": 1}
    for expression in (
        'ceilometer_memory_usage{project="p2"}',
        'ceilometer_memory_usage{project=~"p2|p3"}',
        'sum_over_time(ceilometer_memory_usage{project="p2"}[1h])',
        'ceilometer_memory_usage{resource="r2"}[1h]',
        "ceilometer_secret_meter",
        '{__name__=~"ceilometer_secret.*"}',
    ):
        assert await instant(expression, 60, source) == {}
    assert await instant('ceilometer_memory_usage{project!="p2"}', 60, source) == {"project=p1 resource=r1": 1}


# --- limits --------------------------------------------------------------------------------------------------------


UNION = " or ".join(f'label_replace(ceilometer_memory_usage, "copy", "{n}", "", "")' for n in range(6))
"""Vectors of 363 points each at 121 times; together they have more labels than any selector has."""

HELD = f"{'ceilometer_memory_usage + (' * 5}ceilometer_memory_usage{')' * 5}"
"""Each left side stays until the right one is evaluated."""


@pytest.mark.parametrize(
    ("limits", "expression", "reason"),
    [
        ({"max_series": 2}, "ceilometer_memory_usage", "more than 2 series"),
        ({"max_series": 2}, "max_over_time(ceilometer_memory_usage[5m])", "more than 2 series"),
        ({"max_points": 60}, "ceilometer_memory_usage", "more than 60 points"),
        ({"max_points": 60}, "ceilometer_memory_usage @ end() offset 100m", "more than 60 points"),
        ({"max_points": 60}, "timestamp(ceilometer_memory_usage @ end() offset 100m)", "more than 60 points"),
        ({"max_points": 60}, "max_over_time(ceilometer_memory_usage[5m] @ end() offset 100m)", "more than 60 points"),
        ({"max_points": 400}, UNION, "vector of the expression has more than 400 points"),
        ({"max_points": 400}, HELD, "holds more than 1600 points"),
        ({"max_rows": 30}, "ceilometer_memory_usage", "more than 30 rows"),
        ({"max_metrics": 1}, '{resource="r1"}', "2 metrics"),
        ({"max_points_per_series": 60}, "1", "exceeded maximum resolution of 60 points"),
        ({"max_expression_bytes": 10}, "ceilometer_memory_usage", "more than 10 bytes"),
        ({}, "quantile_over_time(0.5, ceilometer_memory_usage[5m])", "multiple of the range"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_query_beyond_a_limit_is_refused(limits, expression, reason):
    store = await stored(*(gauge(1, n * 60, f"r{m}") for n in range(20) for m in range(3)), counter(1, 0))
    source = source_of(store, limits=PromqlLimits(**limits))

    with pytest.raises(PromqlError, match=reason):
        await over_range(expression, 0, 2 * HOUR, 60, source)


@pytest.mark.parametrize(
    ("expression", "start", "end", "step"),
    [
        ("1", 0, -1, 1),
        ("1", 0, 1, 0),
        ("1", 0, 1, -1),
        ("1", 0, math.inf, 1),
        ("1", math.nan, 1, 1),
        ("1", 0, 1, math.inf),
        ("ceilometer_memory_usage", 0, 1, 0.25),
        ("ceilometer_memory_usage[1h]", 0, 1, 1),
        ('"text"', 0, 1, 1),
        ("ceilometer_memory_usage offset 9999y", 0, 1, 1),
        ("max_over_time(ceilometer_memory_usage[9999y])", 0, 1, 1),
        ("max_over_time(ceilometer_memory_usage[1500ms])", 0, 2, 1),
    ],
)
@pytest_twisted.ensureDeferred
async def test_range_query_that_makes_no_sense_is_bad_data(expression, start, end, step):
    source = source_of(await stored(gauge(1, 0)))
    begin = datetime(2026, 11, 18, 12, tzinfo=UTC).timestamp()

    with pytest.raises(PromqlError) as refused:
        await evaluate_range(expression, begin + start, begin + end, step, source)
    assert refused.value.kind == "bad_data"


@pytest_twisted.ensureDeferred
async def test_long_evaluation_pauses_and_does_a_bounded_part_of_its_work_per_turn():
    store = await stored(*(gauge(n, n * 60 + 1, f"r{m}") for n in range(30) for m in range(8)))
    clock = SteppingClock()
    slices = SharedSlices(clock, seconds=1, total_seconds=1)
    source = PromqlSource(
        store=VisibleStore(store, Requester(is_admin=True)), slices=slices.of("promql"), visible_project=None
    )
    expression = (
        "sum by (project) (rate(ceilometer_cpu[1h])) or abs(-avg_over_time(ceilometer_memory_usage[5m]) * 2) > 3"
    )
    pending = ensureDeferred(evaluate_range(expression, seconds(60), seconds(1800), 60, source))

    while not pending.called:
        clock.advance(0)

    answer = await pending
    assert len(answer.result.series) == 8
    # Each of a dozen operations looks at the clock for each of 8 series, and three looks are as long as a slice.
    assert slices.turns > 8 * 12 / 4


class SteppingClock(Clock):
    """A clock on which every look takes a third of a slice."""

    def seconds(self):
        self.rightNow += 0.3
        return self.rightNow
