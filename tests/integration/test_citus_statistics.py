"""What statistics of a spread store bring to the coordinator: one row for each series, or each series and window, not one for each sample."""

from __future__ import annotations

from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from meter.query import Aggregate
from meter.query import Comparison
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.cluster.functions import VERSION
from meter.store.query.statistics import statistics_statement
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import running
from tests.packing import session_of
from tests.spread import spread
from tests.store_messages import message

SERIES = 7
SAMPLES = 120
"""Of each series, one a minute: two hours, which are not final."""

HOUR = 3600
ALL = SampleFilter(equals={"meter": "cpu"}, start=START, end=START + timedelta(hours=2))
FUNCTIONS = ("spread_samples", "spread_partials", "spread_volumes_of")


def aggregates(*functions):
    return tuple(Aggregate(each, 0.5 if each == "percentile" else None) for each in functions)


@pytest.fixture(scope="module")
def dsn(request):
    """One store for all tests of this module."""
    cluster = request.getfixturevalue("citus_cluster")
    dsn = cluster.dsn_with_schema(spread)
    pytest_twisted.blockon(Deferred.fromCoroutine(written(dsn)))
    yield dsn
    cluster.drop(dsn)


async def written(dsn):
    async with running(dsn) as store:
        sent = [
            message(resource_id=f"r{series}", type="cumulative", volume=n, at=START + timedelta(minutes=n))
            for series in range(SERIES)
            for n in range(SAMPLES)
        ]
        assert (await store.write(sent)).stored == SERIES * SAMPLES


async def moved(dsn, query):
    """Return how many rows the functions that read samples have returned to the coordinator while ``query`` was answered."""
    statement = statistics_statement(query)
    async with session_of(dsn) as session:
        session.spread = True
        [[[plan]]] = await session.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", statement.parameters)
    scans = [node for node in nodes(plan["Plan"]) if node.get("Function Name") in FUNCTIONS]
    assert scans
    return sum(node["Actual Rows"] * node["Actual Loops"] for node in scans)


def nodes(node):
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        pytest.param(
            StatisticsQuery(filter=ALL, aggregates=aggregates("sum", "avg", "min", "max", "stddev")),
            SERIES,
            id="sums",
        ),
        pytest.param(
            StatisticsQuery(filter=ALL, period=HOUR, groupby=("resource_id",), aggregates=aggregates("first", "last")),
            SERIES * 2,
            id="windows",
        ),
        pytest.param(
            StatisticsQuery(filter=ALL, period=600, groupby=("resource_id",), aggregates=aggregates("sum")),
            SERIES * 12,
            id="windows in hours",
        ),
        pytest.param(
            StatisticsQuery(filter=ALL, groupby=("metadata.host",), aggregates=aggregates("count")),
            SERIES,
            id="metadata",
        ),
        pytest.param(StatisticsQuery(filter=ALL, aggregates=aggregates("increase", "integral")), SERIES, id="steps"),
        pytest.param(StatisticsQuery(filter=ALL, aggregates=aggregates("percentile")), SERIES, id="percentile"),
        pytest.param(
            StatisticsQuery(
                filter=SampleFilter(
                    equals=ALL.equals, start=ALL.start, end=ALL.end, expression=Comparison("volume", ">", 5)
                ),
                aggregates=aggregates("sum"),
            ),
            SERIES,
            id="condition on volumes",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_rows_that_workers_send_do_not_grow_with_samples(dsn, query, rows):
    assert await moved(dsn, query) == rows


@pytest_twisted.ensureDeferred
async def test_statistics_as_of_a_time_are_added_up_by_the_workers(dsn):
    [[now]] = await _now(dsn)
    query = StatisticsQuery(
        filter=SampleFilter(equals=ALL.equals, start=ALL.start, end=ALL.end, as_of=now), aggregates=aggregates("sum")
    )
    assert await moved(dsn, query) == SERIES


async def _now(dsn):
    async with session_of(dsn) as session:
        return await session.rows("SELECT clock_timestamp()")


@pytest_twisted.ensureDeferred
async def test_functions_of_an_older_meter_are_made_anew(citus):
    dsn = citus.dsn_with_schema(spread)
    citus.execute(
        "DROP FUNCTION spread_partials; DROP FUNCTION spread_volumes_of; DROP TYPE spread_partial, spread_volumes;"
        " UPDATE spread_store SET functions = 1",
        dsn,
    )
    async with running(dsn) as store:
        await store.write([message(volume=5, at=START)])
        [found] = await store.statistics(StatisticsQuery(filter=ALL, aggregates=aggregates("sum", "increase")))
    assert found.values["sum"] == 5
    assert citus.execute("SELECT functions FROM spread_store", dsn) == [(VERSION,)]
