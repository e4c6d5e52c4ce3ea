"""Questions in SQL: what a :class:`meter.query.SampleFilter` asks of series and of samples, every value a parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from meter.interfaces import RequestError
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.sample import utc_text
from meter.store.record import uuid_of

SERIES_FIELDS = {"resource_id": "resource", "user_id": '"user"', "project_id": "project", "source": "source"}
"""Fields of a series and the tables of their names; the column of ``series`` is ``<name>_id``."""

MOST_PARTS = 5
"""Up to so many parts a dotted metadata key is read in every way: 16 of them."""

NULLABLE = frozenset({"user_id", "project_id", "source"})


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL and its parameters, in order."""

    text: str
    parameters: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return self.text


def both(conditions: Iterable[Sql]) -> Sql:
    """Return the conjunction of ``conditions``."""
    listed = list(conditions)
    text = " AND ".join(condition.text for condition in listed) or "true"
    return Sql(text, tuple(value for condition in listed for value in condition.parameters))


def column_of(field: str) -> str:
    """Return the column of ``series`` that holds ``field``: ``resource_id``, ``source_id``."""
    return field if field.endswith("_id") else f"{field}_id"


def of_series(filter: SampleFilter) -> Sql:
    """Return what ``filter`` asks of a row ``x`` of ``series``."""
    conditions = []
    for field, value in filter.equals.items():
        if field == "meter":
            conditions.append(Sql("x.meter_id IN (SELECT id FROM meter WHERE name = %s)", (value,)))
        elif field in SERIES_FIELDS:
            column, table = column_of(field), SERIES_FIELDS[field]
            if value is not None:
                conditions.append(Sql(f"x.{column} = (SELECT id FROM {table} WHERE name = %s)", (value,)))
            else:
                conditions.append(Sql(f"x.{column} = 0" if field in NULLABLE else "false"))
        elif field != "message_id":
            raise RequestError(
                f"samples cannot be asked for by {field!r}: use meter, message_id or {', '.join(SERIES_FIELDS)}"
            )
    return both(conditions)


def of_sample(filter: SampleFilter) -> Sql:
    """Return what ``filter`` asks of a row ``s`` of ``sample``."""
    conditions = []
    if filter.start is not None:
        conditions.append(Sql(f"s.timestamp {'>' if filter.after_start else '>='} %s", (filter.start,)))
    if filter.end is not None:
        conditions.append(Sql(f"s.timestamp {'<=' if filter.through_end else '<'} %s", (filter.end,)))
    if filter.as_of is not None:
        conditions.append(Sql("s.recorded_at <= %s", (filter.as_of,)))
    if filter.expression is not None:
        raise RequestError("expressions are not answered yet")
    if "message_id" in filter.equals:
        message_id = filter.equals["message_id"]
        if message_id is None:
            conditions.append(Sql("false"))
        else:
            conditions.append(Sql("s.message_id = %s::uuid", (uuid_of(message_id),)))
    if filter.metadata:
        matches = both(_matches(match) for match in filter.metadata)
        conditions.append(Sql(f"s.metadata_id IN (SELECT d.id FROM metadata d WHERE {matches})", matches.parameters))
    return both(conditions)


def _matches(match: MetadataMatch) -> Sql:
    wanted: list[Any] = [match.value]
    if isinstance(match.value, datetime):
        text = utc_text(match.value)
        wanted = [written + zone for written in (text, text.replace("T", " ")) for zone in ("", "Z", "+00:00")]
    values = metadata_values(match.key)
    return Sql(f"ARRAY[{values}] && %s::jsonb[]", (*values.parameters, [_json(value) for value in wanted]))


def _json(value: Any) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError as error:
        raise RequestError(f"metadata cannot hold half a surrogate pair: {value!r}") from error
    if "\\u0000" in text or value != value:
        raise RequestError(f"metadata cannot hold {value!r}")
    return text


def metadata_values(key: str) -> Sql:
    """Return, separated by commas, the elements of ``d.document`` (``jsonb``) that a dotted key may mean.

    ``a.b`` is ``{"a": {"b": …}}`` and also ``{"a.b": …}``; ``tags[0]`` is the first of a list. A key of more than
    :data:`MOST_PARTS` parts means the nested element, or the one named by the key as a whole.
    """
    parts = key.split(".")
    paths = list(_cuts(parts)) if len(parts) <= MOST_PARTS else [parts, [key]]
    return Sql(", ".join(["d.document #> %s::text[]"] * len(paths)), tuple(_with_indexes(path) for path in paths))


def _cuts(parts: list[str]) -> Iterator[list[str]]:
    """Yield every way to read ``parts`` as names that may hold dots, the most nested first."""
    if len(parts) == 1:
        yield parts
        return
    for path in _cuts(parts[1:]):
        yield [parts[0], *path]
    for path in _cuts(parts[1:]):
        yield [f"{parts[0]}.{path[0]}", *path[1:]]


def _with_indexes(path: list[str]) -> list[str]:
    return [step for name in path for step in re.sub(r"\[(\d+)\]", r"\0\1", name).split("\0")]
