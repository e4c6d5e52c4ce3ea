"""What samples refer to is read once and remembered: within bounds, and never for another database."""

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
from meter.store.query.runner import QueryRunner
from meter.store.write.record import WireFormat
from meter.store.write.record import text_of


class Database:
    """A pool that answers with the rows of ``tables`` by number, and remembers what it was asked for."""

    def __init__(self, tables: Mapping[str, dict[int, tuple[Any, ...]]], samples: Sequence[tuple[Any, ...]] = ()):
        self.tables = tables
        self.samples = samples
        self.asked: list[str] = []
        self.generation = 1

    async def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self.asked.append(statement)
        if statement not in self.tables:
            return list(self.samples)
        return [(n, *self.tables[statement][n]) for n in parameters[0] if n in self.tables[statement]]


def lookup_of(database: Any, most_characters: int = 1000) -> DimensionCache[str]:
    return DimensionCache(database, METADATA, str.upper, most_characters)


def texts(count: int, length: int = 1) -> Database:
    return Database({METADATA: {n: (chr(ord("a") + n) * length,) for n in range(count)}})


@pytest_twisted.ensureDeferred
async def test_what_is_remembered_is_not_asked_for_again() -> None:
    database = texts(4)
    lookup = lookup_of(database)

    assert await lookup.get_many({0, 1}) == {0: "A", 1: "B"}
    assert await lookup.get_many({1, 2}) == {1: "B", 2: "C"}
    assert await lookup.get_many({0, 1, 2}) == {0: "A", 1: "B", 2: "C"}
    assert len(database.asked) == 2


@pytest_twisted.ensureDeferred
async def test_what_is_not_there_is_left_out_and_asked_for_again() -> None:
    database = texts(1)
    lookup = lookup_of(database)

    assert await lookup.get_many({0, 7}) == {0: "A"}
    database.tables[METADATA][7] = ("h",)
    assert await lookup.get_many({0, 7}) == {0: "A", 7: "H"}


@pytest_twisted.ensureDeferred
async def test_nothing_is_remembered_of_a_database_that_was_connected_to_before() -> None:
    database = texts(2)
    lookup = lookup_of(database)
    await lookup.get_many({0, 1})

    database.generation += 1
    database.tables[METADATA][0] = ("z",)
    assert await lookup.get_many({0, 1}) == {0: "Z", 1: "B"}


@pytest_twisted.ensureDeferred
async def test_a_lookup_does_not_grow_without_bound_and_still_answers_all() -> None:
    database = texts(20, length=10)
    lookup = lookup_of(database, most_characters=60)

    assert len(await lookup.get_many(set(range(20)))) == 20
    for n in range(20):
        await lookup.get_many({n})
    assert len(lookup._young) + len(lookup._old) <= 8
    asked = len(database.asked)
    await lookup.get_many({19})
    assert len(database.asked) == asked


# --- as rows of samples need them -----------------------------------------------------------------------------------

FORM = WireFormat((), "T6", "int", (), "key-1")
SAMPLE = (1, 1, 1, "00000000-0000-4000-8000-000000000000", None, 1.0, "", "", None)


def of_samples(*samples: tuple[Any, ...]) -> Database:
    names = ("cpu", "cumulative", "ns", "vm", None, None, None)
    return Database({SERIES: {1: names}, METADATA: {1: ("{}",)}, WIRE_FORMATS: {1: (text_of(FORM),)}}, samples)


def reading(database: Any) -> QueryRunner:
    return QueryRunner(database, Clock(), 5.0)


@pytest_twisted.ensureDeferred
async def test_a_question_for_samples_is_one_statement_once_all_is_known() -> None:
    database = of_samples(SAMPLE)
    store = reading(database)
    await store.samples(SampleFilter(), 10)
    database.asked.clear()

    [sample] = await store.samples(SampleFilter(), 10)
    assert (sample.name, sample.volume, sample.key_id, len(database.asked)) == ("cpu", 1, "key-1", 1)


@pytest_twisted.ensureDeferred
async def test_samples_that_are_let_go_of_while_they_are_read_are_read_again() -> None:
    kept = SAMPLE
    database = of_samples(kept, (2, *SAMPLE[1:]))
    rows = database.rows

    async def swept_meanwhile(statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found = await rows(statement, parameters)
        database.samples = [kept, kept]
        return found

    database.rows = swept_meanwhile  # type: ignore[method-assign]
    assert len(await reading(database).samples(SampleFilter(), 2)) == 2


@pytest_twisted.ensureDeferred
async def test_a_sample_that_refers_to_nothing_is_left_out() -> None:
    database = of_samples(SAMPLE, (2, *SAMPLE[1:]))
    assert len(await reading(database).samples(SampleFilter(), 2)) == 1


@pytest_twisted.ensureDeferred
async def test_what_takes_too_long_is_the_fault_of_the_question_wherever_that_shows() -> None:
    database = of_samples(SAMPLE)
    rows = database.rows

    async def slow(statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        if statement == SERIES:
            raise TimedOut
        return await rows(statement, parameters)

    database.rows = slow  # type: ignore[method-assign]
    with pytest.raises(RequestError, match="longer than 5 s"):
        await reading(database).samples(SampleFilter(), 1)
