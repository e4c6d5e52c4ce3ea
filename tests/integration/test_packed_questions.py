"""Questions about packed samples have the answers that they had before, and read few rows, however wrong PostgreSQL's estimates are."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import NamedTuple

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import PostgresStore
from meter.store.maintenance.partitions import week_of
from meter.store.maintenance.verification import Verification
from meter.store.maintenance.voiding import Selection
from meter.store.packing.unpacking import unpack
from tests.integration.test_store_packing import changed
from tests.integration.test_store_plans import FACTOR
from tests.integration.test_store_plans import NEW_WEEK
from tests.integration.test_store_plans import NO_STATISTICS
from tests.integration.test_store_plans import PAGE
from tests.integration.test_store_plans import THURSDAY
from tests.integration.test_store_plans import Database
from tests.integration.test_store_plans import page_queries
from tests.integration.test_store_plans import statistics_queries
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.plans import count_rows_read
from tests.store_messages import message

pytestmark = pytest.mark.timeout(240)

POLLS = 60
OLD = datetime.combine(week_of(datetime.now(UTC)), datetime.min.time(), UTC) - timedelta(weeks=3)
END_OF_ROW = PAGE + 4
"""Elements at the end of a packed row that are unpacked for a page: a few more than the page has rows."""


OF_NEWEST = frozenset(
    {
        "a page of all",
        "a later page of all",
        "a page of a meter",
        "a page of a project",
        "resources of {}",
        "meters of {}",
    }
)
"""Questions that read the ends of the rows, however long these are."""


class Question(NamedTuple):
    """Something to ask, about ``samples`` that are in its range, and the answer before they were packed."""

    ask: Callable[[], Awaitable[Any]]
    samples: int
    answer: str


@pytest.fixture(scope="module")
def packed(request):
    """``(database, questions)``: two minutes of polls that are packed; PostgreSQL has statistics of nothing."""
    postgresql = request.getfixturevalue("postgresql")
    dsn = postgresql.dsn()
    opening = running(dsn)

    async def fill(store: PostgresStore) -> tuple[Database, dict[str, Question]]:
        await store.maintenance._partitions.ensure([THURSDAY, NEW_WEEK])
        postgresql.execute(NO_STATISTICS, dsn)
        database = Database(store, lambda statement: postgresql.execute(statement, dsn))
        await database.polled(THURSDAY, POLLS)
        # The repeated samples were recorded in the future, which is not packed.
        database.execute("UPDATE sample SET recorded_at = recorded_at - interval '1 hour'")
        questions = {
            name: Question(ask, database.count(filter), rounded(await ask()))
            for name, (filter, ask) in asked(store).items()
        }
        pack_all_blocking(dsn)
        return database, questions

    store = pytest_twisted.blockon(Deferred.fromCoroutine(opening.__aenter__()))
    try:
        yield pytest_twisted.blockon(Deferred.fromCoroutine(fill(store)))
    finally:
        pytest_twisted.blockon(Deferred.fromCoroutine(opening.__aexit__(None, None, None)))


def rounded(answer: Any) -> str:
    """Return ``answer`` as text. Sums depend in their last digit on the order in which samples are read."""
    return re.sub(r"\d+\.\d+(e[-+]\d+)?", lambda number: f"{float(number[0]):.10g}", repr(answer))


def asked(store: PostgresStore) -> dict[str, tuple[SampleFilter, Callable[[], Awaitable[Any]]]]:
    """Return what is asked, by name: the filter and the function that asks."""
    found: dict[str, tuple[SampleFilter, Callable[[], Awaitable[Any]]]] = {}
    for name, query in statistics_queries(THURSDAY).items():
        found[name] = query.filter, lambda query=query: store.statistics(query)
    for name, (filter, more) in page_queries(THURSDAY).items():
        found[name] = filter, lambda filter=filter, more=more: store.samples(filter, PAGE, **more)
    for filter in (SampleFilter(), SampleFilter(equals={"project_id": "project-3"})):
        found[f"resources of {filter.equals}"] = filter, lambda filter=filter: store.resources(filter, 1000)
        found[f"meters of {filter.equals}"] = filter, lambda filter=filter: store.meters(filter, 10_000, False)
        found[f"unique meters of {filter.equals}"] = filter, lambda filter=filter: store.meters(filter, 1000, True)
    return found


@pytest_twisted.ensureDeferred
async def test_questions_about_packed_samples_have_the_same_answers_and_read_few_rows(packed):
    database, questions = packed
    assert database.execute("SELECT sum(count), (SELECT count(*) FROM sample) FROM packed_samples") == [
        (600 * (POLLS + 1), 0)
    ]
    series = database.size("series")
    problems = []
    for name, question in questions.items():
        found, read = await count_rows_read(database.store._readers, question.ask)
        if rounded(found) != question.answer:
            problems.append(f"{name}: another answer")
        # Slices of arrays have a few elements more than the range, of each series.
        allowed = (0 if name in OF_NEWEST else FACTOR * question.samples) + END_OF_ROW * series
        if (unpacked := sum(rows for alias, rows in read.intermediate.items() if alias[:2] in ("u", "u_"))) > allowed:
            problems.append(f"{name}: {unpacked} samples were unpacked, of {question.samples}:\n{read.text()}")
        if (
            rows := sum(rows for table, rows in read.tables.items() if table.startswith("packed_samples"))
        ) > 8 * series:
            problems.append(f"{name}: {rows} packed rows were read:\n{read.text()}")
    assert not problems, "\n".join(problems[:3])


@pytest_twisted.ensureDeferred
async def test_newest_page_of_all_unpacks_no_more_series_than_it_has_samples(packed):
    database, _ = packed
    page, read = await count_rows_read(database.store._readers, lambda: database.store.samples(SampleFilter(), PAGE))
    assert len(page) == PAGE
    series = PAGE + 10  # ten meters of a domain have the same time
    assert sum(rows for alias, rows in read.intermediate.items() if alias[:2] in ("u", "u_")) <= 2 * 5 * series
    assert sum(rows for table, rows in read.tables.items() if table.startswith("packed_samples")) <= 5 * series, (
        read.text()
    )


@pytest_twisted.ensureDeferred
async def test_verification_reads_packed_samples_in_the_order_of_time_a_few_pages_at_a_time(packed):
    database, _ = packed
    verification = Verification(database.store._readers._clock, "", clock=database.store._readers._clock)
    verification._connection = database.store._readers  # type: ignore[assignment]

    async def read(page_rows: int, meter: str | None = None) -> list[Any]:
        pages = [page async for page in verification.pages(None, None, meter, page_rows)]
        assert {len(page) for page in pages[:-1]} <= {page_rows}
        return [(row.timestamp, row.message_id) for page in pages for row in page]

    everything = await read(1000)
    assert everything == sorted(everything)
    assert len(set(everything)) == 600 * (POLLS + 1)
    assert await read(397) == everything
    assert len(await read(1000, "cpu")) == 60 * (POLLS + 1)


@pytest_twisted.ensureDeferred
async def test_questions_have_the_same_answers_while_some_series_are_packed_and_others_are_not(packed):
    database, questions = packed

    async def unpack_some(session: Any) -> int:
        some = [id for [id] in await session.rows("SELECT id FROM series WHERE id % 3 = 0")]
        return await unpack(session, some, week_of(THURSDAY))

    assert await database.store.maintenance._pool.run(unpack_some)

    different = [name for name, question in questions.items() if rounded(await question.ask()) != question.answer]
    assert not different


@pytest_twisted.ensureDeferred
async def test_hour_is_final_again_after_its_only_plain_sample_was_voided(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        written = [message("cpu", n, at=OLD + timedelta(minutes=20 * n), resource_id=f"r{n % 2}") for n in range(6)]
        written.append(message("cpu", 100, at=OLD + timedelta(minutes=5), resource_id="r2"))
        await store.maintenance._partitions.ensure([OLD])
        await store.write(written)
        await store.maintenance.finalize(OLD + timedelta(days=1, hours=1))
        pack_all_blocking(dsn)

        await changed(dsn, "void", Selection(ids=[written[-1].message_id]))
        assert postgresql.execute("SELECT count(*) FROM sample", dsn) == [(0,)]
        await store.maintenance.finalize(OLD + timedelta(days=1, hours=1))

        assert postgresql.execute("SELECT count(*) FROM final_period WHERE hours = 1", dsn) == [(2,)]
        assert postgresql.execute("SELECT count(*) FROM final_period WHERE hours = 24", dsn) == [(1,)]
        for bounds in ({}, {"start": OLD, "end": OLD + timedelta(hours=1)}):
            [found] = await store.statistics(StatisticsQuery(filter=SampleFilter(equals={"meter": "cpu"}, **bounds)))
            assert (found.values["count"], found.values["max"]) == ((3, 2) if bounds else (6, 5))
