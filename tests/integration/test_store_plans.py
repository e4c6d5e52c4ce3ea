"""No query reads more than three times the rows that it selects from, however wrong PostgreSQL's estimates are.

Stores are filled so that PostgreSQL's statistics are missing, stale or right. Each kind of query is executed on each store with
``EXPLAIN (ANALYZE)``; the tests count the rows that scans read, not the time.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from math import isqrt
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from meter.api.streaming.live import _recorded_since
from meter.bus.batches import BATCH_SAMPLES
from meter.query import Aggregate
from meter.query import And
from meter.query import Comparison
from meter.query import In
from meter.query import Marker
from meter.query import MetadataMatch
from meter.query import Or
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import PostgresStore
from meter.store.maintenance.partitions import WEEK
from meter.store.maintenance.partitions import week_of
from meter.store.maintenance.rollups import FROM_SAMPLES
from meter.store.maintenance.rollups import MAX_ALTERNATIONS
from meter.store.maintenance.rollups import MAX_METADATA_RUNS
from meter.store.maintenance.rollups import NEXT_HOUR_TO_FINALIZE
from meter.store.maintenance.verification import BatchTimes
from meter.store.maintenance.verification import Verification
from meter.store.query.sample_rows import EVER
from meter.store.query.sample_rows import samples_between
from meter.store.query.samples import RECENT_PAGES
from tests.integration.test_store_rollups import running
from tests.plans import RowsRead
from tests.plans import count_rows_read
from tests.store_messages import message

pytestmark = pytest.mark.timeout(240)

MONDAY = datetime.combine(week_of(datetime.now(UTC)), datetime.min.time(), UTC)
"""The current week. The samples are of the two weeks before."""

THURSDAY = MONDAY - 2 * WEEK + timedelta(days=3, hours=8)
NEW_WEEK = MONDAY - WEEK
DOMAINS, PROJECTS = 60, 6
METERS = (
    ("cpu", "cumulative", "ns"),
    ("disk.read.bytes", "cumulative", "B"),
    *((f"m{n}", "gauge", "MiB") for n in range(8)),
)
OF_SERIES = {"meter": "m.meter", "resource_id": "r.resource_id", "project_id": "p.project_id"}
WEEKS = 2
"""How many weeks have samples: each has a partition in which the newest sample of a series is looked up."""

PAGE = 20
FACTOR = 3
"""How many times the rows in its range a query may read."""

# Repeats the samples of a poll ``polls`` times, every ``seconds``.
AGAIN = """
INSERT INTO sample
SELECT timestamp + interval '1 s' * {seconds} * poll, recorded_at + interval '1 s' * {seconds} * poll, gen_random_uuid(),
    volume + poll, metadata_id, series_id, wire_format_id, signature, verbatim_json
FROM sample CROSS JOIN generate_series(1, {polls}) AS poll WHERE timestamp >= '{at}' AND timestamp < '{at}'::timestamptz + interval '1 s'
"""

CHANGING = """
INSERT INTO metadata (hash, text, document)
SELECT sha256(convert_to('change' || n, 'UTF8')), text, document || jsonb_build_object('change', n)
FROM (SELECT text, document, row_number() OVER () AS n FROM metadata CROSS JOIN generate_series(1, {times})) AS _;
UPDATE sample s SET metadata_id = d.id
FROM (SELECT id, row_number() OVER () AS n FROM metadata) AS d, (SELECT ctid, tableoid, row_number() OVER () AS n FROM sample) AS t
WHERE s.ctid = t.ctid AND s.tableoid = t.tableoid AND d.n = t.n
"""

NO_STATISTICS = """
DO $$ DECLARE t regclass; BEGIN
    FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', t);
    END LOOP;
