"""Questions in SQL: what a :class:`meter.query.SampleFilter` asks of series and of samples, every value a parameter."""

from __future__ import annotations

from meter.interfaces import RequestError
from meter.query import Comparison
from meter.query import Marker
from meter.query import SampleFilter
from meter.store.expressions import METADATA
from meter.store.expressions import about_series
from meter.store.expressions import condition
from meter.store.expressions import conjuncts
from meter.store.record import uuid_of
from meter.store.sql import Sql
from meter.store.sql import both

SERIES_FIELDS = {"resource_id": "resource", "user_id": '"user"', "project_id": "project", "source": "source"}
"""Fields of a series and the tables of their names; the column of ``series`` is ``<name>_id``."""

NULLABLE = frozenset({"user_id", "project_id", "source"})


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
    conditions.extend(_expressions(filter, series=True))
    return both(conditions)


def of_sample(filter: SampleFilter) -> Sql:
    """Return what ``filter`` asks of a row ``s`` of ``sample`` beyond what it asks of its series, the row ``x``."""
    conditions = []
    if filter.start is not None:
        conditions.append(Sql(f"s.timestamp {'>' if filter.after_start else '>='} %s", (filter.start,)))
    if filter.end is not None:
        conditions.append(Sql(f"s.timestamp {'<=' if filter.through_end else '<'} %s", (filter.end,)))
    if filter.as_of is not None:
        conditions.append(Sql("s.recorded_at <= %s", (filter.as_of,)))
    if "message_id" in filter.equals:
        message_id = filter.equals["message_id"]
        if message_id is None:
            conditions.append(Sql("false"))
        else:
            conditions.append(Sql("s.message_id = %s::uuid", (uuid_of(message_id),)))
    conditions.extend(_expressions(filter, series=False))
    return both(conditions)


def only_series_and_range(filter: SampleFilter) -> bool:
    """Say whether of the samples of a series ``filter`` lets through all in a range of time, or none."""
    return (
        filter.as_of is None
        and "message_id" not in filter.equals
        and not filter.metadata
        and all(about_series(part) for part in conjuncts(filter.expression))
    )


def _expressions(filter: SampleFilter, *, series: bool) -> list[Sql]:
    """Return what ``filter`` says in expressions: about series alone, or all the rest."""
    matches = [Comparison(METADATA + match.key, "=", match.value) for match in filter.metadata]
    try:
        parts = [*conjuncts(filter.expression), *matches]
        return [condition(part) for part in parts if about_series(part) is series]
    except RecursionError as error:
        raise RequestError("the expression is nested too deeply") from error


def beyond(marker: Marker | None) -> Sql:
    """Return what holds of the samples ``s`` that come after ``marker`` in the order newest first."""
    if marker is None:
        return Sql("true")
    at = marker.timestamp
    # The first condition follows from the second, but only it tells PostgreSQL which partitions to leave alone.
    return Sql(
        "s.timestamp <= %s AND (s.timestamp, s.message_id) < (%s, %s::uuid)", (at, at, uuid_of(marker.message_id))
    )
