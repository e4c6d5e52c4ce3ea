"""Dimension tables: values that many samples share, stored once and referred to by id: series, metadata and wire formats.

Each row has a ``retained_until``: no sample of a later time refers to it. A writer upserts a row once for each week of samples,
which extends ``retained_until`` to the end of that week, and caches the id until then. Rows whose ``retained_until`` is before
all retained samples can therefore be deleted while others write: docs/decisions/0005-store-layout.rst.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any
from typing import Generic
from typing import NamedTuple
from typing import TypeVar
from typing import cast

from meter.store.postgres.pool import Session
from meter.store.write.known_dimensions import find_metadata
from meter.store.write.known_dimensions import find_series
from meter.store.write.record import Series
from meter.store.write.record import WireFormat
from meter.store.write.record import text_of

K = TypeVar("K", bound=Hashable)

NAMES = (
    ("resource", "resource_ids"),
    ('"user"', "user_ids"),
    ("project", "project_ids"),
    ("source", "sources"),
    ("run", "runs"),
)
"""Tables of names, in the order in which they are filled, each with the statement parameter that has its names."""

LOCK = 0x6D65746572_03
"""Key of the advisory lock that writers share while they insert series, so that names that these refer to are not deleted meanwhile."""

INSERT_NAMES = """
INSERT INTO meter (name, type, unit)
SELECT DISTINCT wanted.name, wanted.type, wanted.unit
FROM unnest(%(names)s::text[], %(types)s::text[], %(units)s::text[]) AS wanted (name, type, unit)
WHERE NOT EXISTS (SELECT FROM meter WHERE (meter.name, meter.type, meter.unit) = (wanted.name, wanted.type, wanted.unit))
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING;
""" + "".join(
    f"""
INSERT INTO {table} (name)
SELECT DISTINCT wanted.name COLLATE "C"
FROM unnest(%({parameter})s::text[]) AS wanted (name)
WHERE wanted.name IS NOT NULL AND NOT EXISTS (SELECT FROM {table} AS existing WHERE existing.name = wanted.name)
ORDER BY 1
ON CONFLICT DO NOTHING;
"""
    for table, parameter in NAMES
)

WANTED_SERIES = """
SELECT wanted.n, wanted.until, meter.id AS meter_id, resource.id AS resource_id, coalesce("user".id, 0) AS user_id,
    coalesce(project.id, 0) AS project_id, coalesce(source.id, 0) AS source_id,
    wanted.run_kind, coalesce(run.id, 0) AS run_id, wanted.polling_interval
FROM unnest(%(names)s::text[], %(types)s::text[], %(units)s::text[], %(resource_ids)s::text[], %(user_ids)s::text[],
    %(project_ids)s::text[], %(sources)s::text[], %(run_kinds)s::smallint[], %(runs)s::text[], %(intervals)s::float8[],
    %(untils)s::timestamptz[]) WITH ORDINALITY
    AS wanted (name, type, unit, resource_id, user_id, project_id, source, run_kind, run, polling_interval, until, n)
JOIN meter ON (meter.name, meter.type, meter.unit) = (wanted.name, wanted.type, wanted.unit)
JOIN resource ON resource.name = wanted.resource_id
LEFT JOIN "user" ON "user".name = wanted.user_id
LEFT JOIN project ON project.name = wanted.project_id
LEFT JOIN source ON source.name = wanted.source
LEFT JOIN run ON run.name = wanted.run
"""

SERIES_KEY = "meter_id, resource_id, user_id, project_id, source_id, run_kind, run_id, polling_interval"
SAME_SERIES = " AND ".join(f"series.{column} = wanted.{column}" for column in SERIES_KEY.split(", "))

# If the row is being deleted, the statement waits and inserts it again; a row that is being extended cannot be deleted.
EXTEND_RETENTION = "DO UPDATE SET retained_until = greatest({table}.retained_until, excluded.retained_until)"

UPSERT_SERIES = f"""
SELECT pg_advisory_xact_lock_shared({LOCK});
{INSERT_NAMES}
INSERT INTO series ({SERIES_KEY}, retained_until)
SELECT {SERIES_KEY}, until FROM ({WANTED_SERIES}) AS wanted
WHERE NOT EXISTS (SELECT FROM series WHERE {SAME_SERIES} AND series.retained_until >= wanted.until)
ORDER BY {SERIES_KEY}
ON CONFLICT ({SERIES_KEY}) {EXTEND_RETENTION.format(table="series")};
SELECT series.id FROM ({WANTED_SERIES}) AS wanted JOIN series ON {SAME_SERIES} ORDER BY wanted.n
"""

HASHED = (
    "SELECT n, text, until, sha256(convert_to(text, 'UTF8')) AS hash"
    " FROM unnest(%(texts)s::text[], %(untils)s::timestamptz[]) WITH ORDINALITY AS _ (text, until, n)"
)

UPSERT_TEXTS = f"""
INSERT INTO {{table}} (hash, text, retained_until {{column}})
SELECT hash, text, until {{value}} FROM ({HASHED}) AS wanted
WHERE NOT EXISTS (SELECT FROM {{table}} AS existing WHERE existing.hash = wanted.hash AND existing.retained_until >= wanted.until)
ORDER BY hash
ON CONFLICT (hash) {EXTEND_RETENTION};
SELECT existing.id FROM ({HASHED}) AS wanted JOIN {{table}} AS existing ON existing.hash = wanted.hash ORDER BY wanted.n
"""
UPSERT_METADATA = UPSERT_TEXTS.format(table="metadata", column=", document", value=", text::jsonb")
UPSERT_WIRE_FORMATS = UPSERT_TEXTS.format(table="wire_format", column="", value="")


class CachedId(NamedTuple):
    """The id of a row, valid for samples until the row's ``retained_until``."""

    id: int
    retained_until: datetime


