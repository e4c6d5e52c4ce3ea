"""Complex queries: the body of ``/v2/query/samples``, parsed into an expression and an order of :mod:`meter.query`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from typing import Literal
from typing import cast

import msgspec

from meter.api.errors import ApiError
from meter.api.errors import invalid_input
from meter.api.limits import MAX_CONDITIONS
from meter.api.limits import MAX_DEPTH
from meter.api.limits import MAX_METADATA_KEY_CHARACTERS
from meter.api.limits import MAX_PATTERN_CHARACTERS
from meter.api.limits import MAX_PATTERNS
from meter.api.request.arguments import parse_integer
from meter.api.request.simple_query import metadata_key
from meter.api.request.strict_json import BadJson
from meter.api.request.strict_json import strict_json
from meter.api.request.times import parse_time
from meter.interfaces import RequestError
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
from meter.text_pattern import text_pattern

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

STRING_FIELDS = ("source", "meter", "type", "unit", "user_id", "project_id", "resource_id", "message_id", "signature")
TIME_FIELDS = ("timestamp", "recorded_at")
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
"""The names of a sample's fields in a complex query."""


class ComplexQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/v2/query/samples``: ``filter`` and ``orderby`` are JSON, encoded as strings.

    ``limit`` can also be a string, or ``2.0``. ``filter`` cannot be null, which would match everything.
    """

    filter: str = ""
    orderby: str | None = None
    limit: int | float | str | None = None


class BadExpression(ValueError):
    """An invalid expression or order; the text says why."""


def parse_complex_query(body: Any) -> ComplexQuery:
    """Return the query in the decoded ``body``; :class:`ApiError` 400 if it is invalid."""
    try:
        return msgspec.convert(body, ComplexQuery)
    except msgspec.ValidationError as error:
        raise invalid_input("data", _excerpt(body), str(error)) from error


def parse_limit(query: ComplexQuery) -> int | None:
    """Return the limit of ``query``, ``None`` if it has none; :class:`ApiError` 400 if it is not an integer."""
    limit = query.limit
    if isinstance(limit, str):
        return parse_integer("limit", limit)
    if isinstance(limit, float) and not limit.is_integer():
        raise invalid_input("limit", limit, "it must be an integer.")
    return None if limit is None else int(limit)


def parse_expression(text: str) -> Expression | None:
    """Return the expression in the JSON ``text``, ``None`` for an empty one; :class:`ApiError` 400 if it is invalid."""
    if not text.strip():
        return None
    try:
        content = _decode(text)
        return None if content == {} else _ExpressionParser().expression(content, 1)
    except BadExpression as error:
        raise ApiError(400, f"Filter expression not valid: {error}") from error


def parse_order(text: str | None) -> tuple[Order, ...]:
    """Return the order in the JSON ``text``, empty for an empty one; :class:`ApiError` 400 if it is invalid."""
    if not text or not text.strip():
        return ()
    try:
        sort_keys = _decode(text)
        if not isinstance(sort_keys, list):
            raise BadExpression(f'expected a list such as [{{"timestamp": "desc"}}], got {_excerpt(sort_keys)}')
        if len(sort_keys) > len(FIELDS):
            raise BadExpression(f"{len(sort_keys)} sort keys given; the maximum is {len(FIELDS)}")
        return tuple(map(_sort_key, sort_keys))
    except BadExpression as error:
        raise ApiError(400, f"Order-by expression not valid: {error}") from error


def _sort_key(content: Any) -> Order:
    name, direction = _only_pair(content)
    if name not in FIELDS:
        raise BadExpression(f"cannot sort by {_excerpt(name)}; sort keys are {', '.join(FIELDS)}")
    if not isinstance(direction, str) or direction.lower() not in ("asc", "desc"):
        raise BadExpression(f"the direction of {name} must be asc or desc, got {_excerpt(direction)}")
    return Order(FIELDS[name], descending=direction.lower() == "desc")


class _ExpressionParser:
    """Parses one expression, within limits on its depth and its number of conditions."""

    def __init__(self) -> None:
        self._conditions = 0
        self._patterns = 0

    def _count(self, conditions: int) -> None:
        self._conditions += conditions
        if self._conditions > MAX_CONDITIONS:
            raise BadExpression(f"more than {MAX_CONDITIONS} conditions")

    def _count_pattern(self) -> None:
        self._patterns += 1
        if self._patterns > MAX_PATTERNS:
            raise BadExpression(f"more than {MAX_PATTERNS} patterns (=~)")

    def expression(self, content: Any, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise BadExpression(f"nested more than {MAX_DEPTH} levels deep")
        self._count(1)
        word, operand = _only_pair(content)
        match word.lower():
            case "and" | "or":
                if not isinstance(operand, list) or len(operand) < 2:
                    raise BadExpression(f"{word} requires a list of at least two expressions, got {_excerpt(operand)}")
                parts = tuple(self.expression(part, depth + 1) for part in operand)
                return And(parts) if word.lower() == "and" else Or(parts)
            case "not":
                return Not(self.expression(operand, depth + 1))
            case "in":
                name, values = _only_pair(operand)
                if not isinstance(values, list) or not values:
                    raise BadExpression(f"in requires a list of at least one value, got {_excerpt(values)}")
                self._count(len(values))
                return In(_field(name), tuple(_value(_field(name), "=", value) for value in values))
            case symbol if symbol in OPERATORS:
                name, value = _only_pair(operand)
                if OPERATORS[symbol] == "~":
                    self._count_pattern()
                return Comparison(_field(name), OPERATORS[symbol], _value(_field(name), OPERATORS[symbol], value))
        raise BadExpression(
            f"unknown operator {_excerpt(word)}; operators are {', '.join(OPERATORS)}, in, and, or, not"
        )


def _only_pair(content: Any) -> tuple[str, Any]:
    if not isinstance(content, dict) or len(content) != 1:
        raise BadExpression(f"expected an object with exactly one key, got {_excerpt(content)}")
    ((name, value),) = content.items()
    return name, value


def _field(name: str) -> Field:
    if name in FIELDS:
        return FIELDS[name]
    key = metadata_key(name)
    if len(key) > MAX_METADATA_KEY_CHARACTERS:
        raise BadExpression(
            f"a metadata key can have at most {MAX_METADATA_KEY_CHARACTERS} characters; this one has {len(key)}"
        )
    if not key or "\0" in key:
        raise BadExpression(f"unknown field {_excerpt(name)}; fields are {', '.join(FIELDS)} and metadata.<key>")
    return f"metadata.{key}"


def _value(field: Field, operator: Operator, value: Any) -> Scalar:
    """Return ``value`` in the type of ``field``: a time, a number or a string; any scalar if it is a metadata field."""
    if isinstance(value, str) and "\0" in value:
        raise BadExpression("strings must not contain NUL characters")
    if operator == "~" and (field in TIME_FIELDS or field == "volume" or not isinstance(value, str)):
        raise BadExpression(f"=~ requires a string field and a string pattern, got {field} and {_excerpt(value)}")
    if operator == "~" and len(value) > MAX_PATTERN_CHARACTERS:
        raise BadExpression(
            f"a pattern can have at most {MAX_PATTERN_CHARACTERS} characters; this one has {len(value)}"
        )
    if operator == "~":
        _check_pattern(value)
    if field in TIME_FIELDS:
        return _time(value)
    if field == "volume":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadExpression(f"volume requires a number, got {_excerpt(value)}")
    elif field in STRING_FIELDS:
        if not isinstance(value, str):
            raise BadExpression(f"{field} requires a string, got {_excerpt(value)}")
    elif not isinstance(value, str | int | float | bool):
        raise BadExpression(f"metadata requires a string, a number or a boolean, got {_excerpt(value)}")
    if (isinstance(value, int) and value.bit_length() > 1000) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise BadExpression(f"the number {_excerpt(value)} is out of range")
    return cast(Scalar, value)


def _check_pattern(pattern: str) -> None:
    try:
        text_pattern(pattern)
    except RequestError as error:
        raise BadExpression(str(error)) from error


def _time(value: Any) -> datetime:
    try:
        return parse_time(value if isinstance(value, str) else "", "timestamp")
    except BadMessage as error:
        raise BadExpression(f"Failed to parse the timestamp value {_excerpt(value)}") from error


def _decode(text: str) -> Any:
    try:
        return strict_json(text)
    except BadJson as error:
        raise BadExpression(str(error)) from error


def _excerpt(value: Any) -> str:
    """Return a short representation of ``value``, which can be of any size, for an error text."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of length {len(value)}"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number with many digits"
    return repr(value[:80] if isinstance(value, str) else value)
