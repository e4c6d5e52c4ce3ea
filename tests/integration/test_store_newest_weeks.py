"""Newest pages and lists: their plans have as many weeks however many are retained, and their answers are those of the samples."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.query import Comparison
from meter.query import Marker
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.store.query import newest_weeks
from meter.testing import MemoryStore
from tests.integration.test_store_minute_totals import written
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.plans import count_partitions
from tests.store_messages import message

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
PAGE, PAGE_OF_MANY = 6, 30
MANY = 10_000

QUESTIONS = {
    "newest page": lambda store: store.samples(SampleFilter(), PAGE),
    "newest page of a resource": lambda store: store.samples(SampleFilter(equals={"resource_id": "weekly"}), 2),
    "newest page of a meter": lambda store: store.samples(SampleFilter(equals={"meter": "cpu"}), PAGE),
    "newest page of metadata": lambda store: store.samples(SampleFilter(metadata=(MetadataMatch("n", "2"),)), 1),
    "newest page since long ago": lambda store: store.samples(SampleFilter(start=NOW - 70 * WEEK), PAGE),
    "page after a sample": lambda store: store.samples(SampleFilter(), 1, after=Marker(NOW - 2 * HOUR, str(0) * 32)),
    "one resource": lambda store: store.resources(SampleFilter(equals={"resource_id": "weekly"}), MANY),
    "all resources": lambda store: store.resources(SampleFilter(), MANY),
    "all meters": lambda store: store.meters(SampleFilter(), MANY, False),
    "meters of a project": lambda store: store.meters(SampleFilter(equals={"project_id": "p1"}), MANY, False),
    "unique meters": lambda store: store.meters(SampleFilter(), MANY, True),
    "unique meters of a project": lambda store: store.meters(SampleFilter(equals={"project_id": "p1"}), MANY, True),
    "unique meters of a resource": lambda store: store.meters(
        SampleFilter(equals={"resource_id": "weekly"}), MANY, True
    ),
}


async def planned(postgresql, weeks: int, *, packed: bool) -> dict[str, int]:
    """Return of each question how many scans of partitions its plans have, in a store with samples of each of ``weeks``."""
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await store.maintenance._partitions.ensure([NOW - n * WEEK for n in range(weeks)])
        for n in reversed(range(weeks)):
            at = NOW - n * WEEK - HOUR
            await written(store, [message(name, n, at=at, resource_id="weekly") for name in ("cpu", "ram")])
        daily = [
            message(name, n, at=NOW - n * HOUR, resource_id=f"vm-{each}", metadata={"n": str(n)})
            for n in range(2, 5)
            for each in range(3)
            for name in ("cpu", "ram")
        ]
        await written(store, daily)
        await store.maintenance.finalize(NOW)
        if packed:
            pack_all_blocking(dsn)
        postgresql.execute("VACUUM ANALYZE", dsn)
        found = {}
        for name, question in QUESTIONS.items():
            await question(store)  # which weeks there are is known then
            answer, scans = await count_partitions(store._readers, lambda question=question: question(store))
            assert answer, name
            found[name] = sum(scans)
        return found


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest_twisted.ensureDeferred
async def test_plans_have_as_many_weeks_however_many_are_retained(postgresql, packed):
    few, many = [await planned(postgresql, weeks, packed=packed) for weeks in (2, 13)]
    # What is before the first final hour, and a week that may have had no samples yet, are looked at by themselves.
    assert {name: (few[name], many[name]) for name in few if many[name] > few[name] + 6} == {}


class Weeks:
    """Draws messages of a few resources over many weeks, some of them of the future or so old that their week has no partition."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def messages(self, count: int, oldest: int = 12) -> list:
        pick = self.random.choice
        found = []
        for _ in range(count):
            weeks = pick([*range(oldest), 0, 0, -1, 70, 300])
            at = NOW - weeks * WEEK - pick([0, 1, 2, 30, 100]) * HOUR + pick([0, 0, 1]) * timedelta(seconds=7)
            resource = pick(["ended", "moved", "live", "live"])
            at -= 8 * WEEK if resource == "ended" and weeks >= 0 else timedelta(0)
            found += [
                message(
                    name,
                    self.random.randrange(100),
                    at=at,
                    resource_id=resource,
                    project_id=pick(["pa", "pb"]) if resource == "moved" else "pa",
                    metadata={"size": pick([1, 1, 1, 2])},
                )
                for name in pick([("cpu",), ("cpu", "ram"), ("cpu", "ram", "disk")])
            ]
        return found


