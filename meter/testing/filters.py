"""The reference for filters, in plain Python: which samples match a filter, and what each comparison means."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Any

from meter.interfaces import RequestError
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import Field
from meter.query import In
from meter.query import Not
from meter.query import Or
from meter.query import SampleFilter
from meter.query import Scalar
from meter.query import StoredSample
from meter.text_pattern import text_pattern

METADATA_PREFIX = "metadata."

ATTRIBUTES: Mapping[Field, str] = {
    "meter": "name",
    **{
        name: name
        for name in (
            *("resource_id", "user_id", "project_id", "source", "message_id", "type", "unit", "volume"),
            *("timestamp", "recorded_at", "signature"),
        )
    },
}
"""The fields of a sample other than metadata, with the attribute of a stored sample that has the value."""

ORDERINGS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matches(row: StoredSample, filter: SampleFilter) -> bool:
    """Return whether ``row`` matches ``filter``."""
    return (
        all(getattr(row, ATTRIBUTES[field]) == value for field, value in filter.equals.items())
        and _is_after_start(row.timestamp, filter)
        and _is_before_end(row.timestamp, filter)
        and all(evaluate(row, Comparison(METADATA_PREFIX + match.key, "=", match.value)) for match in filter.metadata)
        and (filter.as_of is None or row.recorded_at <= filter.as_of)
        and (filter.expression is None or evaluate(row, filter.expression))
    )


def _is_after_start(timestamp: datetime, filter: SampleFilter) -> bool:
    if filter.start is None:
        return True
    return timestamp > filter.start if filter.after_start else timestamp >= filter.start


def _is_before_end(timestamp: datetime, filter: SampleFilter) -> bool:
    if filter.end is None:
        return True
    return timestamp <= filter.end if filter.through_end else timestamp < filter.end


def evaluate(row: StoredSample, expression: Expression) -> bool:
    """Return whether ``expression`` is true of ``row``; :class:`RequestError` for an unknown field or an invalid pattern."""
    match expression:
        case And(parts):
            return all(evaluate(row, part) for part in parts)
        case Or(parts):
            return any(evaluate(row, part) for part in parts)
        case Not(part):
            return not evaluate(row, part)
        case In(field, values):
            return any(evaluate(row, Comparison(field, "=", value)) for value in values)
        case Comparison(field, "!=", value):
            return not evaluate(row, Comparison(field, "=", value))
        case Comparison(field, comparison, value):
            return any(_compares(found, comparison, value) for found in values_of(row, field))


def values_of(row: StoredSample, field: Field) -> list[Any]:
    """Return the values of ``field`` in ``row``: exactly one, except for a metadata key, which may be missing or ambiguous."""
    if field.startswith(METADATA_PREFIX) and field != METADATA_PREFIX:
        return list(values_at(row.metadata, field.removeprefix(METADATA_PREFIX)))
    if field not in ATTRIBUTES:
        raise RequestError(f"samples have no field {field!r}: use {', '.join(ATTRIBUTES)} or {METADATA_PREFIX}<key>")
    return [getattr(row, ATTRIBUTES[field])]


def _compares(found: Any, comparison: str, wanted: Scalar) -> bool:
    """Compare values of the same type: numbers, booleans or texts; and a time with a text that states one."""
    if isinstance(wanted, datetime) and isinstance(found, str):
        found = _parsed_time(found)
    if found is None or _kind(found) is not _kind(wanted):
        return False
    if comparison == "=":
        return bool(found == wanted)
    if comparison == "~":
        return isinstance(found, str) and text_pattern(str(wanted)).matches(found)
    return not isinstance(found, bool) and ORDERINGS[comparison](found, wanted)


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _parsed_time(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_ELEMENT = re.compile(r"\[(\d+)\]\.?(.*)", re.DOTALL)


def values_at(metadata: Any, key: str) -> Iterator[Any]:
    """Yield each value that the dotted ``key`` may select: ``a.b`` is ``b`` within ``a``, and also a key that contains a dot."""
    if not key:
        yield metadata
    elif isinstance(metadata, Mapping):
        for name, value in metadata.items():
            if key == name:
                yield value
            elif key.startswith(f"{name}."):
                yield from values_at(value, key[len(name) + 1 :])
            elif key.startswith(f"{name}["):
                yield from values_at(value, key[len(name) :])
    elif isinstance(metadata, list | tuple):
        element = _ELEMENT.fullmatch(key)
        if element and int(element[1]) < len(metadata):
            yield from values_at(metadata[int(element[1])], element[2])
