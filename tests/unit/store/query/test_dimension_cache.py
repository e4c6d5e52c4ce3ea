"""Rows of dimension tables are read once and cached, within bounds, and until the connection is replaced."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.interfaces import RequestError
from meter.query import SampleFilter
from meter.store.postgres.connection import TimedOut
from meter.store.query.dimension_cache import METADATA
from meter.store.query.dimension_cache import SERIES
from meter.store.query.dimension_cache import WIRE_FORMATS
from meter.store.query.dimension_cache import DimensionCache
from meter.store.query.newest_weeks import STORED_WEEKS
from meter.store.query.runner import QueryRunner
from meter.store.write.record import WireFormat
from meter.store.write.record import text_of


class Database:
    """A pool that returns the rows of ``tables`` by id, and records the statements."""

    def __init__(self, tables: Mapping[str, dict[int, tuple[Any, ...]]], samples: Sequence[tuple[Any, ...]] = ()):
        self.tables = tables
        self.samples = samples
        self.statements: list[str] = []
        self.generation = 1
        self.spread = False

    async def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self.statements.append(statement)
        if statement == STORED_WEEKS.text:
            return []
        if statement not in self.tables:
            return list(self.samples)
        return [(n, *self.tables[statement][n]) for n in parameters[0] if n in self.tables[statement]]


def cache_of(database: Any, max_characters: int = 1000) -> DimensionCache[str]:
    return DimensionCache(database, METADATA, str.upper, max_characters)


def texts(count: int, length: int = 1) -> Database:
    return Database({METADATA: {n: (chr(ord("a") + n) * length,) for n in range(count)}})


@pytest_twisted.ensureDeferred
async def test_cached_rows_are_not_read_again() -> None:
    database = texts(4)
    cache = cache_of(database)

    assert await cache.get_many({0, 1}) == {0: "A", 1: "B"}
    assert await cache.get_many({1, 2}) == {1: "B", 2: "C"}
    assert await cache.get_many({0, 1, 2}) == {0: "A", 1: "B", 2: "C"}
    assert len(database.statements) == 2


@pytest_twisted.ensureDeferred
async def test_missing_rows_are_omitted_and_read_again() -> None:
    database = texts(1)
    cache = cache_of(database)

    assert await cache.get_many({0, 7}) == {0: "A"}
    database.tables[METADATA][7] = ("h",)
    assert await cache.get_many({0, 7}) == {0: "A", 7: "H"}


@pytest_twisted.ensureDeferred
async def test_cache_is_cleared_when_a_connection_is_replaced() -> None:
    database = texts(2)
    cache = cache_of(database)
    await cache.get_many({0, 1})

    database.generation += 1
    database.tables[METADATA][0] = ("z",)
    assert await cache.get_many({0, 1}) == {0: "Z", 1: "B"}


@pytest_twisted.ensureDeferred
async def test_cache_is_bounded_and_still_returns_all_rows() -> None:
    database = texts(20, length=10)
    cache = cache_of(database, max_characters=60)

    assert len(await cache.get_many(set(range(20)))) == 20
    for n in range(20):
        await cache.get_many({n})
    assert len(cache._young) + len(cache._old) <= 8
    count = len(database.statements)
    await cache.get_many({19})
    assert len(database.statements) == count


# --- in queries for samples ----------------------------------------------------------------------------------------

WIRE_FORMAT = WireFormat((), "T6", "int", (), "key-1")
SAMPLE = (1, 1, 1, "00000000-0000-4000-8000-000000000000", None, 1.0, "", "", None)


def database_of(*samples: tuple[Any, ...]) -> Database:
    names = ("cpu", "cumulative", "ns", "vm", None, None, None)
    return Database({SERIES: {1: names}, METADATA: {1: ("{}",)}, WIRE_FORMATS: {1: (text_of(WIRE_FORMAT),)}}, samples)


def runner(database: Any) -> QueryRunner:
    return QueryRunner(database, Clock(), 5.0)


@pytest_twisted.ensureDeferred
async def test_query_for_samples_is_one_statement_once_all_dimensions_are_cached() -> None:
    database = database_of(SAMPLE)
    store = runner(database)
    await store.samples(SampleFilter(), 10)
    database.statements.clear()

    [sample] = await store.samples(SampleFilter(), 1)
    assert (sample.name, sample.volume, sample.key_id, len(database.statements)) == ("cpu", 1, "key-1", 1)


@pytest_twisted.ensureDeferred
async def test_page_is_read_again_if_samples_expire_meanwhile() -> None:
    sample = SAMPLE
    database = database_of(sample, (2, *SAMPLE[1:]))
    rows = database.rows

    async def expire_after_first_read(statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found = await rows(statement, parameters)
        database.samples = [sample, sample]
        return found

    database.rows = expire_after_first_read  # type: ignore[method-assign]
    assert len(await runner(database).samples(SampleFilter(), 2)) == 2


@pytest_twisted.ensureDeferred
async def test_sample_with_a_broken_reference_is_omitted() -> None:
    database = database_of(SAMPLE, (2, *SAMPLE[1:]))
    assert len(await runner(database).samples(SampleFilter(), 2)) == 1


@pytest_twisted.ensureDeferred
async def test_timeout_of_any_statement_is_a_request_error() -> None:
    database = database_of(SAMPLE)
    rows = database.rows

    async def slow(statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if statement == SERIES:
            raise TimedOut
        return await rows(statement, parameters)

    database.rows = slow  # type: ignore[method-assign]
    with pytest.raises(RequestError, match="longer than 5 s"):
        await runner(database).samples(SampleFilter(), 1)
