"""What a filter lets through, in plain Python: where the meaning of a condition is in doubt, read it here."""

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

METADATA = "metadata."

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
"""Fields of a sample that are no metadata, and the attribute of a stored sample that has them."""

ORDERINGS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matches(row: StoredSample, filter: SampleFilter) -> bool:
    """Say whether ``filter`` lets ``row`` through."""
    return (
        all(getattr(row, ATTRIBUTES[field]) == value for field, value in filter.equals.items())
        and _after_start(row.timestamp, filter)
        and _before_end(row.timestamp, filter)
        and all(holds(row, Comparison(METADATA + match.key, "=", match.value)) for match in filter.metadata)
        and (filter.as_of is None or row.recorded_at <= filter.as_of)
        and (filter.expression is None or holds(row, filter.expression))
    )


def _after_start(timestamp: datetime, filter: SampleFilter) -> bool:
    if filter.start is None:
        return True
    return timestamp > filter.start if filter.after_start else timestamp >= filter.start


def _before_end(timestamp: datetime, filter: SampleFilter) -> bool:
    if filter.end is None:
        return True
    return timestamp <= filter.end if filter.through_end else timestamp < filter.end


def holds(row: StoredSample, expression: Expression) -> bool:
    """Say whether ``expression`` is true of ``row``; :class:`RequestError` for a field or a pattern that is none."""
    match expression:
        case And(parts):
            return all(holds(row, part) for part in parts)
        case Or(parts):
            return any(holds(row, part) for part in parts)
        case Not(part):
            return not holds(row, part)
        case In(field, values):
            return any(holds(row, Comparison(field, "=", value)) for value in values)
        case Comparison(field, "!=", value):
            return not holds(row, Comparison(field, "=", value))
        case Comparison(field, how, value):
            return any(_compares(found, how, value) for found in values_of(row, field))


def values_of(row: StoredSample, field: Field) -> list[Any]:
    """Return each value that ``field`` has in ``row``: one, but for a key of metadata that is missing or ambiguous."""
    if field.startswith(METADATA) and field != METADATA:
        return list(values_at(row.metadata, field.removeprefix(METADATA)))
    if field not in ATTRIBUTES:
        raise RequestError(f"samples have no field {field!r}: use {', '.join(ATTRIBUTES)} or {METADATA}<key>")
    return [getattr(row, ATTRIBUTES[field])]


def _compares(found: Any, how: str, wanted: Scalar) -> bool:
    """Compare with types: numbers with numbers, booleans with booleans, text with text; a time with a text of it."""
    if isinstance(wanted, datetime) and isinstance(found, str):
        found = _moment(found)
    if found is None or _kind(found) is not _kind(wanted):
        return False
    if how == "=":
        return bool(found == wanted)
    if how == "~":
        return isinstance(found, str) and _pattern(str(wanted)).search(found) is not None
    return not isinstance(found, bool) and ORDERINGS[how](found, wanted)


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise RequestError(f"{text!r} is no regular expression: {error}") from error


def _moment(text: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_ELEMENT = re.compile(r"\[(\d+)\]\.?(.*)", re.DOTALL)


def values_at(metadata: Any, key: str) -> Iterator[Any]:
    """Yield each value that the dotted ``key`` may mean: ``a.b`` is ``b`` within ``a``, and also a key with a dot in it."""
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
