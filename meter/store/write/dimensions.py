"""What many samples have in common, stored once and known by number: series, metadata, forms.

Each row says until when it may be needed: no sample of a later time refers to it. Whoever writes looks a row up once for
each week of samples, which moves that on, and remembers the number until then. So what lies before all that is kept,
and before what may be written, can be swept beside any number of writers: docs/decisions/0005-store-layout.rst.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

from meter.store.postgres.pool import Session
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
"""Tables of names, in the order in which they are filled, and the parameter each is filled from."""

LOCK = 0x6D65746572_03
"""Key of the advisory lock that makers of series share: nobody sweeps the names that a series is about to refer to."""

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
WHERE wanted.name IS NOT NULL AND NOT EXISTS (SELECT FROM {table} AS known WHERE known.name = wanted.name)
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

# A row that is swept in this moment is waited for and made anew; one that is moved on cannot be swept.
MOVE_ON = "DO UPDATE SET retained_until = greatest({table}.retained_until, excluded.retained_until)"

RESOLVE_SERIES = f"""
SELECT pg_advisory_xact_lock_shared({LOCK});
{INSERT_NAMES}
INSERT INTO series ({SERIES_KEY}, retained_until)
SELECT {SERIES_KEY}, until FROM ({WANTED_SERIES}) AS wanted
WHERE NOT EXISTS (SELECT FROM series WHERE {SAME_SERIES} AND series.retained_until >= wanted.until)
ORDER BY {SERIES_KEY}
ON CONFLICT ({SERIES_KEY}) {MOVE_ON.format(table="series")};
SELECT series.id FROM ({WANTED_SERIES}) AS wanted JOIN series ON {SAME_SERIES} ORDER BY wanted.n
"""

HASHED = (
    "SELECT n, text, until, sha256(convert_to(text, 'UTF8')) AS hash"
    " FROM unnest(%(texts)s::text[], %(untils)s::timestamptz[]) WITH ORDINALITY AS _ (text, until, n)"
)

RESOLVE_TEXTS = f"""
INSERT INTO {{table}} (hash, text, retained_until {{column}})
SELECT hash, text, until {{value}} FROM ({HASHED}) AS wanted
WHERE NOT EXISTS (SELECT FROM {{table}} AS known WHERE known.hash = wanted.hash AND known.retained_until >= wanted.until)
ORDER BY hash
ON CONFLICT (hash) {MOVE_ON};
SELECT known.id FROM ({HASHED}) AS wanted JOIN {{table}} AS known ON known.hash = wanted.hash ORDER BY wanted.n
"""
RESOLVE_METADATA = RESOLVE_TEXTS.format(table="metadata", column=", document", value=", text::jsonb")
RESOLVE_FORMS = RESOLVE_TEXTS.format(table="wire_format", column="", value="")


class CachedId(NamedTuple):
    """A number, and until when the row that has it stays."""

    number: int
    until: datetime


class IdCache(Generic[K]):
    """Numbers by what they stand for, at most twice ``size`` of them; those not asked for in a while are forgotten."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, CachedId] = {}
        self._old: dict[K, CachedId] = {}

    def known(self, untils: Mapping[K, datetime]) -> dict[K, int]:
        """Return the numbers of the keys of ``untils`` that are remembered and stay until then."""
        found = {}
        for key, until in untils.items():
            known = self._young.get(key)
            if known is None and (known := self._old.get(key)) is not None:
                self.update({key: known})
            if known is not None and known.until >= until:
                found[key] = known.number
        return found

    def update(self, found: Mapping[K, CachedId]) -> None:
        """Remember what was found."""
        self._young.update(found)
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Forget all."""
        self._young = {}
        self._old = {}


async def numbers(
    memory: IdCache[K],
    untils: Mapping[K, datetime],
    resolve: Callable[[Mapping[K, datetime]], Awaitable[Sequence[int]]],
) -> tuple[dict[K, int], dict[K, CachedId]]:
    """Return the number of each key of ``untils``, and what was not remembered: to be so once this is committed."""
    found = memory.known(untils)
    unknown = {key: until for key, until in untils.items() if key not in found}
    if not unknown:
        return found, {}
    resolved = dict(zip(unknown, await resolve(unknown), strict=True))
    return found | resolved, {key: CachedId(number, unknown[key]) for key, number in resolved.items()}


def digest(text: str) -> bytes:
    """Return the SHA-256 of ``text``: what metadata is known by."""
    return hashlib.sha256(text.encode()).digest()


async def upsert_series(session: Session, wanted: Mapping[Series, datetime]) -> list[int]:
    """Return the numbers of ``wanted``, in order, giving numbers to those that have none; each stays until then.

    All collectors fill the same tables in the same order and in the order of their keys: they wait for each other,
    never in a circle.
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
    return _numbers(await session.rows(RESOLVE_SERIES, {**parameters, "untils": list(wanted.values())}))


async def upsert_metadata(session: Session, texts: Mapping[bytes, str], wanted: Mapping[bytes, datetime]) -> list[int]:
    """Return the numbers of ``wanted``, digests of metadata whose JSON is among ``texts``; see :func:`resolve_series`."""
    asked = {"texts": [texts[hash_] for hash_ in wanted], "untils": list(wanted.values())}
    return _numbers(await session.rows(RESOLVE_METADATA, asked))


async def upsert_wire_formats(session: Session, wanted: Mapping[WireFormat, datetime]) -> list[int]:
    """Return the numbers of ``wanted``; see :func:`resolve_series`."""
    asked = {"texts": [text_of(wire_format) for wire_format in wanted], "untils": list(wanted.values())}
    return _numbers(await session.rows(RESOLVE_FORMS, asked))


def _numbers(rows: Collection[Sequence[Any]]) -> list[int]:
    return [number for [number] in rows]