FILTERS = (
    SampleFilter(),
    *(SampleFilter(equals={"resource_id": name}) for name in ("ended", "moved", "live", "none")),
    SampleFilter(equals={"project_id": "pb"}),
    SampleFilter(equals={"meter": "disk"}, metadata=(MetadataMatch("size", "2"),)),
    SampleFilter(metadata=(MetadataMatch("size", "2"),)),
    SampleFilter(expression=Comparison("volume", ">", 90)),
    SampleFilter(end=NOW - 9 * WEEK),
    SampleFilter(start=NOW - 15 * WEEK, equals={"project_id": "pa"}, after_start=True),
)


async def ids(store, *question, **options) -> list[str]:
    return [each.message_id for each in await store.samples(*question, **options)]


async def same_answers(store, memory) -> None:
    for filter in FILTERS:
        for limit in (2, MANY):
            assert await ids(store, filter, limit) == await ids(memory, filter, limit), (filter, limit)
            assert await store.resources(filter, limit) == await memory.resources(filter, limit), (filter, limit)
            for unique in (False, True):
                assert await store.meters(filter, limit, unique) == await memory.meters(filter, limit, unique)
        after, expected = None, await ids(memory, filter, MANY)
        while page := await store.samples(filter, PAGE_OF_MANY, after=after):
            assert [each.message_id for each in page] == expected[:PAGE_OF_MANY], (filter, after)
            expected = expected[PAGE_OF_MANY:]
            after = Marker(page[-1].timestamp, page[-1].message_id)
        assert not expected


@pytest.mark.parametrize(("seed", "spared"), [(1, 0), (2, -200)])
@pytest_twisted.ensureDeferred
async def test_answers_are_those_of_the_samples_whatever_weeks_are_asked_first(postgresql, monkeypatch, seed, spared):
    monkeypatch.setattr(newest_weeks, "SPARED_WEEKS", spared)
    monkeypatch.setattr(newest_weeks, "KNOWN_SECONDS", 0.0)
    weeks, memory, dsn = Weeks(seed), MemoryStore(reactor), postgresql.dsn()

    async def both(messages) -> None:
        for each in (store, memory):
            await each.write(messages)

    async with running(dsn) as store:
        await both(weeks.messages(25))
        await same_answers(store, memory)
        await store.maintenance.finalize(NOW)
        await same_answers(store, memory)
        pack_all_blocking(dsn)
        await same_answers(store, memory)
        await both(weeks.messages(8))  # late ones, too: some hours are not final any more
        await same_answers(store, memory)


@pytest_twisted.ensureDeferred
async def test_sample_of_an_hour_that_is_not_final_any_more_is_found_in_whatever_week(postgresql, monkeypatch):
    monkeypatch.setattr(newest_weeks, "KNOWN_SECONDS", 0.0)
    memory = MemoryStore(reactor)
    async with running(postgresql.dsn()) as store:
        for n in range(12):
            batch = [message("cpu", n, at=NOW - n * WEEK, resource_id="a", metadata={"n": n})]
            for each in (store, memory):
                await each.write(batch)
        await store.maintenance.finalize(NOW)
        for late in (  # a resource that nothing else is known of, and one that is known from its other samples
            message("disk", 1, at=NOW - 9 * WEEK, resource_id="b"),
            message("disk", 2, at=NOW - 8 * WEEK, resource_id="a"),
        ):
            for each in (store, memory):
                await each.write([late])
            await same_answers(store, memory)
        assert [each.name for each in await store.meters(SampleFilter(), MANY, True)] == ["cpu", "disk"]


@pytest_twisted.ensureDeferred
async def test_page_of_a_resource_that_ended_long_ago_reads_its_own_weeks(postgresql):
    async with running(postgresql.dsn()) as store:
        for n in range(15):
            name = "ended" if n in (8, 9) else "live"
            await written(
                store, [message("cpu", each, at=NOW - n * WEEK + each * HOUR, resource_id=name) for each in range(4)]
            )
        filter = SampleFilter(equals={"resource_id": "ended"})
        await store.samples(filter, PAGE)
        page, scans = await count_partitions(store._readers, lambda: store.samples(filter, PAGE))
        assert [each.timestamp for each in page] == [
            NOW - n * WEEK + each * HOUR for n in (8, 9) for each in reversed(range(4))
        ][:PAGE]
        assert max(scans) <= 5
        few, scans = await count_partitions(
            store._readers, lambda: store.samples(replace(filter, end=NOW - 10 * WEEK), PAGE)
        )
        assert not few
