"""What many samples have in common, stored once and known by number: series, metadata, forms."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Generic
from typing import TypeVar

from meter.store.pool import Session
from meter.store.record import Form
from meter.store.record import Series
from meter.store.record import text_of

K = TypeVar("K", bound=Hashable)

NAMES = (("resource", "resource_ids"), ('"user"', "user_ids"), ("project", "project_ids"), ("source", "sources"))
"""Tables of names, in the order in which they are filled, and the parameter each is filled from."""

INSERT_SERIES = """
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
SELECT wanted.n, meter.id AS meter_id, resource.id AS resource_id, coalesce("user".id, 0) AS user_id,
    coalesce(project.id, 0) AS project_id, coalesce(source.id, 0) AS source_id
FROM unnest(%(names)s::text[], %(types)s::text[], %(units)s::text[], %(resource_ids)s::text[], %(user_ids)s::text[],
    %(project_ids)s::text[], %(sources)s::text[])
    WITH ORDINALITY AS wanted (name, type, unit, resource_id, user_id, project_id, source, n)
JOIN meter ON (meter.name, meter.type, meter.unit) = (wanted.name, wanted.type, wanted.unit)
JOIN resource ON resource.name = wanted.resource_id
LEFT JOIN "user" ON "user".name = wanted.user_id
LEFT JOIN project ON project.name = wanted.project_id
LEFT JOIN source ON source.name = wanted.source
"""

SAME_SERIES = (
    "(series.meter_id, series.resource_id, series.user_id, series.project_id, series.source_id)"
    " = (wanted.meter_id, wanted.resource_id, wanted.user_id, wanted.project_id, wanted.source_id)"
)

RESOLVE_SERIES = f"""
{INSERT_SERIES}
INSERT INTO series (meter_id, resource_id, user_id, project_id, source_id)
SELECT meter_id, resource_id, user_id, project_id, source_id FROM ({WANTED_SERIES}) AS wanted
WHERE NOT EXISTS (SELECT FROM series WHERE {SAME_SERIES})
ORDER BY 1, 2, 3, 4, 5
ON CONFLICT DO NOTHING;
SELECT series.id FROM ({WANTED_SERIES}) AS wanted JOIN series ON {SAME_SERIES} ORDER BY wanted.n
"""

HASHED = "SELECT n, text, sha256(convert_to(text, 'UTF8')) AS hash FROM unnest(%(texts)s::text[]) WITH ORDINALITY AS _ (text, n)"

RESOLVE_METADATA = f"""
INSERT INTO metadata (hash, text, document)
SELECT hash, text, text::jsonb FROM ({HASHED}) AS wanted
WHERE NOT EXISTS (SELECT FROM metadata WHERE metadata.hash = wanted.hash)
ORDER BY hash
ON CONFLICT DO NOTHING;
SELECT metadata.id FROM ({HASHED}) AS wanted JOIN metadata ON metadata.hash = wanted.hash ORDER BY wanted.n
"""

RESOLVE_FORMS = f"""
INSERT INTO form (hash, text)
SELECT hash, text FROM ({HASHED}) AS wanted
WHERE NOT EXISTS (SELECT FROM form WHERE form.hash = wanted.hash)
ORDER BY hash
ON CONFLICT DO NOTHING;
SELECT form.id FROM ({HASHED}) AS wanted JOIN form ON form.hash = wanted.hash ORDER BY wanted.n
"""


class Memory(Generic[K]):
    """Numbers by what they stand for, at most twice ``size`` of them; those not asked for in a while are forgotten."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, int] = {}
        self._old: dict[K, int] = {}

    def get(self, key: K) -> int | None:
        """Return the number of ``key`` if it is remembered."""
        number = self._young.get(key)
        if number is None:
            number = self._old.get(key)
            if number is not None:
                self.update({key: number})
        return number

    def known(self, keys: Iterable[K]) -> dict[K, int | None]:
        """Return each of ``keys`` with its number, ``None`` where that is not remembered."""
        return {key: self.get(key) for key in dict.fromkeys(keys)}

    def update(self, numbers: Mapping[K, int]) -> None:
        """Remember ``numbers``."""
        self._young.update(numbers)
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Forget all."""
        self._young = {}
        self._old = {}


@dataclass(slots=True)
class Numbers:
    """What a transaction found out, to be remembered once it is committed."""

    series: dict[Series, int] = field(default_factory=dict)
    metadata: dict[bytes, int] = field(default_factory=dict)
    forms: dict[Form, int] = field(default_factory=dict)


def digest(text: str) -> bytes:
    """Return the SHA-256 of ``text``: what metadata is known by."""
    return hashlib.sha256(text.encode()).digest()


async def resolve_series(session: Session, wanted: Collection[Series]) -> dict[Series, int]:
    """Return the numbers of ``wanted``, giving numbers to those that have none.

    All collectors fill the same tables in the same order and in the order of their keys: they wait for each other,
    never in a circle.
    """
    columns: Sequence[Sequence[Any]] = list(zip(*wanted, strict=True))
    labels = ("names", "types", "units", "resource_ids", "user_ids", "project_ids", "sources")
    parameters = {label: list(column) for label, column in zip(labels, columns, strict=True)}
    rows = await session.rows(RESOLVE_SERIES, parameters)
    return {series: number for series, [number] in zip(wanted, rows, strict=True)}


async def resolve_metadata(session: Session, wanted: Mapping[bytes, str]) -> dict[bytes, int]:
    """Return the numbers of ``wanted``, JSON texts by their digest."""
    rows = await session.rows(RESOLVE_METADATA, {"texts": list(wanted.values())})
    return {hash_: number for hash_, [number] in zip(wanted, rows, strict=True)}


async def resolve_forms(session: Session, wanted: Collection[Form]) -> dict[Form, int]:
    """Return the numbers of ``wanted``."""
    rows = await session.rows(RESOLVE_FORMS, {"texts": [text_of(form) for form in wanted]})
    return {form: number for form, [number] in zip(wanted, rows, strict=True)}
