"""Steps between samples that bill: across owners, hosts, units, sources and deletions; the same in every store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.query import Aggregate
from meter.query import Comparison
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample import DELETED
from meter.sample import EXISTED_THROUGHOUT
from tests.contract.test_store import database as database
from tests.contract.test_store import store as store
from tests.store_messages import after
from tests.store_messages import message

HOUR = 3600
INCREASE, RATE, INTEGRAL = Aggregate("increase"), Aggregate("rate"), Aggregate("integral")
STEPS = (INCREASE, RATE, INTEGRAL)
NOW = "now"


async def values(store: Any, *aggregates: Aggregate, groupby: tuple[str, ...] = (), **filter: Any) -> list[Any]:
    """Return a tuple of the values of ``aggregates`` per row."""
    if filter.get("as_of") == NOW:
        filter["as_of"] = datetime.fromtimestamp(reactor.seconds(), UTC)
    query = StatisticsQuery(filter=SampleFilter(**filter), aggregates=aggregates, groupby=groupby)
    rows = await store.statistics(query)
    return [tuple(pytest.approx(row.values[each.label]) for each in aggregates) for row in rows]


def polled(volume: float, at: float, **fields: Any) -> Any:
    return message("memory", volume, at=at, metadata={"_meter": {"interval": 300}}, **{"unit": "MiB", **fields})


def listed(volume: float, at: float) -> Any:
    metadata = {"_meter": {"interval": 300, "run": EXISTED_THROUGHOUT}}
    return message("memory", volume, at=at, unit="MiB", metadata=metadata)


def notified(volume: float, at: float, **fields: Any) -> Any:
    return message("memory", volume, at=at, **{"unit": "MiB", **fields})


# --- filters -------------------------------------------------------------------------------------------------------

PASSED_ON = [
    message(volume=volume, at=hour * HOUR, project_id=project, source=source, metadata={"size": size})
    for hour, volume, project, source, size in (
        (0, 100, "a", "one", "small"),
        (1, 130, "a", "one", "small"),
        (2, 200, "b", "two", "large"),
        (5, 500, "b", "two", "large"),
        (6, 510, "a", "one", "small"),
        (7, 515, "a", "one", "small"),
    )
]
"""A resource that belongs to project a, to b for four hours with another size, and to a again."""

IN_A = (30 + 10 + 5, (30 + 10 + 5) / (3 * HOUR), 100 + 130 + 510)
IN_B = (70 + 300, (70 + 300) / (4 * HOUR), 3 * 200 + 500)


@pytest.mark.parametrize(
    ("in_a", "in_b", "groupby"),
    [
        ({"equals": {"project_id": "a"}}, {"equals": {"project_id": "b"}}, "project_id"),
        ({"equals": {"source": "one"}}, {"equals": {"source": "two"}}, "source"),
        (
            {"expression": Comparison("project_id", "!=", "b")},
            {"expression": Comparison("project_id", "!=", "a")},
            "project_id",
        ),
        (
            {"metadata": (MetadataMatch("size", "small"),)},
            {"metadata": (MetadataMatch("size", "large"),)},
            "metadata.size",
        ),
        (
            {"equals": {"project_id": "a"}, "metadata": (MetadataMatch("size", "small"),)},
            {"equals": {"meter": "cpu", "project_id": "b"}, "metadata": (MetadataMatch("size", "large"),)},
            "project_id",
        ),
        (
            {"equals": {"project_id": "a"}, "as_of": NOW},
            {"equals": {"project_id": "b"}, "as_of": NOW},
            "project_id",
        ),
    ],
    ids=["project", "source", "expression", "metadata", "both", "as of"],
)
@pytest_twisted.ensureDeferred
async def test_filter_counts_what_the_group_counts(
    store: Any, in_a: dict[str, Any], in_b: dict[str, Any], groupby: str
) -> None:
    await store.write(PASSED_ON)

    groups = await values(store, *STEPS, groupby=(groupby,))
    assert groups == [IN_A, IN_B]
    assert await values(store, *STEPS, **in_a) == [IN_A]
    assert await values(store, *STEPS, **in_b) == [IN_B]


@pytest_twisted.ensureDeferred
async def test_filter_by_volume_counts_the_steps_of_the_matching_samples(store: Any) -> None:
    await store.write(PASSED_ON)

    large = Comparison("volume", ">=", 500)
    assert await values(store, INCREASE, INTEGRAL, expression=large) == [(300 + 10 + 5, 500 + 510)]
    assert await values(store, INCREASE, equals={"project_id": "a"}, expression=large) == [(10 + 5,)]


@pytest_twisted.ensureDeferred
async def test_samples_of_other_resources_of_a_project_change_nothing(store: Any) -> None:
    await store.write([*PASSED_ON, message(volume=7, at=HOUR, resource_id="other", project_id="b")])

    assert await values(store, INCREASE, groupby=("resource_id",), equals={"project_id": "a"}) == [(IN_A[0],)]
    assert await values(store, INCREASE, equals={"project_id": "nobody"}) == []


# --- hosts ---------------------------------------------------------------------------------------------------------


def on_host(polls: Sequence[tuple[float, str, float]]) -> list[Any]:
    return [
        message(volume=volume, at=minute * 60, type="cumulative", metadata={"instance_host": host})
        for minute, host, volume in polls
    ]


MIGRATION = [
    (0, "hv1", 1000),
    (5, "hv1", 1001),
    (10.1, "hv2", 0),
    (11, "hv1", 1004),
    (15.1, "hv2", 1),
    (20.1, "hv2", 3),
]


@pytest.mark.parametrize("start", [10, 10.1])
@pytest_twisted.ensureDeferred
async def test_range_that_begins_during_a_migration_does_not_count_the_counter_of_the_source(
    store: Any, start: float
) -> None:
    await store.write(on_host(MIGRATION))

    assert await values(store, INCREASE) == [(4 + 3,)]
    assert await values(store, INCREASE, start=after(start * 60)) == [(3,)]
    assert await values(store, INCREASE, start=after(10.1 * 60), after_start=True) == [(2,)]


@pytest_twisted.ensureDeferred
async def test_domain_that_returns_to_its_host_counts_from_zero_there(store: Any) -> None:
    """Also if its counter has passed its old value by the first poll: 10 on hv1, 50 on hv2, then 205 on hv1."""
    polls = [(0, "hv1", 100), (5, "hv1", 110), (10, "hv2", 20), (15, "hv2", 50), (20, "hv1", 200), (25, "hv1", 205)]
    await store.write(on_host(polls))

    assert await values(store, INCREASE) == [(10 + 50 + 205,)]
    assert await values(store, RATE) == [((10 + 50 + 205) / (3 * 300),)]


@pytest.mark.parametrize(
    "polls",
    [
        [(0, "hv1", 1000), (5, "hv1", 1003), (6, "hv2", 1), (10, "hv1", 1004), (11, "hv2", 2)],
        [(0, "hv1", 1000), (5, "hv1", 1003), (6, "hv2", 1), (10, "hv1", 1004), (15, "hv1", 1004), (16, "hv2", 2)],
        [(0, "hv1", 1000), (1, "hv2", 0), (5, "hv1", 1003), (6, "hv2", 0), (10, "hv1", 1004), (11, "hv2", 2)],
    ],
    ids=["still listed once", "still listed twice", "while the domain arrives"],
)
@pytest_twisted.ensureDeferred
async def test_source_that_is_still_listed_after_a_migration_has_not_got_the_domain_back(
    store: Any, polls: list[tuple[float, str, float]]
) -> None:
    await store.write(on_host(polls))

    assert await values(store, INCREASE) == [(4 + 2,)]


# --- gauges of two sources -----------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_notification_does_not_count_while_polls_measure_zero(store: Any) -> None:
    """On for an hour, off for two, on for one; Nova's notifications always have the size of the flavor."""
    off = [polled(0, HOUR + n * 300) for n in range(24)]
    on = [polled(2048, at) for at in (*range(0, HOUR, 300), *range(3 * HOUR, 4 * HOUR + 1, 300))]
    told = [notified(2048, at) for at in (0, HOUR + 1, 2 * HOUR + 7, 3 * HOUR - 2)]
    await store.write([*on, *off, *told])

    assert await values(store, INTEGRAL) == [(2048 * 2,)]
    assert await values(store, INTEGRAL, start=after(HOUR + 400), end=after(3 * HOUR)) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_notification_in_another_unit_does_not_count_while_polls_measure_zero(store: Any) -> None:
    await store.write([polled(0, 0), notified(2048, 100, unit="MB"), notified(2048, 200, unit="MB"), polled(0, 300)])

    assert await values(store, INTEGRAL) == [(0,), (0,)]


