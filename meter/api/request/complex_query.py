"""Complex queries: an expression and an order, as JSON in texts, read as the conditions of :mod:`meter.query`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from typing import Literal
from typing import cast

import msgspec

from meter.api.errors import Fault
from meter.api.errors import invalid_input
from meter.api.request.arguments import integer
from meter.api.request.simple_query import METADATA_PREFIXES
from meter.api.request.strict_json import BadJson
from meter.api.request.strict_json import strict_json
from meter.api.request.times import time_asked
from meter.message import BadMessage
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import Field
from meter.query import In
from meter.query import Not
from meter.query import Or
from meter.query import Order
from meter.query import Scalar

DEEPEST = 32
MOST_CONDITIONS = 500
LONGEST_PATTERN = 500
"""Characters of a regular expression."""

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~"]
OPERATORS: Mapping[str, Operator] = {
    "=": "=",
    "!=": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
    "=<": "<=",
    "=>": ">=",
    "=~": "~",
}

TEXTS = ("source", "meter", "type", "unit", "user_id", "project_id", "resource_id", "message_id", "signature")
TIMES = ("timestamp", "recorded_at")
FIELDS: Mapping[str, Field] = {
    "source": "source",
    "counter_name": "meter",
    "meter": "meter",
    "counter_type": "type",
    "type": "type",
    "counter_unit": "unit",
    "unit": "unit",
    "counter_volume": "volume",
    "volume": "volume",
    "user_id": "user_id",
    "user": "user_id",
    "project_id": "project_id",
    "project": "project_id",
    "resource_id": "resource_id",
    "resource": "resource_id",
    "timestamp": "timestamp",
    "recorded_at": "recorded_at",
    "message_id": "message_id",
    "message_signature": "signature",
}
"""The names by which a complex query may call the fields of a sample."""


class ComplexQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/v2/query/samples``: ``filter`` and ``orderby`` are JSON in texts.

    ``limit`` may be a text too, or written ``2.0``. There is no ``null`` as a filter: it would ask for everything.
    """

    filter: str = ""
    orderby: str | None = None
    limit: int | float | str | None = None


class BadExpression(ValueError):
    """What is wrong with an expression or an order."""


def read_complex_query(body: Any) -> ComplexQuery:
    """Return the query that the decoded ``body`` is; :class:`Fault` 400 where it is none."""
    try:
        return msgspec.convert(body, ComplexQuery)
    except msgspec.ValidationError as error:
        raise invalid_input("data", _cut(body), str(error)) from error


def limit_of(query: ComplexQuery) -> int | None:
    """Return how many samples ``query`` asks for at most, if it says so; :class:`Fault` 400 for what is no integer."""
    limit = query.limit
    if isinstance(limit, str):
        return integer("limit", limit)
    if isinstance(limit, float) and not limit.is_integer():
        raise invalid_input("limit", limit, "it must be an integer.")
    return None if limit is None else int(limit)


def expression_of(text: str) -> Expression | None:
    """Return the expression that ``text`` is, ``None`` for an empty one; :class:`Fault` 400 where it is none."""
    if not text.strip():
        return None
    try:
        content = _decoded(text)
        return None if content == {} else _Reading().expression(content, 1)
    except BadExpression as error:
        raise Fault(400, f"Filter expression not valid: {error}") from error


def order_of(text: str | None) -> tuple[Order, ...]:
    """Return the order that ``text`` is, empty for an empty one; :class:`Fault` 400 where it is none."""
    if not text or not text.strip():
        return ()
    try:
        criteria = _decoded(text)
        if not isinstance(criteria, list):
            raise BadExpression(f'it must be a list like [{{"timestamp": "desc"}}], not {_cut(criteria)}')
        if len(criteria) > len(FIELDS):
            raise BadExpression(f"there are {len(criteria)} criteria, and only {len(FIELDS)} fields")
        return tuple(map(_criterion, criteria))
    except BadExpression as error:
        raise Fault(400, f"Order-by expression not valid: {error}") from error


def _criterion(content: Any) -> Order:
    name, direction = _only_pair(content)
    if name not in FIELDS:
        raise BadExpression(f"there is no order by {_cut(name)}: use {', '.join(FIELDS)}")
    if not isinstance(direction, str) or direction.lower() not in ("asc", "desc"):
        raise BadExpression(f"the direction of {name} must be asc or desc, not {_cut(direction)}")
    return Order(FIELDS[name], descending=direction.lower() == "desc")


