"""No question reads more than three times the rows that it is about, whatever PostgreSQL expects to find.

Stores are filled so that PostgreSQL's statistics are missing, stale or right, and each kind of question is asked of each
with ``EXPLAIN (ANALYZE)``. What is counted is the rows that scans passed, never time.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from meter.api.streaming.live import _recorded_since
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
from meter.store.maintenance.verification import Verification
from tests.integration.test_store_rollups import running
from tests.plans import QueryRunner
from tests.plans import reading_of
from tests.store_messages import message

pytestmark = pytest.mark.timeout(240)

MONDAY = datetime.combine(week_of(datetime.now(UTC)), datetime.min.time(), UTC)
"""The week that runs. Samples are of the two before."""

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
"""In so many weeks there are samples: the newest of a series is looked for in each."""

PAGE = 20
FACTOR = 3
"""So many times the rows of its range a question may read."""

# The samples of a poll again, ``polls`` times, every ``seconds``; each with metadata of its own where ``changing``.
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
    """Return the messages of a poll of ``domains``, each a millisecond after the one before."""
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
class House:
    """A store under test, and SQL beside it."""

    store: PostgresStore
    execute: Callable[[str], list[tuple[Any, ...]]]
    counted: dict[str, int] = field(default_factory=dict)

    async def polled(self, at: datetime, polls: int, seconds: int = 2, **domains: Any) -> None:
        """Store a poll as a collector does, and ``polls`` more like it."""
        messages = poll(at, **domains)
        for first in range(0, len(messages), 500):
            await self.store.write(messages[first : first + 500])
        self.execute(AGAIN.format(at=at, polls=polls, seconds=seconds))

    def count(self, filter: SampleFilter) -> int:
        """Return how many samples there are in the range of ``filter``: of its series and its time."""
        bounds = [f"{OF_SERIES[name]} = '{value}'" for name, value in filter.equals.items() if name != "message_id"]
        bounds += [f"s.timestamp >= '{filter.start}'"] if filter.start else []
        bounds += [f"s.timestamp < '{filter.end}'"] if filter.end else []
        return self._count(
            "SELECT count(*) FROM sample s JOIN series x ON x.id = s.series_id"
            " JOIN (SELECT id, name AS meter FROM meter) m ON m.id = x.meter_id"
            " JOIN (SELECT id AS resource, name AS resource_id FROM resource) r ON r.resource = x.resource_id"
            " LEFT JOIN (SELECT id AS project, name AS project_id FROM project) p ON p.project = x.project_id"
            f" WHERE {' AND '.join(bounds) or 'true'}"
        )

    def size(self, table: str) -> int:
        """Return how many rows ``table`` has."""
        return self._count(f'SELECT count(*) FROM "{table}"')

    def _count(self, statement: str) -> int:
        if statement not in self.counted:
            [[self.counted[statement]]] = self.execute(statement)
        return self.counted[statement]


# --- stores that PostgreSQL misjudges ------------------------------------------------------------------------------


async def young(house: House) -> datetime:
    """A minute old, and nobody has looked at it."""
    await house.polled(THURSDAY, 29)
    return THURSDAY


async def looked_at_too_early(house: House) -> datetime:
    """Statistics are those of the very first batch: each series had one sample then."""
    await house.store.write(poll(THURSDAY)[:100])
    house.execute("ANALYZE")
    await house.polled(THURSDAY, 29)
    return THURSDAY


async def looked_at_while_empty(house: House) -> datetime:
    """Statistics say that there is nothing."""
    house.execute("VACUUM ANALYZE")
    await house.polled(THURSDAY, 29)
    return THURSDAY


async def monday_morning(house: House) -> datetime:
    """A week that PostgreSQL knows well, settled, and a minute of a new one in a partition that it does not know."""
    await house.polled(THURSDAY, 29, seconds=300)
    await house.store.maintenance.finalize(THURSDAY + timedelta(hours=2))
    house.execute("VACUUM ANALYZE")
    await house.polled(NEW_WEEK + timedelta(hours=5), 29)
    return NEW_WEEK + timedelta(hours=5)


async def middle_of_a_week(house: House) -> datetime:
    """Statistics are right, and all but the last hour is settled."""
    await house.polled(THURSDAY - timedelta(hours=2), 35, seconds=300)
    await house.store.maintenance.finalize(THURSDAY)
    house.execute("VACUUM ANALYZE")
    return THURSDAY


async def metadata_that_always_change(house: House) -> datetime:
    """As many metadata documents as samples, which PostgreSQL expects to be few."""
    house.execute("ANALYZE")
    await house.polled(THURSDAY, 29)
    house.execute(CHANGING.format(times=310))
    return THURSDAY


async def many_series_that_ended(house: House) -> datetime:
    """Two thousand series that had their last samples a day before; statistics are of that day."""
    await house.polled(THURSDAY - timedelta(days=1), 1, domains=range(200), prefix="gone-")
    house.execute("VACUUM ANALYZE")
    await house.polled(THURSDAY, 29)
    return THURSDAY


STORES = (
    young,
    looked_at_too_early,
    looked_at_while_empty,
    monday_morning,
    middle_of_a_week,
    metadata_that_always_change,
    many_series_that_ended,
)


@pytest.fixture(scope="module", params=STORES, ids=lambda made: made.__name__)
def filled(request):
    """One store of each sort for all questions: ``(house, when)``, a minute (or two hours) of samples from ``when`` on."""
    postgresql = request.getfixturevalue("postgresql")
    dsn = postgresql.dsn()
    opening = running(dsn)

    async def fill(store: PostgresStore) -> tuple[House, datetime]:
        await store.maintenance._partitions.ensure([THURSDAY, NEW_WEEK])
        postgresql.execute(NO_STATISTICS, dsn)
        house = House(store, lambda statement: postgresql.execute(statement, dsn))
        return house, await request.param(house)

    store = pytest_twisted.blockon(Deferred.fromCoroutine(opening.__aenter__()))
    try:
        yield pytest_twisted.blockon(Deferred.fromCoroutine(fill(store)))
    finally:
        pytest_twisted.blockon(Deferred.fromCoroutine(opening.__aexit__(None, None, None)))


# --- questions -----------------------------------------------------------------------------------------------------


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


def statistics_questions(when: datetime) -> dict[str, StatisticsQuery]:
    asked = {}
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
        asked |= {
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
    return asked


def page_questions(when: datetime) -> dict[str, tuple[SampleFilter, dict[str, Any]]]:
    asked: dict[str, tuple[SampleFilter, dict[str, Any]]] = {}
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
            asked[f"a page of {of_what}{of_time}"] = filter, {}
            asked[f"a later page of {of_what}{of_time}"] = (
                filter,
                {"after": Marker(when + timedelta(seconds=31), "f" * 32)},
            )
        for n, order in enumerate(
            ((Order("volume"),), (Order("resource_id"), Order("timestamp")), (Order("recorded_at", True),))
        ):
            asked[f"{n}. order of a meter{of_time}"] = SampleFilter(equals={"meter": "cpu"}, **bounds), {"order": order}
            asked[f"{n}. order of metadata{of_time}"] = SampleFilter(metadata=HOST, **bounds), {"order": order}
            asked[f"{n}. order of all{of_time}"] = SampleFilter(**bounds), {"order": order}
    return asked


def broken(house: House, reading: QueryRunner, rows: int, more: int = 0) -> list[str]:
    """Say where ``reading`` breaks the law for a question about ``rows`` samples; ``more`` may be read whatever it is about."""
    series = house.size("series")
    allowed = FACTOR * rows + more
    said = []
    if (read := reading.rows["sample"] + reading.rows["rollup"]) > allowed:
        said.append(f"{read} samples and rollups")
    if reading.rows["metadata"] > allowed:
        said.append(f"{reading.rows['metadata']} metadata")
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
        # A dictionary may be looked through, and a row of it for each sample.
        if reading.rows[table] > allowed + FACTOR * (house.size(table) + series):
            said.append(f"{reading.rows[table]} rows of {table}")
    for name, passed in reading.aside.items():
        if passed > allowed + FACTOR * series:
            said.append(f"{passed} rows put aside as {name}")
    return said


async def judged(
    house: House, name: str, question: Callable[[], Awaitable[Any]], rows: int, more: int = 0
) -> list[str]:
    """Ask ``question`` and return a line if it breaks the law."""
    _, reading = await reading_of(house.store._readers, question)
    said = broken(house, reading, rows, more)
    return [f"{name}, about {rows} samples, read {', '.join(said)}:\n{reading.described()}"] if said else []


def verdict(lines: list[str]) -> None:
    assert not lines, f"{len(lines)} questions read too much, the first:\n" + "\n\n".join(lines[:3])


@pytest_twisted.ensureDeferred
async def test_statistics_read_no_more_than_three_times_their_range(filled):
    house, when = filled
    lines = []
    for name, query in statistics_questions(when).items():
        lines += await judged(house, name, lambda query=query: house.store.statistics(query), house.count(query.filter))
    verdict(lines)


@pytest_twisted.ensureDeferred
async def test_pages_and_complex_queries_read_no_more_than_three_times_their_range_and_three_pages(filled):
    house, when = filled
    lines = []
    for name, (filter, more) in page_questions(when).items():
        ask = lambda filter=filter, more=more: house.store.samples(filter, PAGE, **more)  # noqa: E731
        # The newest samples of all are glanced at; one of each week is taken to find out which are the newest.
        lines += await judged(house, name, ask, house.count(filter), FACTOR * PAGE + 100)
    verdict(lines)


@pytest_twisted.ensureDeferred
async def test_the_newest_page_reads_a_page_and_not_its_range(filled):
    house, when = filled
    lines = []
    for name, filter in {
        "all": SampleFilter(),
        "since": SampleFilter(start=when),
        "a series": SampleFilter(equals={"meter": "cpu", "resource_id": "domain-00007"}),
        "all but a project": SampleFilter(expression=Comparison("project_id", "!=", "project-1")),
    }.items():
        page = lambda filter=filter: house.store.samples(filter, PAGE)  # noqa: E731
        rows = [row for row in await page()]
        assert len(rows) == min(PAGE, house.count(filter)) or name == "all but a project"
        # Ten meters of a domain share a moment; sorting by id within a moment takes at least 32 at a time.
        lines += await judged(house, name, page, PAGE, FACTOR * PAGE + 100)
    verdict(lines)


@pytest_twisted.ensureDeferred
async def test_lists_of_resources_and_meters_look_into_each_series_and_not_at_all_samples(filled):
    house, when = filled
    lines = []
    kinds: dict[str, Callable[[SampleFilter], Awaitable[Any]]] = {
        "resources": lambda filter: house.store.resources(filter, 1000),
        "meters": lambda filter: house.store.meters(filter, 10_000, False),
        "unique meters": lambda filter: house.store.meters(filter, 1000, True),
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
                about = house.count(filter)
                if not filter.metadata:
                    about = min(about, WEEKS * house.size("series"))
                lines += await judged(
                    house, f"{kind}{what}{of_time}", lambda ask=ask, filter=filter: ask(filter), about
                )
    verdict(lines)


@pytest_twisted.ensureDeferred
async def test_a_sample_is_found_by_its_id_alone(filled):
    house, when = filled
    lines = []
    every = [row[0] for row in house.execute("SELECT message_id::text FROM sample ORDER BY message_id")]
    drawn = random.Random(1)
    for name in ["0" * 8 + "-0000-4000-8000-" + "0" * 12, *drawn.sample(every, 3)]:
        for kind, ask in {
            "sample": lambda name=name: house.store.sample(name, SampleFilter()),
            "sample of a meter": lambda name=name: house.store.sample(name, SampleFilter(equals={"meter": "cpu"})),
            "sample since": lambda name=name: house.store.sample(name, SampleFilter(start=when)),
            "message": lambda name=name: house.store.message(name, SampleFilter()),
            "a few ids": lambda name=name: house.store.samples(
                SampleFilter(expression=And((In("message_id", (name, every[0])), Comparison("volume", ">=", 0)))),
                PAGE,
            ),
        }.items():
            lines += await judged(house, kind, ask, 2)
    verdict(lines)


@pytest_twisted.ensureDeferred
async def test_who_follows_reads_what_was_recorded_since_and_not_what_was_before(filled):
    house, _ = filled
    everything, few = SampleFilter(), SampleFilter(equals={"meter": "cpu"})
    house.execute(f"UPDATE sample SET recorded_at = now() - interval '1 day' WHERE timestamp < '{MONDAY}'")
    [[since]] = house.execute("SELECT clock_timestamp()")
    await house.store.write(poll(THURSDAY + timedelta(minutes=30), range(700, 750), prefix="late-"))
    lines = []
    for name, filter in {"all": everything, "a meter": few, "metadata": SampleFilter(metadata=HOST)}.items():

        async def follow(filter: SampleFilter = filter) -> int:
            return sum([len(page) async for page in _recorded_since(house.store, filter, since)])  # type: ignore[arg-type]

        lines += await judged(house, name, follow, 500, 100)
    verdict(lines)


@pytest_twisted.ensureDeferred
async def test_verification_reads_a_page_at_a_time(filled):
    house, when = filled
    verification = Verification(house.store._readers._clock, "", clock=house.store._readers._clock)
    verification._connection = house.store._readers  # type: ignore[assignment]
    for meter in (None, "cpu"):
        _, reading = await reading_of(
            house.store._readers,
            lambda meter=meter: verification._page(when, when + timedelta(seconds=11), meter, None, 1000),
        )
        about = house.count(SampleFilter(start=when, end=when + timedelta(seconds=11)))
        assert reading.rows["sample"] <= FACTOR * about, reading.described()


class Undone(Exception):
    """Rolls a transaction back."""


@pytest_twisted.ensureDeferred
async def test_settling_an_hour_reads_that_hour(filled):
    house, when = filled
    hour = when.replace(minute=0, second=0, microsecond=0)
    span = {
        "start": hour,
        "hours": 1,
        "max_metadata_runs": MAX_METADATA_RUNS,
        "max_alternations": MAX_ALTERNATIONS,
        "since": hour - timedelta(days=3),
        "until": hour + timedelta(hours=1),
    }
    readings: list[QueryRunner] = []

    async def work(session: Any) -> None:
        for statement in (NEXT_HOUR_TO_FINALIZE, FROM_SAMPLES):
            reading = QueryRunner()
            [[[explained]]] = await session.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", span)
            reading.add(explained["Plan"])
            readings.append(reading)
        raise Undone

    house.execute(f"DELETE FROM rollup WHERE start = '{hour}'")
    with pytest.raises(Undone):
        await house.store.maintenance._pool.run(work)
    looked, added = readings
    about = house.count(SampleFilter(start=hour, end=hour + timedelta(hours=1)))
    assert looked.rows["sample"] <= 100, looked.described()
    assert added.rows["sample"] <= about, added.described()