class IdCache(Generic[K]):
    """Ids by key. It holds at most twice ``size`` of them, and drops those that were not used for longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, CachedId] = {}
        self._old: dict[K, CachedId] = {}

    def get_many(self, keys: Sequence[K], until: datetime) -> list[int | None]:
        """Return the cached id of each key, ``None`` where there is none or its row may be deleted before ``until``."""
        young, old = self._young, self._old
        found: list[int | None] = []
        for key in keys:
            cached = young.get(key)
            if cached is None and (cached := old.get(key)) is not None:
                self.update({key: cached})
                young, old = self._young, self._old
            found.append(None if cached is None or cached.retained_until < until else cached.id)
        return found

    def update(self, found: Mapping[K, CachedId]) -> None:
        """Add ids to the cache."""
        self._young.update(found)
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Drop all ids."""
        self._young = {}
        self._old = {}


async def ids_of(
    cache: IdCache[K],
    keys: Sequence[K],
    until: datetime,
    upsert: Callable[[Mapping[K, datetime]], Awaitable[Sequence[int]]],
) -> tuple[list[int], dict[K, CachedId]]:
    """Return the id of each of ``keys``, and what is to be added to ``cache`` once the transaction is committed.

    The samples that refer to them are not of a later time than ``until``. ``upsert`` is called with the keys that are not
    cached, and with this time.
    """
    found = cache.get_many(keys, until)
    if None not in found:
        return cast("list[int]", found), {}
    missing = dict.fromkeys((key for key, id in zip(keys, found, strict=True) if id is None), until)
    upserted = dict(zip(missing, await upsert(missing), strict=True))
    ids = [upserted[key] if id is None else id for key, id in zip(keys, found, strict=True)]
    return ids, {key: CachedId(id, until) for key, id in upserted.items()}


async def series_ids(session: Session, wanted: Mapping[Series, datetime]) -> list[int]:
    """Return the ids of ``wanted``, in order: of series that the store has and retains long enough, or upserted ones."""
    found = await find_series(session, wanted, max(wanted.values()))
    return await _all_ids(wanted, found, partial(upsert_series, session))


async def metadata_ids(
    session: Session, texts: Callable[[], Mapping[bytes, str]], wanted: Mapping[bytes, datetime]
) -> list[int]:
    """Return the ids of ``wanted``, digests of metadata whose JSON is in ``texts()``; see :func:`series_ids`."""
    found = await find_metadata(session, wanted, max(wanted.values()))
    return await _all_ids(wanted, found, partial(upsert_metadata, session, texts))


async def _all_ids(
    wanted: Mapping[K, datetime],
    found: Mapping[K, int],
    upsert: Callable[[Mapping[K, datetime]], Awaitable[Sequence[int]]],
) -> list[int]:
    ids = dict(found)
    if missing := {each: until for each, until in wanted.items() if each not in found}:
        ids.update(zip(missing, await upsert(missing), strict=True))
    return [ids[each] for each in wanted]


async def upsert_series(session: Session, wanted: Mapping[Series, datetime]) -> list[int]:
    """Return the ids of ``wanted``, in order; insert missing rows, and extend ``retained_until`` to the given times.

    All collectors fill the tables in the same order, and each table in the order of its keys: they may wait for each other,
    but do not deadlock.
    """
    columns: Sequence[Sequence[Any]] = list(zip(*wanted, strict=True))
    labels = (
        "names",
        "types",
        "units",
        "resource_ids",
        "user_ids",
        "project_ids",
        "sources",
        "run_kinds",
        "runs",
        "intervals",
    )
    parameters = {label: list(column) for label, column in zip(labels, columns, strict=True)}
    return _ids(await session.rows(UPSERT_SERIES, {**parameters, "untils": list(wanted.values())}))


async def upsert_metadata(
    session: Session, texts: Callable[[], Mapping[bytes, str]], wanted: Mapping[bytes, datetime]
) -> list[int]:
    """Return the ids of ``wanted``, digests of metadata whose JSON is in ``texts()``; see :func:`upsert_series`."""
    by_digest = texts()
    parameters = {"texts": [by_digest[hash_] for hash_ in wanted], "untils": list(wanted.values())}
    return _ids(await session.rows(UPSERT_METADATA, parameters))


async def upsert_wire_formats(session: Session, wanted: Mapping[WireFormat, datetime]) -> list[int]:
    """Return the ids of ``wanted``; see :func:`upsert_series`."""
    parameters = {"texts": [text_of(wire_format) for wire_format in wanted], "untils": list(wanted.values())}
    return _ids(await session.rows(UPSERT_WIRE_FORMATS, parameters))


def _ids(rows: Collection[Sequence[Any]]) -> list[int]:
    return [id for [id] in rows]