class _Reading:
    """Reads one expression and counts its conditions."""

    def __init__(self) -> None:
        self._conditions = 0

    def _count(self, conditions: int) -> None:
        self._conditions += conditions
        if self._conditions > MOST_CONDITIONS:
            raise BadExpression(f"it has more than {MOST_CONDITIONS} conditions")

    def expression(self, content: Any, depth: int) -> Expression:
        if depth > DEEPEST:
            raise BadExpression(f"it is nested more than {DEEPEST} deep")
        self._count(1)
        word, operand = _only_pair(content)
        match word.lower():
            case "and" | "or":
                if not isinstance(operand, list) or len(operand) < 2:
                    raise BadExpression(f"{word} takes a list of at least two expressions, not {_cut(operand)}")
                parts = tuple(self.expression(part, depth + 1) for part in operand)
                return And(parts) if word.lower() == "and" else Or(parts)
            case "not":
                return Not(self.expression(operand, depth + 1))
            case "in":
                name, values = _only_pair(operand)
                if not isinstance(values, list) or not values:
                    raise BadExpression(f"in takes a list of at least one value, not {_cut(values)}")
                self._count(len(values))
                return In(_field(name), tuple(_value(_field(name), "=", value) for value in values))
            case symbol if symbol in OPERATORS:
                name, value = _only_pair(operand)
                return Comparison(_field(name), OPERATORS[symbol], _value(_field(name), OPERATORS[symbol], value))
        raise BadExpression(f"there is no operator {_cut(word)}: use {', '.join(OPERATORS)}, in, and, or, not")


def _only_pair(content: Any) -> tuple[str, Any]:
    if not isinstance(content, dict) or len(content) != 1:
        raise BadExpression(f"there must be an object with exactly one key, not {_cut(content)}")
    ((name, value),) = content.items()
    return name, value


def _field(name: str) -> Field:
    if name in FIELDS:
        return FIELDS[name]
    key = next((name.removeprefix(prefix) for prefix in METADATA_PREFIXES if name.startswith(prefix)), "")
    if not key or "\0" in key:
        raise BadExpression(f"there is no field {_cut(name)}: use {', '.join(FIELDS)} or metadata.<key>")
    return f"metadata.{key}"


def _value(field: Field, operator: Operator, value: Any) -> Scalar:
    """Return ``value`` as ``field`` holds such: a time, a number, a text; any scalar where it is metadata."""
    if isinstance(value, str) and "\0" in value:
        raise BadExpression("a text must not hold NUL characters")
    if operator == "~" and (field in TIMES or field == "volume" or not isinstance(value, str)):
        raise BadExpression(f"=~ compares a text with a pattern, not {field} with {_cut(value)}")
    if operator == "~" and len(value) > LONGEST_PATTERN:
        raise BadExpression(f"a pattern may have at most {LONGEST_PATTERN} characters, not {len(value)}")
    if field in TIMES:
        return _time(value)
    if field == "volume":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadExpression(f"a volume is compared with a number, not with {_cut(value)}")
    elif field in TEXTS:
        if not isinstance(value, str):
            raise BadExpression(f"{field} is compared with a text, not with {_cut(value)}")
    elif not isinstance(value, str | int | float | bool):
        raise BadExpression(f"metadata is compared with a text, a number or a boolean, not with {_cut(value)}")
    if (isinstance(value, int) and value.bit_length() > 1000) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise BadExpression(f"{_cut(value)} is too large a number")
    return cast(Scalar, value)


def _time(value: Any) -> datetime:
    try:
        return time_asked(value if isinstance(value, str) else "", "timestamp")
    except BadMessage as error:
        raise BadExpression(f"Failed to parse the timestamp value {_cut(value)}") from error


def _decoded(text: str) -> Any:
    try:
        return strict_json(text)
    except BadJson as error:
        raise BadExpression(str(error)) from error


def _cut(value: Any) -> str:
    """Show a value of unknown size in a fault."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of many digits"
    return repr(value[:80] if isinstance(value, str) else value)
