"""Totals of a meter: questions that name no owner read one row of an hour or a day, and have the answers of the samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.testing import MemoryStore
from tests.integration.test_store_minute_totals import COUNT
from tests.integration.test_store_minute_totals import START
from tests.integration.test_store_minute_totals import finalized as finalized_newest
from tests.integration.test_store_minute_totals import written
from tests.integration.test_store_rollups import HOUR
from tests.integration.test_store_rollups import Usage
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.integration.test_store_rollups import same_answers
from tests.plans import count_rows_read
from tests.store_messages import message

# What a store has that was upgraded when some of its periods were final.
SOME_WITHOUT = """
UPDATE final_period SET with_meter_totals = false WHERE mod(extract(epoch FROM start)::bigint / 3600 / hours, 3) = {seed};
DELETE FROM meter_totals t USING final_period p WHERE (t.hours, t.start) = (p.hours, p.start) AND NOT p.with_meter_totals
"""
PROJECTS = 20


class UsageOfMeters(Usage):
    """Draws questions that name no resource, no owner and no metadata."""

    def query(self):
        drawn = super().query()
        pick = self.random.choice
        return replace(
            drawn,
            filter=replace(
                drawn.filter, equals=pick([{"meter": "cpu"}, {"meter": "ram"}, {}]), metadata=(), expression=None
            ),
            groupby=(),
            period=pick([None, 3600, 86_400, 7200, 10_000]),
            aggregates=(*COUNT, Aggregate("avg")),
        )


@pytest.mark.parametrize("seed", range(2))
@pytest_twisted.ensureDeferred
async def test_answers_are_those_of_the_samples_whichever_periods_have_totals_of_meters(postgresql, seed):
    usage, memory, dsn = UsageOfMeters(seed), MemoryStore(reactor), postgresql.dsn()
    async with running(dsn) as store:
        for size in (300, 30):
            batch = [usage.message() for _ in range(size)]
            for each in (store, memory):
                await each.write(batch)
            await finalized(store)
            await same_answers(store, memory, usage.query, 15)
            postgresql.execute(SOME_WITHOUT.format(seed=seed), dsn)
            await same_answers(store, memory, usage.query, 25)


@pytest_twisted.ensureDeferred
async def test_question_about_a_meter_reads_one_row_of_an_hour_however_many_projects_there_are(postgresql):
    hours, dsn = 6, postgresql.dsn()
    async with running(dsn) as store:
        await written(
            store,
            [
                message(
                    "cpu",
                    project,
                    at=START + n * HOUR,
                    type="gauge",
                    resource_id=f"vm-{project}",
                    project_id=f"p-{project}",
                )
                for n in range(hours)
                for project in range(PROJECTS)
            ],
        )
        await finalized_newest(store)
        postgresql.execute("VACUUM ANALYZE", dsn)
        for period in (None, 3600):
            query = StatisticsQuery(
                filter=SampleFilter(equals={"meter": "cpu"}, start=START, end=START + hours * HOUR),
                period=period,
                aggregates=COUNT,
            )
            found, read = await count_rows_read(store._readers, lambda query=query: store.statistics(query))
            assert sum(each.values["count"] for each in found) == hours * PROJECTS
            assert hours <= read.tables["meter_totals"] <= hours + 1  # there is a row of the day, too
            assert read.tables["rollup"] == read.tables["sample"] == 0
