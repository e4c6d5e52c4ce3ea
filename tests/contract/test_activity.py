"""The contract of IActivity: the same tests for the in-memory store and for PostgreSQL."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from meter.completeness.activity import Arrivals
from meter.completeness.activity import IActivity
from meter.completeness.activity import ResourceCount
from meter.completeness.activity import ResourceCounts
from meter.completeness.lives.kinds import KINDS
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.archived import before_reads
from tests.packed import TABLES as PACKED_TABLES
from tests.spread import server_and_dsn
from tests.store_messages import message
from tests.waiting import until

KIND_LIST = tuple(KINDS.values())
TABLES = (
    *("sample", "unstored_entry", "signed_batch", "meter", "resource", '"user"', "project", "source", "run", "series"),
    *("metadata", "wire_format"),
)


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest.fixture(params=["memory", "postgresql", "packed", "archived", "spread"])
def store(request):
    if request.param == "memory":
        yield MemoryStore(reactor)
        return
    server, dsn = server_and_dsn(request, request.param)
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    with before_reads(request, dsn):
        yield store
    pytest_twisted.blockon(store.stopService())
    server.execute(f"TRUNCATE {', '.join((*TABLES, *PACKED_TABLES))}", dsn)


def ago(seconds: float) -> datetime:
    return datetime.fromtimestamp(reactor.seconds(), UTC) - timedelta(seconds=seconds)


def test_store_provides_the_interface(store):
    assert verifyObject(IActivity, store)


@pytest_twisted.ensureDeferred
async def test_samples_are_counted_when_they_were_stored_with_their_lag_by_source(store):
    await store.write(
        [
            *(message(at=ago(lag), resource_id=f"r{lag}", source="east") for lag in (1000, 20, 10)),
            message(at=ago(5), resource_id="other", source="west", project_id="red"),
        ]
    )
    found = await store.arrivals(None, ago(600), 60, 100)
    assert found.samples == 4
    assert found.since < ago(300)
    assert [(each.source, each.samples) for each in found.lags] == [("east", 3), ("west", 1)]
    east = found.lags[0]
    assert [round(seconds, -1) for seconds in (east.median, east.p95, east.longest)] == [20, 1000, 1000]
    assert all(start.timestamp() % 60 == 0 for start, _ in found.counts)


@pytest_twisted.ensureDeferred
async def test_limit_counts_the_newest_samples_and_says_since_when(store):
    await store.write([message(at=ago(50), resource_id="first")])
    await store.write([message(at=ago(40 - n), resource_id=f"r{n}") for n in range(3)])
    found = await store.arrivals(None, ago(600), 60, 3)
    assert found.samples == 3
    assert found.since > ago(300)
    assert max(each.longest for each in found.lags) < 45


@pytest_twisted.ensureDeferred
async def test_project_sees_its_own_samples_alone(store):
    await store.write([message(at=ago(5), resource_id=f"r{n}", project_id="red") for n in range(5)])
    await store.write([message(at=ago(5), resource_id="mine", project_id="blue")])
    assert (await store.arrivals("blue", ago(600), 60, 100)).samples == 1
    assert (await store.arrivals("nobody", ago(600), 60, 100)).samples == 0


@pytest_twisted.ensureDeferred
async def test_empty_store_has_no_arrivals_and_no_resources(store):
    since = ago(600)
    assert await store.arrivals(None, since, 60, 100) == Arrivals(since=since)
    assert await store.resource_counts(None, KIND_LIST, since, 100) == ResourceCounts()


def counted(meter: str, resource: str, state: object, at: float = 60, **fields: object):
    metadata = {"state" if meter == "instance" else "status": state}
    given = {"type": "gauge", "unit": "x", "volume": 1, "project_id": "blue", "metadata": metadata}
    return message(name=meter, resource_id=resource, at=ago(at), **{**given, **fields})


@pytest_twisted.ensureDeferred
async def test_resources_are_counted_by_kind_and_newest_state(store):
    await store.write(
        [
            counted("instance", "a", "building", at=90),
            counted("instance", "a", "active"),
            counted("instance", "b", "active", project_id="red"),
            counted("instance", "c", "stopped", project_id=None),
            counted("instance", "d", 7),  # a state that is no text
            counted("instance", "gone", "active", volume=0),
            counted("instance", "deleted", "deleted"),
            counted("instance", "old", "active", at=7200),
            counted("volume", "v", "in-use"),
            counted("volume.size", "v", "in-use", at=30),
            counted("cpu", "e", "active"),
        ]
    )
    found = await store.resource_counts(None, KIND_LIST, ago(3600), 100)
    assert found == ResourceCounts(
        counts=(
            ResourceCount(kind="instance", state="active", resources=2),
            ResourceCount(kind="instance", state="stopped", resources=1),
            ResourceCount(kind="instance", state=None, resources=1),
            ResourceCount(kind="volume", state="in-use", resources=1),
        ),
        projects=2,
    )
    blue = await store.resource_counts("blue", KIND_LIST, ago(3600), 100)
    assert [(each.kind, each.state, each.resources) for each in blue.counts] == [
        ("instance", "active", 1),
        ("instance", None, 1),
        ("volume", "in-use", 1),
    ]
    assert blue.projects == 1


@pytest_twisted.ensureDeferred
async def test_hours_that_are_not_final_are_listed(store):
    now = ago(0)
    found = await store.hours_not_final(now - timedelta(days=1), now, now)
    assert list(found) == []
    if isinstance(store, PostgresStore):
        await store.write([message(at=now - timedelta(hours=5), resource_id="r")])
        [hour] = await store.hours_not_final(now - timedelta(days=1), now, now)
        assert hour == (now - timedelta(hours=5)).replace(minute=0, second=0, microsecond=0)
