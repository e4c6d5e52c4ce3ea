"""Simple queries: the terms of the parameter ``q``, parsed into a filter of samples."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.errors import unknown_argument
from meter.api.limits import MAX_METADATA_KEY_CHARACTERS
from meter.api.limits import MAX_TERMS
from meter.api.request.arguments import FALSE_WORDS
from meter.api.request.arguments import TRUE_WORDS
from meter.api.request.arguments import parse_integer
from meter.api.request.times import parse_time
from meter.api.request.times import parse_time_argument
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import Field
from meter.query import IdField
from meter.query import In
from meter.query import MetadataMatch
from meter.query import Not
from meter.query import Or
from meter.query import SampleFilter

OPERATORS = ("lt", "le", "eq", "ne", "ge", "gt")
TIME_OPERATORS = ("lt", "le", "ge", "gt")
TIME_FIELDS = ("timestamp", "search_offset")
METADATA_PREFIXES = ("metadata.", "resource_metadata.")

FIELDS: Mapping[str, IdField] = {
    "user": "user_id",
    "user_id": "user_id",
    "project": "project_id",
    "project_id": "project_id",
    "resource": "resource_id",
    "resource_id": "resource_id",
    "meter": "meter",
    "source": "source",
    "message_id": "message_id",
}
"""The names of a sample's fields in a query."""


@dataclass(frozen=True, slots=True)
class QueryableFields:
    """The fields that queries of one resource type can filter by: ``ids``, times if ``times``, and always metadata."""

    ids: tuple[IdField, ...]
    times: bool = True

    @property
    def names(self) -> list[str]:
        """Every valid ``field`` but those of metadata, for error texts."""
        return sorted(
            [*(name for name, id_field in FIELDS.items() if id_field in self.ids), *(TIME_FIELDS if self.times else ())]
        )


SAMPLE_FIELDS = QueryableFields(("user_id", "project_id", "resource_id", "meter", "source", "message_id"))
METER_FIELDS = QueryableFields(("user_id", "project_id", "resource_id", "source"), times=False)
RESOURCE_FIELDS = QueryableFields(("user_id", "project_id", "resource_id", "source"))


@dataclass(frozen=True, slots=True)
class SimpleQuery:
    """A parsed ``q``. The range in ``filter`` is widened by ``search_offset``, ``start`` and ``end`` are not."""

    filter: SampleFilter
    start: datetime | None = None
    end: datetime | None = None


def parse_simple_query(
    terms: Iterable[Mapping[str, str]],
    queryable: QueryableFields,
    *,
    fixed: Mapping[IdField, str] | None = None,
    as_of: datetime | None = None,
) -> SimpleQuery:
    """Return the parsed ``terms`` (``field``, ``op``, ``value``, ``type``); :class:`ApiError` 400 for an invalid one.

    Of two terms for the same field or bound, the later wins; ``fixed``, the ids from the path, win over terms.
    """
    terms = tuple(terms)
    if len(terms) > MAX_TERMS:
        raise ApiError(400, f"A query can have at most {MAX_TERMS} terms; this one has {len(terms)}.")
    equals: dict[IdField, str | None] = {}
    metadata: list[MetadataMatch] = []
    absent: list[Expression] = []
    bounds: dict[str, Any] = {}
    offset: timedelta | None = None
    for term in terms:
        name, value = term["field"], _value(term)
        operator = _operator(term)
        key = metadata_key(name)
        check_metadata_key(key)
        if name in TIME_FIELDS and not queryable.times:
            raise unknown_argument(name, "not valid for this resource")
        if name == "timestamp":
            bounds |= _bound(operator, value)
        elif operator != "eq":
            raise invalid_input("op", operator, f"unimplemented operator for {name}")
        elif name == "search_offset":
            offset = _minutes(value)
        elif key and value == "None" and not term.get("type"):
            absent.append(_is_absent(f"metadata.{key}"))
        elif key:
            metadata.append(MetadataMatch(key, convert(value, term.get("type", ""))))
        elif FIELDS.get(name) in queryable.ids:
            equals[FIELDS[name]] = None if value == "None" and name.startswith(("user", "project")) else value
        else:
            query = ", ".join(f"<Query {t['field']!r} {_operator(t)} {t.get('value')!r}>" for t in terms)
            raise unknown_argument(name, f"unrecognized field in query: [{query}], valid keys: {queryable.names}")
    start, end = bounds.get("start"), bounds.get("end")
    if offset is not None:
        if not bounds:
            raise invalid_input("field", "search_offset", "search_offset cannot be used without timestamp")
        bounds = _widen(bounds, offset)
    filter = SampleFilter(
        equals={**equals, **(fixed or {})},
        metadata=tuple(metadata),
        expression=And(tuple(absent)) if absent else None,
        as_of=as_of,
        **bounds,
    )
    return SimpleQuery(filter, start, end)


