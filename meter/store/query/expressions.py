"""Expressions of :mod:`meter.query` as SQL conditions. They are true or false of every sample, never null, so that ``NOT`` negates.

Within a project, names are compared only if a series of the project has them: how long that takes does not depend on the names
of others. An exact name is an index lookup.
"""

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
from meter.store.postgres.sql import filled
from meter.store.postgres.sql import negated
from meter.store.query.metadata import metadata_compares
from meter.store.query.metadata import metadata_equals_any
from meter.store.write.record import uuid_of
from meter.text_pattern import text_pattern

METADATA_PREFIX = "metadata."

MESSAGE_ID = (
    "CASE WHEN left(s.verbatim_json, 1) = '{' THEN s.verbatim_json::json ->> 'message_id' ELSE s.message_id::text END"
)
"""The message id as it was sent, which need not be a UUID."""

# OFFSET 0 keeps PostgreSQL from evaluating the condition on all names first.
VISIBLE_NAMES = """{column} = ANY(ARRAY(
    SELECT named.id
    FROM (SELECT DISTINCT v.{reference} AS id FROM series v WHERE v.project_id = {project} OFFSET 0) visible
    CROSS JOIN LATERAL (SELECT n.* FROM {table} n WHERE n.id = visible.id OFFSET 0) named
    WHERE {condition}
))"""


def series_reference(column: str, project: Sql | None) -> str:
    """Return the ``column`` of a series ``x`` for a condition.

    Within a ``project``, a meter is written so that no index can serve it: the key of ``series`` begins with the meter, and
    would find the series of all projects.
    """
    return f"x.{column} + 0" if project is not None and column == "meter_id" else f"x.{column}"


@dataclass(frozen=True, slots=True)
class Column:
    """Where the value of a field is stored.

    ``expression`` is SQL over the row of ``table`` to whose id the column ``reference`` of a series refers; without a table,
    over the row ``s`` of ``sample``. ``type`` is its PostgreSQL type.
    """

    expression: str
    type: Literal["text", "float8", "timestamptz"] = "text"
    table: str = ""
    reference: str = ""

    @property
    def belongs_to_series(self) -> bool:
        """Whether all samples of a series have the same value."""
        return bool(self.table)

    @property
    def value(self) -> str:
        """SQL for the value of a sample ``s`` in a series ``x``; null where it has none."""
        if self.table:
            return f"(SELECT {self.expression} FROM {self.table} WHERE id = x.{self.reference})"
        return self.expression

    def where(self, condition: Sql, project: Sql | None, *, by_name: bool = False) -> Sql:
        """Return ``condition``, which is written with ``expression``, as a condition on ``s`` or ``x``.

        ``project`` is SQL for the id of the only visible project, ``None`` if all are visible. ``by_name`` if the condition is
        a lookup in the index of names.
        """
        if not self.table:
            return condition
        reference = series_reference(self.reference, project)
        if project is None or (by_name and self.expression == "name"):
            return Sql(f"{reference} IN (SELECT id FROM {self.table} WHERE {condition})", condition.parameters)
        return filled(
            VISIBLE_NAMES,
            column=reference,
            reference=self.reference,
            table=self.table,
            project=project,
            condition=condition,
        )


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
    """Return the column of a ``field`` other than metadata; :class:`RequestError` for an unknown field."""
    if field not in COLUMNS:
        raise RequestError(f"samples have no field {field!r}: use {', '.join(COLUMNS)} or {METADATA_PREFIX}<key>")
    return COLUMNS[field]


def conjuncts(expression: Expression | None) -> Iterator[Expression]:
    """Yield the operands of the outermost conjunctions: the more there are, the more can be evaluated on series alone."""
    if isinstance(expression, And):
        for part in expression.parts:
            yield from conjuncts(part)
    elif expression is not None:
        yield expression


def compared_fields(expression: Expression) -> Iterator[Field]:
    """Yield each field that ``expression`` compares, with repetitions."""
    match expression:
        case And(parts) | Or(parts):
            for part in parts:
                yield from compared_fields(part)
        case Not(part):
            yield from compared_fields(part)
        case Comparison(field) | In(field):
            yield field


def is_series_field(field: Field) -> bool:
    """Return whether all samples of a series have the same ``field``."""
    return field in COLUMNS and COLUMNS[field].belongs_to_series


def is_metadata_field(field: Field) -> bool:
    """Return whether ``field`` is an element of metadata."""
    return field.startswith(METADATA_PREFIX) and field != METADATA_PREFIX


def expression_condition(expression: Expression, project: Sql | None = None) -> Sql:
    """Return ``expression`` as a condition on a row ``s`` of ``sample``, its series ``x`` and its metadata ``d``.

    ``project`` is SQL for the id of the only visible project. :mod:`meter.testing.filters` defines what it means.
    """
    match expression:
        case And(parts):
            return both(expression_condition(part, project) for part in parts)
        case Or(parts):
            return either(expression_condition(part, project) for part in parts)
        case Not(part):
            return negated(expression_condition(part, project))
        case Comparison(field, "!=", value):
            return negated(expression_condition(Comparison(field, "=", value), project))
        case Comparison(field, "=", value):
            return expression_condition(In(field, (value,)), project)
        case In(field, values) if is_metadata_field(field):
            return metadata_equals_any(field.removeprefix(METADATA_PREFIX), values)
        case Comparison(field, operator, value) if is_metadata_field(field):
            return metadata_compares(field.removeprefix(METADATA_PREFIX), operator, value)
        case In(field, values):
            return _equals_any(field, values, project)
        case Comparison(field, operator, value):
            return _compares(field, operator, value, project)


def _equals_any(field: Field, values: tuple[Scalar, ...], project: Sql | None) -> Sql:
    column = column_of(field)
    comparable = [value for value in map(_COMPARABLE[column.type], values) if value is not None]
    if field == "message_id":
        return Sql("s.message_id = ANY(%s::uuid[])", ([uuid_of(value) for value in comparable],))
    return column.where(Sql(f"{column.expression} = ANY(%s::{column.type}[])", (comparable,)), project, by_name=True)


def _compares(field: Field, operator: str, value: Scalar, project: Sql | None) -> Sql:
    column = column_of(field)
    comparable = _COMPARABLE[column.type](value)
    if comparable is None or (operator == "~" and column.type != "text"):
        return Sql("false")
    if operator == "~":
        comparable = text_pattern(comparable).text
    return column.where(Sql(f"{column.expression} {operator} %s::{column.type}", (comparable,)), project)


def _text(value: Scalar) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Scalar) -> float | None:
    """Return the double nearest to ``value``, as volumes are doubles; infinity for a number beyond the range of doubles."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _time(value: Scalar) -> datetime | None:
    return value if isinstance(value, datetime) else None


_COMPARABLE: Mapping[str, Callable[[Scalar], Any]] = {"text": _text, "float8": _number, "timestamptz": _time}
"""By the type of a column, the function that converts a value for comparison; ``None`` for a value of another kind."""
