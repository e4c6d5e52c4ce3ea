"""What samples refer to by number, read when first met and remembered: joining here spares PostgreSQL joining there."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Set
from sys import intern
from typing import Any
from typing import Generic
from typing import TypeVar

import msgspec

from meter.store.postgres.pool import Pool
from meter.store.write.record import Series
from meter.store.write.record import WireFormat
from meter.store.write.record import wire_format_of

T = TypeVar("T")

SERIES = """
SELECT x.id, m.name, m.type, m.unit, r.name, u.name, p.name, o.name
FROM series x
JOIN meter m ON m.id = x.meter_id
JOIN resource r ON r.id = x.resource_id
LEFT JOIN "user" u ON u.id = x.user_id
LEFT JOIN project p ON p.id = x.project_id
LEFT JOIN source o ON o.id = x.source_id
WHERE x.id = ANY(%s)
"""

METADATA = "SELECT id, text FROM metadata WHERE id = ANY(%s)"

FORMS = "SELECT id, text FROM wire_format WHERE id = ANY(%s)"

MOST_CHARACTERS_OF_SERIES = 2**23
"""Of some 50 000 series. They share all texts but the resource's, and take twice as many bytes."""

MOST_CHARACTERS_OF_METADATA = 2**21
"""What is decoded from them takes some ten times as many bytes."""


class DimensionCache(Generic[T]):
    """The things of one dictionary by their numbers, which are given once and never again.

    ``statement`` is asked over ``pool`` for those that are not remembered; its rows are a number and the texts that
    ``made`` makes a thing of. The oldest are forgotten when their texts have more than ``most_characters``.
    """

    def __init__(self, pool: Pool, statement: str, made: Callable[..., T], most_characters: int) -> None:
        self._pool = pool
        self._statement = statement
        self._made = made
        self._most_characters = most_characters
        self._generation = 0
        self._characters = 0
        self._young: dict[int, T] = {}
        self._old: dict[int, T] = {}

    async def get_many(self, numbers: Set[int]) -> Mapping[int, T]:
        """Return what ``numbers`` stand for, without those that are there no longer."""
        if self._generation != self._pool.generation:
            self._forget()  # after a failover a number may be that of something else
        generation = self._generation = self._pool.generation
        found = {
            number: thing for number in numbers if (thing := self._young.get(number, self._old.get(number))) is not None
        }
        if missing := numbers - found.keys():
            for number, *texts in await self._pool.rows(self._statement, [list(missing)]):
                found[number] = self._made(*texts)
                if generation == self._pool.generation:
                    self._remember(number, found[number], texts)
        return found

    def _remember(self, number: int, thing: T, texts: list[str | None]) -> None:
        self._young[number] = thing
        self._characters += sum(map(len, filter(None, texts)))
        if self._characters > self._most_characters / 2:
            self._old, self._young, self._characters = self._young, {}, 0

    def _forget(self) -> None:
        self._old, self._young, self._characters = {}, {}, 0


class DimensionCaches:
    """All that a row of ``sample`` refers to: its series, its metadata (decoded, and shared by samples), its form."""

    def __init__(self, pool: Pool) -> None:
        self.series: DimensionCache[Series] = DimensionCache(pool, SERIES, _series, MOST_CHARACTERS_OF_SERIES)
        self.metadata: DimensionCache[Mapping[str, Any]] = DimensionCache(
            pool, METADATA, msgspec.json.decode, MOST_CHARACTERS_OF_METADATA
        )
        self.forms: DimensionCache[WireFormat] = DimensionCache(
            pool, FORMS, wire_format_of, MOST_CHARACTERS_OF_METADATA
        )


def _series(*texts: Any) -> Series:
    """Return a series without its run, which no question shows but as part of the metadata."""
    name, type_, unit, resource_id, user_id, project_id, source = [text and intern(text) for text in texts]
    return Series(name, type_, unit, resource_id, user_id, project_id, source)