def _is_absent(field: Field) -> Expression:
    """Return the condition of the value ``None``: ``field``, of the metadata, is absent or null."""
    return Not(Or((Comparison(field, "~", ""), In(field, (True, False)), Comparison(field, ">=", -sys.float_info.max))))


def _value(term: Mapping[str, str]) -> str:
    try:
        return term["value"]
    except KeyError:
        raise invalid_input("value", None, f"Mandatory field missing for {term['field']}.") from None


def _operator(term: Mapping[str, str]) -> str:
    operator = term.get("op") or "eq"
    if operator not in OPERATORS:
        raise invalid_input("op", operator, f"Value should be one of: {', '.join(OPERATORS)}")
    return operator


def metadata_key(name: str) -> str:
    """Return the dotted metadata key of the field ``name``, empty if ``name`` is not a field of the metadata."""
    return next((name.removeprefix(prefix) for prefix in METADATA_PREFIXES if name.startswith(prefix)), "")


def check_metadata_key(key: str) -> None:
    """Raise :class:`ApiError` 400 if ``key`` is too long."""
    if len(key) > MAX_METADATA_KEY_CHARACTERS:
        raise ApiError(
            400, f"A metadata key can have at most {MAX_METADATA_KEY_CHARACTERS} characters; this one has {len(key)}."
        )


def _bound(operator: str, value: str) -> dict[str, Any]:
    if operator not in TIME_OPERATORS:
        raise invalid_input("op", operator, "unimplemented operator for timestamp")
    time = parse_time_argument("timestamp", value)
    if operator in ("gt", "ge"):
        return {"start": time, "after_start": operator == "gt"}
    return {"end": time, "through_end": operator == "le"}


def _minutes(value: str) -> timedelta:
    try:
        return timedelta(minutes=parse_integer("search_offset", value))
    except OverflowError as error:
        raise invalid_input("search_offset", value, "the number of minutes is too large") from error


def _widen(bounds: Mapping[str, Any], offset: timedelta) -> dict[str, Any]:
    wide = dict(bounds)
    try:
        if "start" in wide:
            wide["start"] -= offset
        if "end" in wide:
            wide["end"] += offset
    except OverflowError as error:
        raise invalid_input("search_offset", offset, "the resulting time is out of range") from error
    return wide


# --- values of metadata --------------------------------------------------------------------------------------------


def convert(text: str, kind: str) -> str | int | float | bool | datetime:
    """Return ``text`` converted to the type ``kind``; if that is empty, to the type of the literal it looks like."""
    if not kind:
        return _literal(text)
    if kind not in CONVERSIONS:
        supported = ", ".join(CONVERSIONS)
        raise ApiError(400, f"The data type {kind} is not supported. The supported data type list is: [{supported}]")
    try:
        return CONVERSIONS[kind](text)
    except ValueError as error:
        raise ApiError(400, f"Unable to convert the value {text} to the expected data type {kind}.") from error


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word not in TRUE_WORDS | FALSE_WORDS:
        raise ValueError(text)
    return word in TRUE_WORDS


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


CONVERSIONS: Mapping[str, Callable[[str], str | int | float | bool | datetime]] = {
    "integer": int,
    "float": _float,
    "string": str,
    "boolean": _boolean,
    "datetime": lambda text: parse_time(text, "value"),
}

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?")
_QUOTED = re.compile(r"""(['"])([^'"\\]*)\1""")


def _literal(text: str) -> str | int | float | bool:
    """Parse ``text`` like a Python literal, as Ceilometer did: a boolean, a number or a quoted string."""
    if text in ("True", "False"):
        return text == "True"
    try:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return _float(text)
    except ValueError:  # more digits than Python converts, or beyond the range of a float
        return text
    quoted = _QUOTED.fullmatch(text)
    return quoted[2] if quoted else text