@pytest_twisted.ensureDeferred
async def test_notification_counts_three_intervals_after_the_last_poll(store: Any) -> None:
    """The agent is gone: from then on the last notification is what is known, whenever it came."""
    await store.write([polled(0, 0), notified(2048, 300), notified(2048, 2700)])

    assert await values(store, INTEGRAL) == [(2048 * (2700 - 900) / HOUR,)]
    assert await values(store, INTEGRAL, start=after(1)) == [(2048 * (2700 - 900) / HOUR,)]
    assert await values(store, INTEGRAL, start=after(0), after_start=True) == [(2048 * (2700 - 900) / HOUR,)]
    assert await values(store, INTEGRAL, start=after(0), end=after(2700)) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_event_between_polls_counts_from_its_time(store: Any) -> None:
    """A volume that a service lists: its resize counts when the service notifies of it, not from the next poll on."""
    await store.write([listed(10, 0), notified(20, 100), listed(20, 300), listed(20, 7200), notified(0, 7300)])

    assert await values(store, INTEGRAL) == [((10 * 100 + 20 * 7200) / HOUR,)]


@pytest_twisted.ensureDeferred
async def test_measured_volume_counts_instead_of_a_notified_one(store: Any) -> None:
    """A balloon driver has given memory back; Nova's hourly audit says what the flavor reserves."""
    await store.write([*(polled(512, n * 300) for n in range(12)), notified(2048, 1000), notified(2048, 2000)])

    assert await values(store, INTEGRAL) == [(512 * 3300 / HOUR,)]
    assert await values(store, INTEGRAL, start=after(900), end=after(2000)) == [(512 * 900 / HOUR,)]
    assert await values(store, INTEGRAL, start=after(901), end=after(2000)) == [(512 * 600 / HOUR,)]


