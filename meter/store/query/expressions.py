"""Expressions in SQL: conditions that are true or false of every sample, never unknown, so that ``NOT`` means not."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from typing import Literal

from meter.interfaces import RequestError
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import Field
from meter.query import In
from meter.query import Not
from meter.query import Or
from meter.query import Scalar
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.postgres.sql import either
from meter.store.postgres.sql import negated
from meter.store.query.metadata import metadata_compares
from meter.store.query.metadata import metadata_is
from meter.store.write.record import uuid_of

METADATA = "metadata."

MESSAGE_ID = (
    "CASE WHEN left(s.verbatim_json, 1) = '{' THEN s.verbatim_json::json ->> 'message_id' ELSE s.message_id::text END"
)
"""The id as it was sent, which may be no UUID."""


@dataclass(frozen=True, slots=True)
class Column:
    """Where a field is: an expression in ``table``, to which a series refers, or in the row ``s`` of ``sample``."""

    text: str
    type: Literal["text", "float8", "timestamptz"] = "text"
    table: str = ""
    reference: str = ""

    @property
    def of_series(self) -> bool:
        """Whether it is the same in all samples of a series."""
        return bool(self.table)

    @property
    def value(self) -> str:
        """The field of a sample ``s`` in a series ``x``; null where it has none."""
        if self.table:
            return f"(SELECT {self.text} FROM {self.table} WHERE id = x.{self.reference})"
        return self.text

    def satisfying(self, condition: Sql) -> Sql:
        """Return ``condition``, written with ``text``, as one about ``s`` or ``x``."""
        if self.table:
            return Sql(f"x.{self.reference} IN (SELECT id FROM {self.table} WHERE {condition})", condition.parameters)
        return condition


COLUMNS: Mapping[Field, Column] = {
    "meter": Column("name", table="meter", reference="meter_id"),
    "type": Column("type", table="meter", reference="meter_id"),
    "unit": Column("unit", table="meter", reference="meter_id"),
    "resource_id": Column("name", table="resource", reference="resource_id"),
    "user_id": Column("name", table='"user"', reference="user_id"),
    "project_id": Column("name", table="project", reference="project_id"),
    "source": Column("name", table="source", reference="source_id"),
    "message_id": Column(f'({MESSAGE_ID}) COLLATE "C"'),
    "signature": Column("""encode(s.signature, 'hex') COLLATE "C" """),
    "volume": Column("s.volume", "float8"),
    "timestamp": Column("s.timestamp", "timestamptz"),
    "recorded_at": Column("s.recorded_at", "timestamptz"),
}


def column_of(field: Field) -> Column:
    """Return where ``field``, which is no metadata, is found; :class:`RequestError` for a field that samples lack."""
    if field not in COLUMNS:
        raise RequestError(f"samples have no field {field!r}: use {', '.join(COLUMNS)} or {METADATA}<key>")
    return COLUMNS[field]


def conjuncts(expression: Expression | None) -> Iterator[Expression]:
    """Yield conditions that together are ``expression``: the finer, the more can be asked of series alone."""
    if isinstance(expression, And):
        for part in expression.parts:
            yield from conjuncts(part)
    elif expression is not None:
        yield expression


def fields(expression: Expression | None) -> Iterator[Field]:
    """Yield what ``expression`` compares, with repetitions."""
    match expression:
        case And(parts) | Or(parts):
            for part in parts:
                yield from fields(part)
        case Not(part):
            yield from fields(part)
        case Comparison(field) | In(field):
            yield field


def about_series(expression: Expression) -> bool:
    """Say whether ``expression`` is true of all samples of a series or of none."""
    return all(field in COLUMNS and COLUMNS[field].of_series for field in fields(expression))


def about_metadata(expression: Expression) -> bool:
    """Say whether ``expression`` asks of nothing but metadata."""
    return all(names_metadata(field) for field in fields(expression))


def condition(expression: Expression) -> Sql:
    """Return ``expression`` of a row ``s`` of ``sample`` with its series ``x`` and its metadata ``d``; see :mod:`meter.testing.filters`."""
    match expression:
        case And(parts):
            return both(condition(part) for part in parts)
        case Or(parts):
            return either(condition(part) for part in parts)
        case Not(part):
            return negated(condition(part))
        case Comparison(field, "!=", value):
            return negated(condition(Comparison(field, "=", value)))
        case Comparison(field, "=", value):
            return condition(In(field, (value,)))
        case In(field, values) if names_metadata(field):
            return metadata_is(field.removeprefix(METADATA), values)
        case Comparison(field, operator, value) if names_metadata(field):
            return metadata_compares(field.removeprefix(METADATA), operator, value)
        case In(field, values):
            return _is(field, values)
        case Comparison(field, operator, value):
            return _compares(field, operator, value)


def _is(field: Field, values: tuple[Scalar, ...]) -> Sql:
    column = column_of(field)
    comparable = [value for value in map(_MADE[column.type], values) if value is not None]
    if field == "message_id":
        return Sql("s.message_id = ANY(%s::uuid[])", ([uuid_of(value) for value in comparable],))
    return column.satisfying(Sql(f"{column.text} = ANY(%s::{column.type}[])", (comparable,)))


def _compares(field: Field, operator: str, value: Scalar) -> Sql:
    column = column_of(field)
    comparable = _MADE[column.type](value)
    if comparable is None or (operator == "~" and column.type != "text"):
        return Sql("false")
    return column.satisfying(Sql(f"{column.text} {operator} %s::{column.type}", (comparable,)))


def names_metadata(field: Field) -> bool:
    """Say whether ``field`` is an element of metadata."""
    return field.startswith(METADATA) and field != METADATA


def _text(value: Scalar) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Scalar) -> float | None:
    """Return the double nearest to ``value``: as such volumes are compared, those beyond all doubles as infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _time(value: Scalar) -> datetime | None:
    return value if isinstance(value, datetime) else None


_MADE: Mapping[str, Callable[[Scalar], Any]] = {"text": _text, "float8": _number, "timestamptz": _time}
"""What makes a value comparable with a column of a type; it returns ``None`` for one of another kind."""
