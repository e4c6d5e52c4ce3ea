"""Questions about metadata in SQL: what a dotted key may mean, and comparisons of what it finds with their types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from meter.interfaces import RequestError
from meter.query import Scalar
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import either

MOST_PARTS = 5
"""Up to so many parts a dotted metadata key is read in every way: 16 of them."""

OF_TEXT = "CASE WHEN jsonb_typeof(found) = 'string' THEN {} ELSE false END"
OF_NUMBER = "CASE WHEN jsonb_typeof(found) = 'number' THEN {} ELSE false END"


def metadata_is(key: str, values: Sequence[Scalar]) -> Sql:
    """Ask a row ``d`` of ``metadata`` whether it has one of ``values`` under the dotted ``key``."""
    conditions = []
    if plain := [value for value in values if not isinstance(value, datetime)]:
        found = metadata_values(key)
        texts = [_json(value) for value in plain]
        conditions.append(Sql(f"ARRAY[{found}] && %s::jsonb[]", (*found.parameters, texts)))
    if times := [value for value in values if isinstance(value, datetime)]:
        conditions.append(_any_found(key, Sql(OF_TEXT.format("to_timestamptz(found #>> '{}') = ANY(%s)"), (times,))))
    return either(conditions)


def metadata_compares(key: str, operator: str, value: Scalar) -> Sql:
    """Ask a row ``d`` of ``metadata`` whether what is under ``key`` is of ``value``'s kind and before or after it, or matches it."""
    if isinstance(value, datetime):
        condition = Sql(OF_TEXT.format(f"to_timestamptz(found #>> '{{}}') {operator} %s"), (value,))
    elif isinstance(value, str):
        condition = Sql(OF_TEXT.format(f"""(found #>> '{{}}') COLLATE "C" {operator} %s"""), (value,))
    elif isinstance(value, bool) or operator == "~":
        return Sql("false")
    else:
        condition = Sql(OF_NUMBER.format(f"found {operator} %s::jsonb"), (_json(value),))
    return _any_found(key, condition)


def _any_found(key: str, condition: Sql) -> Sql:
    values = metadata_values(key)
    return Sql(
        f"EXISTS (SELECT FROM unnest(ARRAY[{values}]) AS _ (found) WHERE {condition})",
        (*values.parameters, *condition.parameters),
    )


def _json(value: Any) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError as error:
        raise RequestError(f"metadata cannot hold half a surrogate pair: {value!r}") from error
    if "\\u0000" in text or value != value or text == "null":
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
