"""Samples in place of rollups that cannot serve: the workers of a spread store are asked once for those of all rollups."""

from __future__ import annotations

from datetime import timedelta

import pytest_twisted

from meter.query import Aggregate
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.query.statistics import statistics_statement
from tests.integration.test_citus_statistics import nodes
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import comparable
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.packing import session_of
from tests.spread import spread
from tests.store_messages import message

SERIES = 3
HOURS = 4
PER_HOUR = 12
RANGE = {"start": START + timedelta(minutes=7), "end": START + timedelta(hours=HOURS - 1, minutes=53)}
CPU = SampleFilter(equals={"meter": "cpu"}, **RANGE)
LARGE = SampleFilter(equals={"meter": "cpu"}, metadata=(MetadataMatch("size", "1"),), **RANGE)


def sent():
    """Return samples of resources that are resized again and again, and of a few that are so seldom."""
    return [
        message(
            resource_id=f"r{series}",
            type="cumulative",
            volume=n * (series + 1),
            at=START + timedelta(minutes=60 // PER_HOUR * n),
            metadata={"size": n % 2 if series else n // 5 % 2},
        )
        for series in range(SERIES)
        for n in range(HOURS * PER_HOUR)
    ]


async def asked(dsn, query):
    """Return how often each function that reads samples was called while ``query`` was answered."""
    statement = statistics_statement(query)
    async with session_of(dsn) as session:
        session.spread = True
        [[[plan]]] = await session.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", statement.parameters)
    calls = {}
    for node in nodes(plan["Plan"]):
        name = node.get("Function Name", "")
        if name.startswith("spread_samples") and node["Actual Loops"]:
            calls[name] = calls.get(name, 0) + node["Actual Loops"]
    return calls


@pytest_twisted.ensureDeferred
async def test_mixed_metadata_are_read_by_one_statement_and_answers_are_those_of_one_server(citus, postgresql):
    dsn, of_one_server = citus.dsn_with_schema(spread), postgresql.dsn_with_schema()
    answers = {}
    queries = [
        StatisticsQuery(filter=CPU, groupby=("metadata.size",), aggregates=(Aggregate("count"), Aggregate("sum"))),
        StatisticsQuery(filter=LARGE, aggregates=(Aggregate("count"),)),
        StatisticsQuery(filter=LARGE, groupby=("resource_id",), aggregates=(Aggregate("increase"),)),
        StatisticsQuery(filter=CPU, groupby=("metadata.size",), aggregates=(Aggregate("integral"),)),
    ]
    for each in (dsn, of_one_server):
        async with running(each) as store:
            assert (await store.write(sent())).stored == SERIES * HOURS * PER_HOUR
            await finalized(store)
            answers[each] = [comparable(await store.statistics(query)) for query in queries]
    assert answers[dsn] == answers[of_one_server]
    [[replaced]] = citus.execute("SELECT count(*) FROM rollup WHERE hours = 1 AND metadata_id = 0", dsn)
    assert replaced >= (SERIES - 1) * HOURS
    calls = await asked(dsn, queries[0])
    assert calls.pop("spread_samples_of_spans") == 1
    # What remains is of the two hours that the range cuts, and does not depend on how many rollups are replaced.
    assert sum(calls.values()) <= 2