END $$
"""


def poll(at: datetime, domains: range = range(DOMAINS), prefix: str = "") -> list[Any]:
    """Return the messages of a poll of ``domains``, whose timestamps are a millisecond apart."""
    return [
        message(
            name,
            domain,
            at=at + timedelta(milliseconds=domain % 900),
            type=type_,
            unit=unit,
            resource_id=f"{prefix}domain-{domain:05}",
            project_id=f"{prefix}project-{domain % PROJECTS}",
            metadata={"host": f"host-{domain % 10}", "name": f"{prefix}domain-{domain}"},
        )
        for domain in domains
        for name, type_, unit in METERS
    ]


@dataclass
class Database:
    """A store under test, and a function that executes SQL in its database."""

    store: PostgresStore
    execute: Callable[[str], list[tuple[Any, ...]]]
    counted: dict[str, int] = field(default_factory=dict)

    async def polled(self, at: datetime, polls: int, seconds: int = 2, **domains: Any) -> None:
        """Write a poll to the store, and repeat its samples ``polls`` times in SQL."""
        messages = poll(at, **domains)
        for first in range(0, len(messages), 500):
            await self.store.write(messages[first : first + 500])
        self.execute(AGAIN.format(at=at, polls=polls, seconds=seconds))

    def count(self, filter: SampleFilter) -> int:
        """Return how many samples match the series and the time range of ``filter``."""
        bounds = [f"{OF_SERIES[name]} = '{value}'" for name, value in filter.equals.items() if name != "message_id"]
        bounds += [f"s.timestamp >= '{filter.start}'"] if filter.start else []
        bounds += [f"s.timestamp < '{filter.end}'"] if filter.end else []
        return self._count(
            f"SELECT count(*) FROM {samples_between(('timestamp', 'series_id'), EVER)} JOIN series x ON x.id = s.series_id"
            " JOIN (SELECT id, name AS meter FROM meter) m ON m.id = x.meter_id"
            " JOIN (SELECT id AS resource, name AS resource_id FROM resource) r ON r.resource = x.resource_id"
            " LEFT JOIN (SELECT id AS project, name AS project_id FROM project) p ON p.project = x.project_id"
            f" WHERE {' AND '.join(bounds) or 'true'}"
        )

    def size(self, table: str) -> int:
        """Return the number of rows of ``table``."""
        return self._count(f'SELECT count(*) FROM "{table}"')

    def _count(self, statement: str) -> int:
        if statement not in self.counted:
            [[self.counted[statement]]] = self.execute(statement)
        return self.counted[statement]


# --- stores with wrong statistics ---------------------------------------------------------------------------------


async def never_analyzed(database: Database) -> datetime:
    """The store is a minute old and was never analyzed."""
    await database.polled(THURSDAY, 29)
    return THURSDAY


async def analyzed_after_first_batch(database: Database) -> datetime:
    """The statistics are of the first batch, when each series had one sample."""
    await database.store.write(poll(THURSDAY)[:100])
    database.execute("ANALYZE")
    await database.polled(THURSDAY, 29)
    return THURSDAY


async def analyzed_while_empty(database: Database) -> datetime:
    """The statistics are of empty tables."""
    database.execute("VACUUM ANALYZE")
    await database.polled(THURSDAY, 29)
    return THURSDAY


async def new_partition(database: Database) -> datetime:
    """A week with statistics and rollups, and a minute of the next week in a partition without statistics."""
    await database.polled(THURSDAY, 29, seconds=300)
    await database.store.maintenance.finalize(THURSDAY + timedelta(hours=2))
    database.execute("VACUUM ANALYZE")
    await database.polled(NEW_WEEK + timedelta(hours=5), 29)
    return NEW_WEEK + timedelta(hours=5)


async def right_statistics(database: Database) -> datetime:
    """The statistics are right, and all hours except the last have final rollups."""
    await database.polled(THURSDAY - timedelta(hours=2), 35, seconds=300)
    await database.store.maintenance.finalize(THURSDAY)
    database.execute("VACUUM ANALYZE")
    return THURSDAY


async def metadata_changes_always(database: Database) -> datetime:
    """Each sample has its own metadata document, while PostgreSQL expects few documents."""
    database.execute("ANALYZE")
    await database.polled(THURSDAY, 29)
    database.execute(CHANGING.format(times=310))
    return THURSDAY


async def many_ended_series(database: Database) -> datetime:
    """Two thousand series have their last samples a day before; the statistics are of that day."""
    await database.polled(THURSDAY - timedelta(days=1), 1, domains=range(200), prefix="gone-")
    database.execute("VACUUM ANALYZE")
    await database.polled(THURSDAY, 29)
    return THURSDAY


STORES = (
    never_analyzed,
    analyzed_after_first_batch,
    analyzed_while_empty,
    new_partition,
    right_statistics,
    metadata_changes_always,
    many_ended_series,
)


@pytest.fixture(scope="module", params=STORES, ids=lambda fill: fill.__name__)
def filled(request):
    """``(database, when)``: a store of each sort, for all queries, with a minute or two hours of samples from ``when`` on."""
    postgresql = request.getfixturevalue("postgresql")
    dsn = postgresql.dsn_with_schema()
    opening = running(dsn)

    async def fill(store: PostgresStore) -> tuple[Database, datetime]:
        await store.maintenance._partitions.ensure([THURSDAY, NEW_WEEK])
        postgresql.execute(NO_STATISTICS, dsn)
        database = Database(store, lambda statement: postgresql.execute(statement, dsn))
        return database, await request.param(database)

    store = pytest_twisted.blockon(Deferred.fromCoroutine(opening.__aenter__()))
    try:
        yield pytest_twisted.blockon(Deferred.fromCoroutine(fill(store)))
    finally:
        pytest_twisted.blockon(Deferred.fromCoroutine(opening.__aexit__(None, None, None)))


# --- queries -------------------------------------------------------------------------------------------------------


HOST = (MetadataMatch("host", "host-3"),)
NOWHERE = (MetadataMatch("host", "nowhere"),)
STEPS = tuple(Aggregate(name) for name in ("increase", "rate", "integral"))
SECONDS_ODD = timedelta(seconds=7)


def ranges(when: datetime) -> dict[str, dict[str, datetime]]:
    return {
        "": {},
        " of a range with odd ends": {"start": when + SECONDS_ODD, "end": when + timedelta(seconds=51)},
        " of hours": {"start": when - timedelta(hours=1, minutes=53), "end": when + timedelta(seconds=51)},
    }


def statistics_queries(when: datetime) -> dict[str, StatisticsQuery]:
    queries = {}
    for of_time, bounds in ranges(when).items():
        cpu = SampleFilter(equals={"meter": "cpu"}, **bounds)
        everything = SampleFilter(**bounds)
        one = SampleFilter(equals={"meter": "cpu", "resource_id": "domain-00007"}, **bounds)
        project = SampleFilter(equals={"meter": "cpu", "project_id": "project-3"}, **bounds)
        context = SampleFilter(equals={"meter": "cpu"}, metadata=HOST, **bounds)
        nowhere = SampleFilter(equals={"meter": "cpu"}, metadata=NOWHERE, **bounds)
        mixed = SampleFilter(
            equals={"meter": "cpu"},
            expression=Or((Comparison("metadata.host", "=", "host-3"), Comparison("resource_id", "=", "domain-00001"))),
            **bounds,
        )
        queries |= {
            f"statistics{of_time}": StatisticsQuery(filter=cpu),
            f"statistics of all meters{of_time}": StatisticsQuery(filter=everything),
            f"statistics of a resource{of_time}": StatisticsQuery(filter=one),
            f"statistics of a project{of_time}": StatisticsQuery(filter=project, groupby=("resource_id",)),
            f"statistics by resource{of_time}": StatisticsQuery(filter=cpu, groupby=("resource_id",)),
            f"statistics by project and user{of_time}": StatisticsQuery(filter=cpu, groupby=("project_id", "user_id")),
            f"statistics by metadata{of_time}": StatisticsQuery(filter=cpu, groupby=("metadata.host",)),
            f"statistics by period{of_time}": StatisticsQuery(filter=cpu, period=10, groupby=("resource_id",)),
            f"steps{of_time}": StatisticsQuery(filter=cpu, aggregates=STEPS),
            f"steps by resource{of_time}": StatisticsQuery(filter=cpu, aggregates=STEPS, groupby=("resource_id",)),
            f"steps by metadata{of_time}": StatisticsQuery(filter=cpu, aggregates=STEPS, groupby=("metadata.name",)),
            f"steps of metadata by period{of_time}": StatisticsQuery(filter=context, aggregates=STEPS, period=10),
            f"steps of a project{of_time}": StatisticsQuery(filter=project, aggregates=STEPS),
            f"steps of metadata of a project{of_time}": StatisticsQuery(
                filter=replace(project, metadata=HOST), aggregates=STEPS
            ),
            f"steps of a resource{of_time}": StatisticsQuery(filter=one, aggregates=STEPS),
            f"percentile{of_time}": StatisticsQuery(filter=cpu, aggregates=(Aggregate("percentile", "95"),)),
            f"percentile of metadata{of_time}": StatisticsQuery(
                filter=context, aggregates=(Aggregate("percentile", "95"),)
            ),
            f"deviation and cardinality{of_time}": StatisticsQuery(
                filter=cpu, aggregates=(Aggregate("stddev"), Aggregate("cardinality", "resource_id"))
            ),
            f"statistics of metadata{of_time}": StatisticsQuery(filter=context),
            f"statistics of metadata that are nowhere{of_time}": StatisticsQuery(filter=nowhere),
            f"statistics of metadata by resource{of_time}": StatisticsQuery(filter=context, groupby=("resource_id",)),
            f"statistics of metadata or a resource{of_time}": StatisticsQuery(filter=mixed, groupby=("metadata.name",)),
        }
    return queries


def page_queries(when: datetime) -> dict[str, tuple[SampleFilter, dict[str, Any]]]:
    queries: dict[str, tuple[SampleFilter, dict[str, Any]]] = {}
    volumes = Comparison("volume", ">", 1e9)
    for of_time, bounds in ranges(when).items():
        for of_what, fields in {
            "all": {},
            "a meter": {"equals": {"meter": "cpu"}},
            "a resource": {"equals": {"resource_id": "domain-00007"}},
            "a project": {"equals": {"project_id": "project-3"}},
            "a project that ended": {"equals": {"project_id": "gone-project-3"}},
            "a meter and metadata": {"equals": {"meter": "cpu"}, "metadata": HOST},
            "metadata": {"metadata": HOST},
            "metadata that are nowhere": {"metadata": NOWHERE},
            "a meter and metadata that are nowhere": {"equals": {"meter": "cpu"}, "metadata": NOWHERE},
            "volumes that are nowhere": {"expression": volumes},
            "a meter and volumes that are nowhere": {"equals": {"meter": "cpu"}, "expression": volumes},
            "metadata or a volume": {"expression": Or((Comparison("metadata.host", "=", "nowhere"), volumes))},
            "a meter or a volume": {"expression": Or((Comparison("resource_id", "=", "none"), volumes))},
            "what is recorded by now": {"equals": {"meter": "cpu"}, "as_of": datetime.now(UTC) - timedelta(seconds=1)},
        }.items():
            filter = SampleFilter(**fields, **bounds)
            queries[f"a page of {of_what}{of_time}"] = filter, {}
            queries[f"a later page of {of_what}{of_time}"] = (
                filter,
                {"after": Marker(when + timedelta(seconds=31), "f" * 32)},
            )
        for n, order in enumerate(
            ((Order("volume"),), (Order("resource_id"), Order("timestamp")), (Order("recorded_at", True),))
        ):
            queries[f"{n}. order of a meter{of_time}"] = (
                SampleFilter(equals={"meter": "cpu"}, **bounds),
                {"order": order},
            )
            queries[f"{n}. order of metadata{of_time}"] = SampleFilter(metadata=HOST, **bounds), {"order": order}
            queries[f"{n}. order of all{of_time}"] = SampleFilter(**bounds), {"order": order}
    return queries


def exceeded(database: Database, read: RowsRead, rows: int, more: int = 0) -> list[str]:
    """Return what ``read`` exceeds for a query that selects from ``rows`` samples and may read ``more`` besides."""
    series = database.size("series")
    allowed = FACTOR * rows + more
    problems = []
    if (samples := read.tables["sample"] + read.tables["rollup"]) > allowed:
        problems.append(f"{samples} samples and rollups")
    # Besides, the documents that match are looked for, as far as they are few.
    if read.tables["metadata"] > allowed + isqrt(max(series, 100)) + 1:
        problems.append(f"{read.tables['metadata']} metadata")
    for table in (
        "series",
        "meter",
        "resource",
        "user",
        "project",
        "source",
        "wire_format",
        "final_period",
        "retention_cutoff",
    ):
        # A dimension table may be scanned, and one of its rows looked up for each sample.
        if read.tables[table] > allowed + FACTOR * (database.size(table) + series):
            problems.append(f"{read.tables[table]} rows of {table}")
    for name, scanned in read.intermediate.items():
        if scanned > allowed + FACTOR * series:
            problems.append(f"{scanned} rows of the intermediate result {name}")
    return problems


async def rows_exceeded(
    database: Database, name: str, query: Callable[[], Awaitable[Any]], rows: int, more: int = 0
) -> list[str]:
    """Execute ``query`` and return an error text if it reads too many rows."""
    _, read = await count_rows_read(database.store._readers, query)
    problems = exceeded(database, read, rows, more)
    return (
        [f"{name}, which selects from {rows} samples, read {', '.join(problems)}:\n{read.text()}"] if problems else []
    )


def assert_none(problems: list[str]) -> None:
    assert not problems, f"{len(problems)} queries read too many rows, the first:\n" + "\n\n".join(problems[:3])


@pytest_twisted.ensureDeferred
async def test_statistics_read_at_most_three_times_the_rows_in_their_range(filled):
    database, when = filled
    problems = []
    for name, query in statistics_queries(when).items():
        problems += await rows_exceeded(
            database, name, lambda query=query: database.store.statistics(query), database.count(query.filter)
        )
    assert_none(problems)


@pytest_twisted.ensureDeferred
async def test_pages_read_at_most_three_times_the_rows_in_their_range_and_ten_pages(filled):
    database, when = filled
    problems = []
    for name, (filter, more) in page_queries(when).items():
        ask = lambda filter=filter, more=more: database.store.samples(filter, PAGE, **more)  # noqa: E731
        # The newest ten pages of all series are read, and one row per week and series to find the newest series.
        problems += await rows_exceeded(database, name, ask, database.count(filter), RECENT_PAGES * PAGE + 100)
    assert_none(problems)


@pytest_twisted.ensureDeferred
async def test_newest_page_reads_a_few_pages_whatever_the_range(filled):
    database, when = filled
    problems = []
    for name, filter in {
        "all": SampleFilter(),
        "since": SampleFilter(start=when),
        "a series": SampleFilter(equals={"meter": "cpu", "resource_id": "domain-00007"}),
        "all but a project": SampleFilter(expression=Comparison("project_id", "!=", "project-1")),
    }.items():
        page = lambda filter=filter: database.store.samples(filter, PAGE)  # noqa: E731
        rows = [row for row in await page()]
        assert len(rows) == min(PAGE, database.count(filter)) or name == "all but a project"
        # Ten meters of a domain share a timestamp; incremental sorting reads at least 32 rows at a time.
        problems += await rows_exceeded(database, name, page, PAGE, FACTOR * PAGE + 100)
    assert_none(problems)


@pytest_twisted.ensureDeferred
async def test_lists_of_resources_and_meters_look_up_each_series_and_do_not_scan_samples(filled):
    database, when = filled
    problems = []
    kinds: dict[str, Callable[[SampleFilter], Awaitable[Any]]] = {
        "resources": lambda filter: database.store.resources(filter, 1000),
        "meters": lambda filter: database.store.meters(filter, 10_000, False),
        "unique meters": lambda filter: database.store.meters(filter, 1000, True),
    }
    for kind, ask in kinds.items():
        for of_time, bounds in ranges(when).items():
            for what, fields in {
                "": {},
                " of a resource": {"equals": {"resource_id": "domain-00007"}},
                " of a project": {"equals": {"project_id": "project-3"}},
                " of a meter": {"equals": {"meter": "cpu"}},
                " with metadata": {"metadata": HOST},
                " with metadata that are nowhere": {"metadata": NOWHERE},
            }.items():
                filter = SampleFilter(**fields, **bounds)
                about = database.count(filter)
                if not filter.metadata:
                    about = min(about, WEEKS * database.size("series"))
                problems += await rows_exceeded(
                    database, f"{kind}{what}{of_time}", lambda ask=ask, filter=filter: ask(filter), about
                )
    assert_none(problems)


@pytest_twisted.ensureDeferred
async def test_sample_is_found_by_its_message_id_index(filled):
    database, when = filled
    problems = []
    every = [row[0] for row in database.execute("SELECT message_id::text FROM sample ORDER BY message_id")]
    generator = random.Random(1)
    for name in ["0" * 8 + "-0000-4000-8000-" + "0" * 12, *generator.sample(every, 3)]:
        for kind, ask in {
            "sample": lambda name=name: database.store.sample(name, SampleFilter()),
            "sample of a meter": lambda name=name: database.store.sample(name, SampleFilter(equals={"meter": "cpu"})),
            "sample since": lambda name=name: database.store.sample(name, SampleFilter(start=when)),
            "proof": lambda name=name: database.store.proof(name, SampleFilter()),
            "a few ids": lambda name=name: database.store.samples(
                SampleFilter(expression=And((In("message_id", (name, every[0])), Comparison("volume", ">=", 0)))),
                PAGE,
            ),
        }.items():
            # A proof also reads the other samples of the signed batch.
            problems += await rows_exceeded(database, kind, ask, 2, BATCH_SAMPLES if kind == "proof" else 0)
    assert_none(problems)


@pytest_twisted.ensureDeferred
async def test_live_stream_reads_only_what_was_recorded_since(filled):
    database, _ = filled
    everything, few = SampleFilter(), SampleFilter(equals={"meter": "cpu"})
    database.execute(f"UPDATE sample SET recorded_at = now() - interval '1 day' WHERE timestamp < '{MONDAY}'")
    [[since]] = database.execute("SELECT clock_timestamp()")
    await database.store.write(poll(THURSDAY + timedelta(minutes=30), range(700, 750), prefix="late-"))
    problems = []
    for name, filter in {"all": everything, "a meter": few, "metadata": SampleFilter(metadata=HOST)}.items():

        async def follow(filter: SampleFilter = filter) -> int:
            return sum([len(page) async for page in _recorded_since(database.store, filter, since)])  # type: ignore[arg-type]

        problems += await rows_exceeded(database, name, follow, 500, 100)
    assert_none(problems)


@pytest_twisted.ensureDeferred
async def test_verification_reads_a_page_at_a_time(filled):
    database, when = filled
    verification = Verification(database.store._readers._clock, "", clock=database.store._readers._clock)
    verification._connection = database.store._readers  # type: ignore[assignment]
    for meter in (None, "cpu"):
        _, read = await count_rows_read(
            database.store._readers,
            lambda meter=meter: verification._page("sample", when, when + timedelta(seconds=11), meter, None, 1000),
        )
        about = database.count(SampleFilter(start=when, end=when + timedelta(seconds=11)))
        assert read.tables["sample"] <= FACTOR * about, read.text()


@pytest_twisted.ensureDeferred
async def test_batches_without_rows_are_found_by_their_times(filled):
    database, when = filled
    verification = Verification(database.store._readers._clock, "", clock=database.store._readers._clock)
    verification._connection = database.store._readers  # type: ignore[assignment]
    end = when + timedelta(seconds=11)
    batches = [BatchTimes(2**40, when, when), BatchTimes(2**40 + 1, when, end - timedelta(seconds=1))]
    found, read = await count_rows_read(database.store._readers, lambda: verification.without_rows(batches))
    about = database.count(SampleFilter(start=when, end=end))
    assert (list(found), read.tables["sample"] <= FACTOR * about) == ([2**40, 2**40 + 1], True), read.text()


class RolledBack(Exception):
    """Raised to roll a transaction back."""


@pytest_twisted.ensureDeferred
async def test_finalizing_an_hour_reads_that_hour(filled):
    database, when = filled
    hour = when.replace(minute=0, second=0, microsecond=0)
    span = {
        "start": hour,
        "hours": 1,
        "max_metadata_runs": MAX_METADATA_RUNS,
        "max_alternations": MAX_ALTERNATIONS,
        "since": hour - timedelta(days=3),
        "until": hour + timedelta(hours=1),
    }
    read: list[RowsRead] = []

    async def work(session: Any) -> None:
        for statement in (NEXT_HOUR_TO_FINALIZE, FROM_SAMPLES):
            rows = RowsRead()
            [[[output]]] = await session.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", span)
            rows.add(output["Plan"])
            read.append(rows)
        raise RolledBack

    database.execute(f"DELETE FROM rollup WHERE start = '{hour}'")
    with pytest.raises(RolledBack):
        await database.store.maintenance._pool.run(work)
    next_hour, from_samples = read
    about = database.count(SampleFilter(start=hour, end=hour + timedelta(hours=1)))
    assert next_hour.tables["sample"] <= 100, next_hour.text()
    assert from_samples.tables["sample"] <= about, from_samples.text()
