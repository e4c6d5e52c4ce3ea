"""Questions in SQL: what a :class:`meter.query.SampleFilter` asks of series and of samples, every value a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from meter.interfaces import RequestError
from meter.query import Comparison
from meter.query import In
from meter.query import Marker
from meter.query import SampleFilter
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.query.access_paths import METADATA_OF_SAMPLE
from meter.store.query.expressions import COLUMNS
from meter.store.query.expressions import METADATA
from meter.store.query.expressions import about_metadata
from meter.store.query.expressions import about_series
from meter.store.query.expressions import condition
from meter.store.query.expressions import conjuncts
from meter.store.query.expressions import fields
from meter.store.query.expressions import names_metadata
from meter.store.write.record import uuid_of

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
    return both([*conditions, *_expressions(filter).of_series])


def of_metadata(filter: SampleFilter) -> Sql | None:
    """Return what ``filter`` asks of a row ``d`` of ``metadata``, if anything."""
    conditions = _expressions(filter).of_metadata
    return both(conditions) if conditions else None


def of_sample(filter: SampleFilter) -> Sql:
    """Return what ``filter`` asks of a row ``s`` of ``sample`` beyond what it asks of its series, the row ``x``.

    Where :func:`metadata_of_sample` adds them, it asks of the sample's metadata ``d``; some ask of ``x`` once more
    (:func:`needs_series`).
    """
    metadata = of_metadata(filter)
    return both([of_row(filter), *([metadata] if metadata else [])])


def metadata_of_sample(filter: SampleFilter) -> str:
    """Return what adds the metadata ``d`` to samples ``s`` where :func:`of_sample` needs them."""
    said = _expressions(filter)
    return METADATA_OF_SAMPLE if said.of_metadata or said.rest_names_metadata else ""


def metadata_of_row(filter: SampleFilter) -> str:
    """Return what adds the metadata ``d`` to samples ``s`` where :func:`of_row` needs them."""
    return METADATA_OF_SAMPLE if _expressions(filter).rest_names_metadata else ""


def needs_series(filter: SampleFilter) -> bool:
    """Say whether :func:`of_sample` asks of the row ``x`` of the series."""
    return _expressions(filter).rest_names_series


def of_row(filter: SampleFilter) -> Sql:
    """Return what ``filter`` asks of a row ``s`` beyond what it asks of its series alone, and of its metadata alone."""
    conditions = [of_range(filter)]
    if filter.as_of is not None:
        conditions.append(Sql("s.recorded_at <= %s", (filter.as_of,)))
    if "message_id" in filter.equals:
        message_id = filter.equals["message_id"]
        if message_id is None:
            conditions.append(Sql("false"))
        else:
            conditions.append(Sql("s.message_id = %s::uuid", (uuid_of(message_id),)))
    return both([*conditions, *_expressions(filter).of_rest])


def of_range(filter: SampleFilter) -> Sql:
    """Return what ``filter`` asks of the time of a row ``s`` of ``sample``."""
    bounds = []
    if filter.start is not None:
        bounds.append(Sql(f"s.timestamp {'>' if filter.after_start else '>='} %s", (filter.start,)))
    if filter.end is not None:
        bounds.append(Sql(f"s.timestamp {'<=' if filter.through_end else '<'} %s", (filter.end,)))
    return both(bounds)


def answerable_by_rollups(filter: SampleFilter) -> bool:
    """Say whether ``filter`` lets through all or none of a series' samples that share their metadata, in a range of time."""
    return filter.as_of is None and "message_id" not in filter.equals and not _expressions(filter).of_rest


def about_resources(filter: SampleFilter) -> bool:
    """Say whether ``filter`` asks which resource a sample is of."""
    return "resource_id" in filter.equals or "resource_id" in fields(filter.expression)


def asks_for_ids(filter: SampleFilter) -> bool:
    """Say whether ``filter`` names the ids of all messages that it lets through."""
    return "message_id" in filter.equals or any(
        part.field == "message_id" and (isinstance(part, In) or part.operator == "=")
        for part in conjuncts(filter.expression)
        if isinstance(part, In | Comparison)
    )


def asks_since_recording(filter: SampleFilter) -> bool:
    """Say whether ``filter`` bounds from below when samples were recorded, and not their own time."""
    bounded = {
        part.field
        for part in conjuncts(filter.expression)
        if isinstance(part, Comparison) and part.operator in ("=", ">", ">=") and isinstance(part.value, datetime)
    }
    return "recorded_at" in bounded and "timestamp" not in bounded and filter.start is None


@dataclass(slots=True)
class _Expressions:
    """What a filter says in expressions, all of which must hold: of series alone, of metadata alone, and the rest."""

    of_series: list[Sql]
    of_metadata: list[Sql]
    of_rest: list[Sql]
    rest_names_series: bool = False
    rest_names_metadata: bool = False


def _expressions(filter: SampleFilter) -> _Expressions:
    said = _Expressions([], [], [])
    matches = [Comparison(METADATA + match.key, "=", match.value) for match in filter.metadata]
    try:
        for part in [*conjuncts(filter.expression), *matches]:
            if about_series(part):
                said.of_series.append(condition(part))
            elif about_metadata(part):
                said.of_metadata.append(condition(part))
            else:
                said.of_rest.append(condition(part))
                named = list(fields(part))
                said.rest_names_metadata |= any(map(names_metadata, named))
                said.rest_names_series |= any(name in COLUMNS and COLUMNS[name].of_series for name in named)
    except RecursionError as error:
        raise RequestError("the expression is nested too deeply") from error
    return said


def beyond(marker: Marker | None) -> Sql:
    """Return what holds of the samples ``s`` that come after ``marker`` in the order newest first."""
    if marker is None:
        return Sql("true")
    at = marker.timestamp
    # The first condition follows from the second, but only it tells PostgreSQL which partitions to leave alone.
    return Sql(
        "s.timestamp <= %s AND (s.timestamp, s.message_id) < (%s, %s::uuid)", (at, at, uuid_of(marker.message_id))
    )
