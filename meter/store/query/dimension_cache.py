"""Caches of dimension rows by id: series, metadata and wire formats, which many samples share.

Samples are joined with them here, as joining in PostgreSQL and sending the same texts with each row takes longer:
docs/decisions/0007-joining-in-memory.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Set
from sys import intern
from typing import Any
from typing import Generic
from typing import TypeVar

import msgspec

from meter.daemon.shared_slices import OwnedSlices
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

WIRE_FORMATS = "SELECT id, text FROM wire_format WHERE id = ANY(%s)"

MAX_CHARACTERS_OF_SERIES = 2**23
"""About 50 000 series. They share all texts except the resource id; their memory is about twice as many bytes."""

MAX_CHARACTERS_OF_METADATA = 2**21
"""Decoded documents take about ten times as many bytes."""


class DimensionCache(Generic[T]):
    """The rows of one dimension table by id. Ids are assigned once and never reused.

    Ids that are not cached are looked up over ``pool`` with ``statement``, whose rows are an id and texts; ``decode`` makes the
    cached value of the texts. The least recently loaded are dropped so that the texts have at most ``max_characters``.
    """

    def __init__(self, pool: Pool, statement: str, decode: Callable[..., T], max_characters: int) -> None:
        self._pool = pool
        self._statement = statement
        self._decode = decode
        self._max_characters = max_characters
        self._generation = 0
        self._characters = 0
        self._young: dict[int, T] = {}
        self._old: dict[int, T] = {}

    async def get_many(self, ids: Set[int], slices: OwnedSlices | None = None) -> Mapping[int, T]:
        """Return the values of ``ids``, without those whose rows have been deleted. New ones are decoded in ``slices``."""
        if self._generation != self._pool.generation:
            self._clear()  # after a failover an id may belong to another row
        generation = self._generation = self._pool.generation
        found = {id: value for id in ids if (value := self._young.get(id, self._old.get(id))) is not None}
        if missing := ids - found.keys():
            for id, *texts in await self._pool.rows(self._statement, [list(missing)]):
                if slices is not None and slices.over:
                    await slices.pause()
                found[id] = self._decode(*texts)
                if generation == self._pool.generation:
                    self._add(id, found[id], texts)
        return found

    def _add(self, id: int, value: T, texts: list[str | None]) -> None:
        self._young[id] = value
        self._characters += sum(map(len, filter(None, texts)))
        if self._characters > self._max_characters / 2:
            self._old, self._young, self._characters = self._young, {}, 0

    def _clear(self) -> None:
        self._old, self._young, self._characters = {}, {}, 0


class DimensionCaches:
    """The caches of everything that a row of ``sample`` refers to. Decoded metadata are shared by samples: do not mutate them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._generation = 0
        self._token = object()
        self.series: DimensionCache[Series] = DimensionCache(pool, SERIES, _series, MAX_CHARACTERS_OF_SERIES)
        self.metadata: DimensionCache[Mapping[str, Any]] = DimensionCache(
            pool, METADATA, msgspec.json.decode, MAX_CHARACTERS_OF_METADATA
        )
        self.wire_formats: DimensionCache[WireFormat] = DimensionCache(
            pool, WIRE_FORMATS, wire_format_of, MAX_CHARACTERS_OF_METADATA
        )

    @property
    def token(self) -> object:
        """An object as long as the ids mean the same, and another one after a connection was made: it may be to another server."""
        if self._generation != self._pool.generation:
            self._generation, self._token = self._pool.generation, object()
        return self._token


def _series(*texts: Any) -> Series:
    """Return a series without its run, which results contain only as part of the metadata."""
    name, type_, unit, resource_id, user_id, project_id, source = [text and intern(text) for text in texts]
    return Series(name, type_, unit, resource_id, user_id, project_id, source)