@pytest_twisted.ensureDeferred
async def test_measured_volume_counts_until_the_deletion(store: Any) -> None:
    await store.write([polled(512, 0), polled(512, 300), notified(2048, 350), deletion(400)])

    assert await values(store, INTEGRAL) == [(512 * 400 / HOUR,)]


# --- deletions and units -------------------------------------------------------------------------------------------


def deletion(at: float) -> Any:
    return notified(0, at, metadata={"_meter": {"run": DELETED}})


@pytest.mark.parametrize("late", [polled, notified])
@pytest_twisted.ensureDeferred
async def test_nothing_counts_after_a_deletion(store: Any, late: Any) -> None:
    """A poll of a host whose clock is ahead, an audit that read an old state."""
    await store.write([notified(2048, 0), deletion(HOUR), late(2048, HOUR + 2), late(2048, HOUR + 200), deletion(HOUR)])

    assert await values(store, INTEGRAL) == [(2048,)]
    assert await values(store, INTEGRAL, start=after(HOUR + 1)) == [(0,)]
    assert await values(store, INTEGRAL, start=after(HOUR), after_start=True, as_of=NOW) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_zero_that_is_no_deletion_ends_nothing(store: Any) -> None:
    await store.write([notified(2048, 0), notified(0, HOUR), notified(1024, 2 * HOUR), notified(0, 3 * HOUR)])

    assert await values(store, INTEGRAL) == [(2048 + 1024,)]


@pytest_twisted.ensureDeferred
async def test_volume_counts_until_the_first_sample_in_another_unit(store: Any) -> None:
    """``[units] binary`` was changed between two polls: no interval is lost."""
    for measure in (polled, notified):
        given = {"resource_id": measure.__name__}
        await store.write(
            [measure(2048, at, unit=unit, **given) for at, unit in ((0, "MiB"), (300, "MB"), (600, "MB"))]
        )
        rows = await values(store, INTEGRAL, equals=given)
        assert rows == [(2048 * 300 / HOUR,), (2048 * 300 / HOUR,)]
