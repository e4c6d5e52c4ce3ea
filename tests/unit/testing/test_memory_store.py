"""The in-memory store is the reference for the result of every query."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from meter.interfaces import Domain
from meter.interfaces import ICycle
from meter.interfaces import IHypervisor
from meter.interfaces import IPluginContext
from meter.interfaces import IStore
from meter.interfaces import RequestError
from meter.interfaces import Unavailable
from meter.message import MeteringMessage
from meter.query import Aggregate
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample import Sample
from meter.signing_keys import keyring
from meter.testing import FakeCycle
from meter.testing import FakeHypervisor
from meter.testing import FakePluginContext
from meter.testing import MemoryStore
from tests.signed import received
from tests.signed import stored_message

KEYS = keyring(["secret"])
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def message(minute: float = 0, **changes: Any) -> MeteringMessage:
    fields: dict[str, Any] = {
        "name": "cpu",
        "type": "cumulative",
        "unit": "ns",
        "volume": 1,
        "resource_id": "vm-1",
        "project_id": "p-1",
        "user_id": "u-1",
        "timestamp": NOON + timedelta(minutes=minute),
    }
    sample = Sample(**{**fields, **changes})
    return received(sample, KEYS, "test")


async def store_of(*messages: MeteringMessage) -> MemoryStore:
    store = MemoryStore(Clock())
    await store.write(messages)
    return store


def test_fakes_provide_the_interfaces() -> None:
    verifyObject(IStore, MemoryStore())
    verifyObject(IPluginContext, FakePluginContext())
    verifyObject(ICycle, FakeCycle())
    verifyObject(IHypervisor, FakeHypervisor())


@pytest_twisted.ensureDeferred
async def test_batch_written_twice_is_stored_once() -> None:
    store = MemoryStore()
    batch = [message(), message()]
    assert (await store.write(batch)).stored == 2
    again = await store.write(batch)
    assert (again.stored, again.duplicates) == (0, 2)
    assert len(await store.samples(SampleFilter(), 10)) == 2


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
@pytest_twisted.ensureDeferred
async def test_batch_with_one_unstorable_message_stores_the_rest(text: str) -> None:
    bad = message()
    bad = replace(bad, received={**bad.fields, "resource_metadata": {"deep": [text]}})
    result = await MemoryStore().write([message(), bad, message()])
    assert result.stored == 2
    assert [refusal.index for refusal in result.refused] == [1]


@pytest_twisted.ensureDeferred
async def test_message_is_returned_exactly_as_signed() -> None:
    written = message(volume=1.0, resource_metadata={"b": {"c": [1, 1.0]}, "a": None})
    store = await store_of(written)
    given = await stored_message(store, written.message_id)
    assert given is not None
    assert list(given.items()) == [item for item in written.fields.items() if item[0] != "message_signature"]
    assert repr(given["counter_volume"]) == "1.0"
    assert written.entry is not None
    assert KEYS.verify_batch(written.entry.batch).entry(0, given) == written.entry
    assert await stored_message(store, "unknown") is None


@pytest_twisted.ensureDeferred
async def test_samples_are_the_newest_within_the_limit() -> None:
    store = await store_of(message(1), message(3), message(2))
    minutes = [row.timestamp.minute for row in await store.samples(SampleFilter(), 2)]
    assert minutes == [3, 2]


@pytest.mark.parametrize(
    ("bounds", "minutes"),
    [
        ({}, [1, 2]),
        ({"after_start": True}, [2]),
        ({"through_end": True}, [1, 2, 3]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_range_includes_its_start_and_excludes_its_end_by_default(
    bounds: dict[str, bool], minutes: list[int]
) -> None:
    store = await store_of(*map(message, range(5)))
    query = SampleFilter(start=NOON + timedelta(minutes=1), end=NOON + timedelta(minutes=3), **bounds)
    assert sorted(row.timestamp.minute for row in await store.samples(query, 10)) == minutes


@pytest_twisted.ensureDeferred
async def test_none_selects_samples_without_the_field() -> None:
    store = await store_of(message(), message(project_id=None, message_id="without project"))
    rows = await store.samples(SampleFilter(equals={"project_id": None}), 10)
    assert [row.message_id for row in rows] == ["without project"]


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("size", 0, True),
        ("size", "0", False),
        ("size", False, False),
        ("on", True, True),
        ("on", 1, False),
        ("flavor.name", "m1", True),
        ("a.dotted.key", "x", True),
        ("disks[1]", "vdb", True),
        ("disks[2]", "vdb", False),
        ("nics[0].mac", "aa", True),
        ("launched", datetime(2026, 11, 22, 10, tzinfo=UTC), True),
        ("absent", "x", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_metadata_is_matched_by_dotted_key_and_type(key: str, value: Any, found: bool) -> None:
    metadata = {
        "size": 0,
        "on": True,
        "flavor": {"name": "m1"},
        "a.dotted": {"key": "x"},
        "disks": ["vda", "vdb"],
        "nics": [{"mac": "aa"}],
        "launched": "2026-11-22T12:00:00+02:00",
    }
    store = await store_of(message(resource_metadata=metadata))
    rows = await store.samples(SampleFilter(metadata=(MetadataMatch(key, value),)), 10)
    assert bool(rows) is found


@pytest_twisted.ensureDeferred
async def test_sample_is_found_by_id_if_it_matches_the_filter() -> None:
    written = message()
    store = await store_of(written)
    assert await store.sample(written.message_id, SampleFilter(equals={"project_id": "p-1"})) is not None
    assert await store.sample(written.message_id, SampleFilter(equals={"project_id": "p-2"})) is None


@pytest_twisted.ensureDeferred
async def test_meter_is_described_by_its_newest_sample() -> None:
    store = await store_of(message(2, user_id="new"), message(1, user_id="old"), message(3, resource_id="vm-0"))
    meters = await store.meters(SampleFilter(), 10, unique=False)
    assert [(meter.resource_id, meter.user_id) for meter in meters] == [("vm-0", "u-1"), ("vm-1", "new")]
    (only,) = await store.meters(SampleFilter(), 10, unique=True)
    assert (only.name, only.resource_id) == ("cpu", None)


@pytest_twisted.ensureDeferred
async def test_resource_has_the_first_and_last_sample_of_the_range_and_the_newest_metadata() -> None:
    store = await store_of(
        message(1, resource_metadata={"n": 1}), message(2, resource_metadata={"n": 2}), message(3, name="disk")
    )
    (whole,) = await store.resources(SampleFilter(), 10)
    assert whole.meters == ("cpu", "disk")
    (part,) = await store.resources(SampleFilter(end=NOON + timedelta(minutes=3)), 10)
    assert (part.first_sample.minute, part.last_sample.minute, part.metadata) == (1, 2, {"n": 2})


@pytest_twisted.ensureDeferred
async def test_statistics_have_a_row_per_unit_group_and_window() -> None:
    store = await store_of(
        message(0, volume=1),
        message(1, volume=3),
        message(1, volume=5, resource_id="vm-2"),
        message(1, volume=7, unit="s"),
        message(2, volume=9),
    )
    rows = await store.statistics(StatisticsQuery(filter=SampleFilter(), period=120, groupby=("resource_id",)))
    assert [(row.period_start.minute, row.unit, row.group["resource_id"], row.values["sum"]) for row in rows] == [
        (0, "ns", "vm-1", 4),
        (0, "ns", "vm-2", 5),
        (0, "s", "vm-1", 7),
        (2, "ns", "vm-1", 9),
    ]
    assert rows[0].period_end == NOON + timedelta(minutes=2)


@pytest_twisted.ensureDeferred
async def test_statistics_without_a_period_run_from_first_to_last_sample() -> None:
    store = await store_of(message(0, volume=1), message(4, volume=3))
    (row,) = await store.statistics(StatisticsQuery(filter=SampleFilter()))
    assert (row.period, row.period_start, row.period_end) == (0, NOON, NOON + timedelta(minutes=4))
    assert row.values == {"max": 3, "min": 1, "avg": 2, "sum": 4, "count": 2}


@pytest_twisted.ensureDeferred
async def test_statistics_have_the_population_deviation_and_the_number_of_owners() -> None:
    store = await store_of(
        message(0, volume=1), message(4, volume=3, user_id="u-2"), message(5, volume=2, user_id=None)
    )
    query = StatisticsQuery(
        filter=SampleFilter(),
        aggregates=(Aggregate("stddev"), Aggregate("cardinality", "user_id")),
    )
    (row,) = await store.statistics(query)
    assert row.values == {"stddev": pytest.approx((2 / 3) ** 0.5), "cardinality/user_id": 2}


@pytest_twisted.ensureDeferred
async def test_statistics_are_grouped_by_metadata_as_text() -> None:
    store = await store_of(
        message(0, resource_metadata={"flavor": {"name": "m1"}}),
        message(1, resource_metadata={"flavor": {"name": 7}}),
        message(2),
    )
    rows = await store.statistics(StatisticsQuery(filter=SampleFilter(), groupby=("metadata.flavor.name",)))
    assert [row.group["metadata.flavor.name"] for row in rows] == ["m1", "7", None]


@pytest_twisted.ensureDeferred
async def test_windows_start_with_the_range_of_the_filter() -> None:
    store = await store_of(message(1))
    query = SampleFilter(start=NOON - timedelta(minutes=2))
    (row,) = await store.statistics(StatisticsQuery(filter=query, period=120))
    assert row.period_start == NOON


@pytest_twisted.ensureDeferred
async def test_period_beyond_the_calendar_is_refused() -> None:
    store = await store_of(message())
    with pytest.raises(RequestError, match="beyond the year 9999"):
        await store.statistics(StatisticsQuery(filter=SampleFilter(), period=10**12))


@pytest_twisted.ensureDeferred
async def test_unavailable_store_raises_its_reason() -> None:
    store = MemoryStore()
    store.unavailable = "no route to host"
    with pytest.raises(Unavailable, match="no route"):
        await store.samples(SampleFilter(), 1)


@pytest_twisted.ensureDeferred
async def test_cycle_cache_makes_a_value_once_for_concurrent_callers() -> None:
    cycle = FakeCycle()
    made: list[Deferred[str]] = []

    async def make() -> str:
        made.append(Deferred())
        return await made[-1]

    callers = [Deferred.fromCoroutine(cycle.cycle_cache("key", make)) for _ in range(2)]
    made[0].callback("value")
    assert [await one for one in callers] == ["value", "value"]
    assert len(made) == 1


@pytest_twisted.ensureDeferred
async def test_cycle_cache_raises_its_exception_for_every_caller() -> None:
    cycle = FakeCycle()

    async def fail() -> None:
        raise Unavailable("down")

    for _ in range(2):
        with pytest.raises(Unavailable):
            await cycle.cycle_cache("key", fail)


def test_missing_provider_is_named() -> None:
    with pytest.raises(LookupError, match="IHypervisor"):
        FakePluginContext().provider(IHypervisor)


@pytest_twisted.ensureDeferred
async def test_fake_hypervisor_returns_its_domains_until_failure_is_set() -> None:
    domain = Domain("u", "n", "<domain/>", {})
    hypervisor = FakeHypervisor([domain])
    assert await hypervisor.domains() == [domain]
    hypervisor.failure = Unavailable("libvirtd is gone")
    with pytest.raises(Unavailable):
        await hypervisor.domains()
