"""Conditions on metadata in SQL: which elements a dotted key selects, and comparisons that respect JSON types."""

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
from meter.text_pattern import text_pattern

MAX_NESTED_PARTS = 5
"""The most parts of a dotted key that is read in every possible way: 16 ways for five parts."""

MAX_DOCUMENTS = 100
"""The most documents that an index is asked for: PostgreSQL plans each of thousands for seconds, and may then read the whole table."""

MAX_INDEXED_PARTS = 100
"""The most parts of a dotted key of which an index finds documents: PostgreSQL reads no document that is nested thousands deep."""

_INDEX = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
"""A step of a path that PostgreSQL may take for the number of an element."""

IF_STRING = "CASE WHEN jsonb_typeof(element) = 'string' THEN {} ELSE false END"
IF_NUMBER = "CASE WHEN jsonb_typeof(element) = 'number' THEN {} ELSE false END"


def metadata_equals_any(key: str, values: Sequence[Scalar]) -> Sql:
    """Return the condition that a row ``d`` of ``metadata`` has one of ``values`` under the dotted ``key``."""
    conditions = []
    if plain := [value for value in values if not isinstance(value, datetime)]:
        elements = metadata_values(key)
        texts = [_json(value) for value in plain]
        conditions.append(Sql(f"ARRAY[{elements}] && %s::jsonb[]", (*elements.parameters, texts)))
    if times := [value for value in values if isinstance(value, datetime)]:
        conditions.append(
            _any_element(key, Sql(IF_STRING.format("to_timestamptz(element #>> '{}') = ANY(%s)"), (times,)))
        )
    return either(conditions)


def documents_with_any(key: str, values: Sequence[Scalar]) -> Sql | None:
    """Return a condition that an index serves and that all documents meet which meet :func:`metadata_equals_any`; ``None`` if there is none.

    A time equals many texts, and a number in a key selects an element of a list or of an object. Nor is there one for more than
    :data:`MAX_DOCUMENTS`, and for keys of more than :data:`MAX_INDEXED_PARTS` parts.
    """
    if any(isinstance(value, datetime) for value in values):
        return None
    paths = list(_paths(key))
    if len(values) * len(paths) > MAX_DOCUMENTS:
        return None
    if any(len(path) > MAX_INDEXED_PARTS or any(map(_INDEX.fullmatch, path)) for path in paths):
        return None
    beginnings = ["".join(f"{{{_json(step)}:" for step in path) for path in paths]
    documents = [
        f"{beginning}{text}{'}' * len(path)}"
        for text in map(_json, values)
        for path, beginning in zip(paths, beginnings, strict=True)
    ]
    return Sql("d.document @> ANY(%s::jsonb[])", (documents,))


def metadata_compares(key: str, operator: str, value: Scalar) -> Sql:
    """Return the condition that a value under ``key`` in a row ``d`` of ``metadata`` has the JSON type of ``value`` and compares so."""
    if isinstance(value, datetime):
        condition = Sql(IF_STRING.format(f"to_timestamptz(element #>> '{{}}') {operator} %s"), (value,))
    elif isinstance(value, str):
        value = text_pattern(value).text if operator == "~" else value
        condition = Sql(IF_STRING.format(f"""(element #>> '{{}}') COLLATE "C" {operator} %s"""), (value,))
    elif isinstance(value, bool) or operator == "~":
        return Sql("false")
    else:
        condition = Sql(IF_NUMBER.format(f"element {operator} %s::jsonb"), (_json(value),))
    return _any_element(key, condition)


def _any_element(key: str, condition: Sql) -> Sql:
    elements = metadata_values(key)
    return Sql(
        f"EXISTS (SELECT FROM unnest(ARRAY[{elements}]) AS _ (element) WHERE {condition})",
        (*elements.parameters, *condition.parameters),
    )


def _json(value: Any) -> str:
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError as error:
        raise RequestError(f"metadata cannot contain half of a surrogate pair: {value!r}") from error
    if "\\u0000" in text or value != value or text == "null":
        raise RequestError(f"metadata cannot contain {value!r}")
    return text


def metadata_values(key: str) -> Sql:
    """Return SQL expressions, separated by commas, for the elements of ``d.document`` (``jsonb``) that a dotted key may mean.

    ``a.b`` selects from ``{"a": {"b": …}}`` and from ``{"a.b": …}``; ``tags[0]`` is the first element of a list. A key of more
    than :data:`MAX_NESTED_PARTS` parts selects the fully nested element, or the one whose name is the whole key.
    """
    paths = list(_paths(key))
    return Sql(", ".join(["d.document #> %s::text[]"] * len(paths)), tuple(paths))


def _paths(key: str) -> Iterator[list[str]]:
    parts = key.split(".")
    for path in _splits(parts) if len(parts) <= MAX_NESTED_PARTS else ([*parts], [key]):
        yield _with_indexes(path)


def _splits(parts: list[str]) -> Iterator[list[str]]:
    """Yield every way to join ``parts`` to names that may contain dots, the most nested first."""
    if len(parts) == 1:
        yield parts
        return
    for path in _splits(parts[1:]):
        yield [parts[0], *path]
    for path in _splits(parts[1:]):
        yield [f"{parts[0]}.{path[0]}", *path[1:]]


def _with_indexes(path: list[str]) -> list[str]:
    return [step for name in path for step in re.sub(r"\[(\d+)\]", r"\0\1", name).split("\0")]
