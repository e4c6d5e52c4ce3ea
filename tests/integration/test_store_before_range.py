"""Steps look few weeks before their start up: the answers are those of the samples, and plans have as many weeks however many are retained."""

from __future__ import annotations

import random
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.query import Aggregate
from meter.query import Comparison
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.query import newest_weeks
from meter.testing import MemoryStore
from tests.integration.test_store_minute_totals import written
from tests.integration.test_store_rollups import comparable
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.plans import count_partitions
from tests.store_messages import message

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
NOW = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
STEPS = tuple(map(Aggregate, ("increase", "rate", "integral")))


class LongAgo:
    """Draws samples of resources that migrate, are deleted and are polled seldom, with weeks in between, and questions about steps."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def moment(self) -> datetime:
        pick = self.random.choice
        at = NOW - pick([*range(16), 0, 0, 1, 70]) * WEEK - pick([0, 1, 2, 30, 100]) * HOUR
        return pick([at, at, at + timedelta(seconds=7), at - timedelta(minutes=30), start_of_week(week_of(at))])

    def messages(self, count: int) -> list:
        pick, found = self.random.choice, []
        for _ in range(count):
            name, resource, at = pick(["cpu", "ram", "ram"]), pick("abcdef"), self.moment()
            if name == "cpu":
                volume, metadata = pick([0, 0, 1, 2, 5, 9]), {"instance_host": pick(["one", "two", "three"])}
            elif resource in "ab" and self.random.randrange(8) == 0:
                volume, metadata = 0, {"_meter": {"run": "deleted"}}
            else:
                polled = [{"interval": each} for each in (1800, 6 * 86400, 20 * 86400)]
                run = pick([*polled, {"interval": 900, "run": "exists"}, {"interval": 0}, {"interval": 0}])
                volume, metadata = pick([0, 512]), {"_meter": run, "size": pick([1, 1, 2])}
            found.append(
                message(
                    name,
                    volume,
                    at=at,
                    type="cumulative" if name == "cpu" else "gauge",
                    unit="ns" if name == "cpu" else pick(["MB", "MB", "MB", "MiB"]),
                    resource_id=resource,
                    metadata=metadata,
                )
            )
        return found

    def question(self) -> StatisticsQuery:
        pick = self.random.choice
        start = self.moment()
        return StatisticsQuery(
            filter=SampleFilter(
                equals=pick([{}, {"meter": "cpu"}, {"meter": "ram"}, {"resource_id": "a"}]),
                start=start,
                end=pick([None, NOW + DAY, start + DAY, start + 3 * WEEK]),
                after_start=pick([False, True]),
                metadata=pick([(), (), (MetadataMatch("size", 1),)]),
                expression=pick([None, None, Comparison("volume", "<", 600)]),
                as_of=pick([None, None, None, None, NOW - HOUR]),
            ),
            period=pick([None, None, 86400, 7 * 86400, 1000]),
            groupby=pick([(), ("resource_id",)]),
            aggregates=pick([STEPS, (STEPS[0],), (STEPS[2],)]),
            limit=100_000,
        )


async def same_answers(store, memory, drawn: LongAgo, count: int = 25) -> None:
    for _ in range(count):
        query = drawn.question()
        assert comparable(await store.statistics(query)) == comparable(await memory.statistics(query)), query


@pytest.fixture
def in_weeks(monkeypatch) -> list[bool]:
    """Ask few weeks whenever there is a week; note of each question whether these sufficed."""
    monkeypatch.setattr(newest_weeks, "SPARED_WEEKS", 0)
    monkeypatch.setattr(newest_weeks, "KNOWN_SECONDS", 0.0)
    return []


@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.ensureDeferred
async def test_answers_are_those_of_the_samples_with_weeks_between_them(postgresql, in_weeks, seed):
    drawn, memory, dsn = LongAgo(seed), MemoryStore(reactor), postgresql.dsn()
    async with running(dsn) as store:
        runner = store._query_runner
        ask = runner._statistics_in_weeks

        async def noted(query):
            rows = await ask(query)
            in_weeks.append(rows is not None)
            return rows

        runner._statistics_in_weeks = noted

        async def both(messages) -> None:
            for each in (store, memory):
                await each.write(messages)

        await both(drawn.messages(60))
        await same_answers(store, memory, drawn)
        await store.maintenance.finalize(NOW)
        await same_answers(store, memory, drawn)
        pack_all_blocking(dsn)
        await same_answers(store, memory, drawn)
        await both(drawn.messages(8))  # late ones, too: some hours are not final any more
        await same_answers(store, memory, drawn)
        await store.maintenance.finalize(NOW)
        await same_answers(store, memory, drawn)
    assert in_weeks.count(True) > 30
    assert in_weeks.count(False) > 10


@pytest_twisted.ensureDeferred
async def test_late_deletion_in_a_week_that_was_final_a_moment_ago_is_found(postgresql):
    async with running(postgresql.dsn()) as store:
        at = [NOW - n * WEEK for n in reversed(range(14))] + [NOW - 2 * HOUR, NOW - HOUR]
        await written(store, [message("ram", 512, at=each, resource_id="a") for each in at])
        await store.maintenance.finalize(NOW)
        filter = SampleFilter(equals={"meter": "ram"}, start=NOW - 3 * HOUR)
        query = StatisticsQuery(filter=filter, aggregates=(Aggregate("integral"),))
        [row] = await store.statistics(query)  # which weeks have hours that are not final is remembered
        assert row.values["integral"] > 0
        deleted = message("ram", 0, at=NOW - 7 * WEEK, resource_id="a", metadata={"_meter": {"run": "deleted"}})
        await store.write([deleted])
        [row] = await store.statistics(query)
        assert row.values["integral"] == 0


@pytest.mark.parametrize("spared", [0, 1000], ids=["few weeks", "all weeks"])
@pytest_twisted.ensureDeferred
async def test_deletion_that_has_expired_is_not_found_though_its_sample_is_still_there(postgresql, monkeypatch, spared):
    monkeypatch.setattr(newest_weeks, "SPARED_WEEKS", spared)
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        deleted = message("ram", 0, at=NOW - 7 * WEEK, resource_id="a", metadata={"_meter": {"run": "deleted"}})
        at = [NOW - 13 * WEEK, NOW - 2 * HOUR, NOW - HOUR]
        await written(store, [deleted, *(message("ram", 512, at=each, resource_id="a") for each in at)])
        await store.maintenance.finalize(NOW)
        filter = SampleFilter(equals={"meter": "ram"}, start=NOW - 3 * HOUR, expression=Comparison("volume", "<", 600))
        query = StatisticsQuery(filter=filter, aggregates=(Aggregate("integral"),))
        [row] = await store.statistics(query)
        assert row.values["integral"] == 0
        before = NOW.replace(minute=0) - 6 * WEEK
        postgresql.execute(f"INSERT INTO retention_cutoff (meter, before) VALUES ('ram', '{before}')", dsn)
        [row] = await store.statistics(query)
        assert row.values["integral"] > 0


async def planned(postgresql, weeks: int, *, packed: bool) -> dict[str, int]:
    """Return of each question how many scans of partitions its plans have, in a store with samples of each of ``weeks``."""
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await store.maintenance._partitions.ensure([NOW - n * WEEK for n in range(weeks)])
        for n in reversed(range(weeks)):
            at = NOW - n * WEEK - HOUR
            await written(store, [message("cpu", 1000 - n, at=at, type="cumulative", resource_id="weekly")])
        await store.maintenance.finalize(NOW)
        if packed:
            await deferToThread(pack_all_blocking, dsn)
        found = {}
        for name, options in {"increase": {}, "rate": {"period": 600}, "integral": {}}.items():
            filter = SampleFilter(equals={"meter": "cpu"}, start=NOW - 8 * HOUR)
            query = StatisticsQuery(filter=filter, aggregates=(Aggregate(name),), **options)
            await store.statistics(query)  # which weeks there are is known then
            answer, scans = await count_partitions(store._readers, lambda query=query: store.statistics(query))
            assert answer, name
            found[name] = sum(scans)
        return found


@pytest.mark.parametrize("packed", [False, True])
@pytest_twisted.ensureDeferred
async def test_plans_have_as_many_weeks_however_many_are_retained(postgresql, packed):
    few, some, many = [await planned(postgresql, weeks, packed=packed) for weeks in (2, 13, 40)]
    assert some == many
    assert {name: (few[name], many[name]) for name in few if many[name] > few[name] + 6} == {}
