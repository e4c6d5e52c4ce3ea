"""The conditions of a :class:`meter.query.SampleFilter` in SQL, split once by the tables that they need.

Every value is a parameter. The aliases are ``s`` for ``sample``, ``x`` for ``series`` and ``d`` for ``metadata``.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from itertools import islice

from meter.interfaces import RequestError
from meter.query import Comparison
from meter.query import Expression
from meter.query import IdField
from meter.query import In
from meter.query import Marker
from meter.query import SampleFilter
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import METADATA_OF_SAMPLE
from meter.store.query.access_paths import SERIES_OF_SAMPLE
from meter.store.query.access_paths import AccessPath
from meter.store.query.expressions import METADATA_PREFIX
from meter.store.query.expressions import compared_fields
from meter.store.query.expressions import conjuncts
from meter.store.query.expressions import expression_condition
from meter.store.query.expressions import is_metadata_field
from meter.store.query.expressions import is_series_field
from meter.store.query.expressions import series_reference
from meter.store.query.metadata import documents_with_any
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import NO_START
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.sample_rows import first_of_series
from meter.store.query.sample_rows import listed
from meter.store.query.sample_rows import sample_columns
from meter.store.query.time_range import TimeRange
from meter.store.write.record import uuid_of

SERIES_FIELDS = {"resource_id": "resource", "user_id": '"user"', "project_id": "project", "source": "source"}
"""Fields of a series and the tables of their names; :func:`series_column` is the column of ``series``."""

LOOKUP_FIELDS = frozenset({"timestamp", "recorded_at"})
"""Times of a sample that have an index."""

NULLABLE = frozenset({"user_id", "project_id", "source"})

MAX_DOCUMENT_CONDITIONS = 10
"""Conditions on metadata that an index serves at most; all are compared afterwards."""

TRUE = both(())
"""The condition that restricts nothing."""


@dataclass(frozen=True, slots=True)
class FilterConditions:
    """The conditions of a filter, all of which must be true; each is :data:`TRUE` if the filter has none of its kind.

    ``message_ids`` is an array to which the id of each sample belongs, empty where it is not known. ``bounds`` are those of the timestamps, as
    far as they are known. ``series`` is about a row of ``series`` alone, ``metadata`` about a row of ``metadata`` alone, and ``range`` about
    the timestamp of a row of ``sample``. ``lookup`` is about the times and the id of a row of ``sample``, by which indexes find
    it; ``content`` is about a row of ``sample``, with its series and its metadata where ``rest_needs_series`` and
    ``rest_needs_metadata`` are true. Each is a conjunction that can follow ``AND`` as it is. ``visible`` is the part of
    ``series`` that restricts it to one project. ``as_of`` is the part of ``lookup`` about what was recorded, and ``resources`` the
    part of ``series`` that names a meter and a resource: steps lead between all samples that meet these two and the range.
    """

    series: Sql
    resources: Sql
    metadata: Sql
    range: Sql
    as_of: Sql
    lookup: Sql
    content: Sql
    visible: Sql
    rest_needs_series: bool
    rest_needs_metadata: bool
    bounds: TimeBounds
    message_ids: Sql
    recorded_since: Sql
    marker: Sql
    time_range: TimeRange
    access_path: AccessPath
    documents: Sql
    """A condition on a row ``d`` of ``metadata`` that an index serves, and that those of all matching samples meet; :data:`TRUE` if there is none."""
    selects_resources: bool
    """Whether the result depends on the resource that a sample is of."""
    selects_owners: bool
    """Whether it depends on the user, the project or the source."""
    of_few_resources: bool = False
    """Whether the statement has the resources of the metadata, in the table of :mod:`meter.store.query.metadata_resources`."""

    @property
    def selects_between_steps(self) -> bool:
        """Whether some samples that steps lead to or from do not match."""
        return self.selects_series or self.metadata != TRUE or self.rest != self.as_of

    @property
    def selects_in_series(self) -> bool:
        """Whether samples of a matching series may not match, whatever their times."""
        return self.metadata != TRUE or self.content != TRUE

    @property
    def selects_series(self) -> bool:
        """Whether some series of a meter and resource match and others do not."""
        return self.series != self.resources

    @property
    def retained(self) -> Sql:
        """The condition that a row of ``series`` may have samples after the start of the range: no later ones than its ``retained_until``.

        Of the series that a store has ever seen, few are still measured; samples and rollups of the others need not be looked for.
        """
        start = self.time_range.start
        return TRUE if start is None else Sql("x.retained_until >= %s", (start,))

    @property
    def rest(self) -> Sql:
        """The conditions on a row of ``sample`` other than :attr:`range`."""
        return conjunction(self.lookup, self.content)

    @property
    def sample(self) -> Sql:
        """The conditions on a sample and its metadata, which :attr:`joined_metadata` joins."""
        return conjunction(self.range, self.rest, self.metadata, self.marker)

    @property
    def of_all_samples(self) -> bool:
        """Whether all samples of a matching series match."""
        return self.sample == TRUE

    @property
    def sample_of_any_series(self) -> Sql:
        """The same for a statement that finds samples of all projects and joins their series ``x``.

        ``CASE`` keeps PostgreSQL from evaluating a condition on the content of a sample before it knows that the sample is of
        the visible project: the time that takes would depend on the content.
        """
        content = conjunction(self.content, self.metadata)
        if self.visible == TRUE or content == TRUE:
            return self.sample
        guarded = filled("CASE WHEN {visible} THEN {content} ELSE false END", visible=self.visible, content=content)
        return conjunction(self.range, self.lookup, guarded, self.marker)

    def after(self, marker: Marker | None) -> FilterConditions:
        """Return the conditions of the samples that come after ``marker`` in the order newest first."""
        if marker is None:
            return self
        return replace(self.within(NO_START, Sql("%s::timestamptz", (marker.timestamp,))), marker=after_marker(marker))

    def within(self, first: Sql, last: Sql) -> FilterConditions:
        """Return the same conditions with narrower :attr:`bounds`."""
        return replace(self, bounds=self.bounds.within(first, last))

    @property
    def joined_metadata(self) -> str:
        """The join of the metadata that :attr:`sample` needs, or an empty string."""
        return METADATA_OF_SAMPLE if self.rest_needs_metadata or self.metadata != TRUE else ""

    @property
    def joined_for_rest(self) -> str:
        """The joins that :attr:`rest` needs."""
        series = SERIES_OF_SAMPLE if self.rest_needs_series else ""
        return f"{series} {METADATA_OF_SAMPLE if self.rest_needs_metadata else ''}"


def split_filter(filter: SampleFilter) -> FilterConditions:
    """Return the conditions of ``filter``; :class:`RequestError` for a field or a value that cannot be compared."""
    project = _project_id(filter)
    series = _identity_conditions(filter.equals, project)
    resources = _identity_conditions(
        {field: value for field, value in filter.equals.items() if field in ("meter", "resource_id")}, None
    )
    metadata: list[Sql] = []
    lookup = _row_conditions(filter)
    content: list[Sql] = []
    fields_of_rest: set[str] = set()
    matches = [Comparison(METADATA_PREFIX + match.key, "=", match.value) for match in filter.metadata]
    try:
        parts = list(conjuncts(filter.expression))
        compared: set[str] = {*filter.equals}
        for part in [*parts, *matches]:
            fields = set(compared_fields(part))
            compared |= fields
            if all(map(is_series_field, fields)):
                series.append(expression_condition(part, project))
            elif all(map(is_metadata_field, fields)):
                metadata.append(expression_condition(part, project))
            elif fields <= LOOKUP_FIELDS or _lists_message_ids(part):
                lookup.append(expression_condition(part, project))
            else:
                content.append(expression_condition(part, project))
                fields_of_rest |= fields
    except RecursionError as error:
        raise RequestError("the expression is nested too deeply") from error
    return FilterConditions(
        series=both(series),
        resources=both(resources) if len(resources) < len(series) else both(series),
        metadata=both(metadata),
        range=TimeRange.of(filter).contains_sample(),
        as_of=both(_as_of_condition(filter)),
        lookup=both(lookup),
        content=both(content),
        visible=TRUE if project is None else both([_is_of_project(project)]),
        rest_needs_series=any(map(is_series_field, fields_of_rest)),
        rest_needs_metadata=any(map(is_metadata_field, fields_of_rest)),
        bounds=_bounds(filter, parts),
        message_ids=_message_ids(filter, parts),
        recorded_since=_recorded_since(parts),
        marker=TRUE,
        time_range=TimeRange.of(filter),
        access_path=_access_path(filter, parts, bool(series)),
        documents=_documents([*parts, *matches]),
        selects_resources="resource_id" in compared,
        selects_owners=not compared.isdisjoint(NULLABLE),
    )


def _project_id(filter: SampleFilter) -> Sql | None:
    """Return SQL for the id of the project to which ``filter`` is restricted, ``None`` if it is not restricted to one."""
    name = filter.equals.get("project_id")
    return None if name is None else Sql("(SELECT id FROM project WHERE name = %s)", (name,))


def _is_of_project(project: Sql) -> Sql:
    return Sql(f"x.project_id = {project}", project.parameters)


def _identity_conditions(equals: Mapping[IdField, str | None], project: Sql | None) -> list[Sql]:
    """Return the conditions of ``equals`` on a series."""
    conditions = []
    for field, value in equals.items():
        if field == "meter":
            reference = series_reference("meter_id", project)
            conditions.append(Sql(f"{reference} IN (SELECT id FROM meter WHERE name = %s)", (value,)))
        elif field in SERIES_FIELDS:
            column, table = series_column(field), SERIES_FIELDS[field]
            if value is not None:
                conditions.append(Sql(f"x.{column} = (SELECT id FROM {table} WHERE name = %s)", (value,)))
            else:
                conditions.append(Sql(f"x.{column} = 0" if field in NULLABLE else "false"))
        elif field != "message_id":
            raise RequestError(
                f"samples cannot be selected by {field!r}: use meter, message_id or {', '.join(SERIES_FIELDS)}"
            )
    return conditions


def _row_conditions(filter: SampleFilter) -> list[Sql]:
    """Return the conditions of ``as_of`` and of a message id on a sample."""
    conditions = _as_of_condition(filter)
    if "message_id" in filter.equals:
        message_id = filter.equals["message_id"]
        if message_id is None:
            conditions.append(Sql("false"))
        else:
            conditions.append(Sql("s.message_id = %s::uuid", (uuid_of(message_id),)))
    return conditions


def _as_of_condition(filter: SampleFilter) -> list[Sql]:
    return [] if filter.as_of is None else [Sql("s.recorded_at <= %s", (filter.as_of,))]


def _access_path(filter: SampleFilter, parts: Sequence[Expression], selects_series: bool) -> AccessPath:
    """Return the narrowest access path: message ids, then a lower bound of ``recorded_at``, then series, then time."""
    if "message_id" in filter.equals or any(map(_lists_message_ids, parts)):
        return AccessPath.MESSAGE_ID
    bounded = {
        part.field
        for part in parts
        if isinstance(part, Comparison) and part.operator in ("=", ">", ">=") and isinstance(part.value, datetime)
    }
    if "recorded_at" in bounded and "timestamp" not in bounded and filter.start is None:
        return AccessPath.RECORDED_AT
    return AccessPath.SERIES if selects_series else AccessPath.TIMESTAMP


def _bounds(filter: SampleFilter, parts: Sequence[Expression]) -> TimeBounds:
    """Return the bounds of the time range of ``filter``, narrowed by the ``parts`` of its expression that compare times."""
    bounds = TimeRange.of(filter).bounds()
    for part in parts:
        if isinstance(part, Comparison) and part.field == "timestamp" and isinstance(part.value, datetime):
            value = Sql("%s::timestamptz", (part.value,))
            first = value if part.operator in ("=", ">", ">=") else NO_START
            last = value if part.operator in ("=", "<", "<=") else NO_END
            bounds = bounds.within(first, last)
    return bounds


def _recorded_since(parts: Sequence[Expression]) -> Sql:
    times = [
        part.value
        for part in parts
        if isinstance(part, Comparison)
        and part.field == "recorded_at"
        and part.operator in ("=", ">", ">=")
        and isinstance(part.value, datetime)
    ]
    return Sql("%s::timestamptz", (max(times),)) if times else NO_START


def _message_ids(filter: SampleFilter, parts: Sequence[Expression]) -> Sql:
    ids = [] if (equal := filter.equals.get("message_id")) is None else [uuid_of(equal)]
    for part in parts:
        if not ids and _lists_message_ids(part):
            values = part.values if isinstance(part, In) else (getattr(part, "value", None),)
            ids = [uuid_of(value) for value in values if isinstance(value, str)]
    return Sql("%s::uuid[]", (ids,))


def _documents(parts: Iterable[Expression]) -> Sql:
    """Return :attr:`FilterConditions.documents` of the conjunction of ``parts``: those of the first few narrow enough."""
    return conjunction(*islice(_documents_of(parts), MAX_DOCUMENT_CONDITIONS))


def _documents_of(parts: Iterable[Expression]) -> Iterator[Sql]:
    for part in parts:
        if isinstance(part, In) or (isinstance(part, Comparison) and part.operator == "="):
            values = part.values if isinstance(part, In) else (part.value,)
            if is_metadata_field(part.field):
                documents = documents_with_any(part.field.removeprefix(METADATA_PREFIX), values)
                if documents is not None:
                    yield documents


def _lists_message_ids(part: Expression) -> bool:
    return isinstance(part, In | Comparison) and part.field == "message_id" and getattr(part, "operator", "=") == "="


def series_column(field: str) -> str:
    """Return the column of ``series`` that holds ``field``: ``resource_id``, ``source_id``."""
    return field if field.endswith("_id") else f"{field}_id"


def after_marker(marker: Marker | None) -> Sql:
    """Return the condition that a sample comes after ``marker`` in the order newest first."""
    if marker is None:
        return TRUE
    at = marker.timestamp
    # The first condition follows from the second, but only the first lets PostgreSQL exclude partitions.
    return Sql(
        "s.timestamp <= %s AND (s.timestamp, s.message_id) < (%s, %s::uuid)", (at, at, uuid_of(marker.message_id))
    )


def newest_of_series(
    conditions: FilterConditions,
    columns: str,
    limit: int,
    sample: Sql | None = None,
    *,
    spread: Sql | str = "",
    oldest: bool = False,
    edges: str = "",
    of_rows: Sql | str = "",
) -> Sql:
    """Return the subquery of the newest samples, or the ``oldest``, of the series ``x`` that meet the conditions.

    ``columns`` of ``s`` are selected. ``sample`` replaces the conditions on the sample, and ``spread`` the subquery that finds the
    plain ones of a spread store. ``edges`` is a table with what was read from archive servers before. ``of_rows`` is one more condition on
    packed rows, and follows others.
    """
    condition, joins = sample or conditions.sample, conditions.joined_metadata
    return first_of_series(
        sample_columns(columns, condition, joins),
        conditions.bounds,
        series="x.id",
        condition=condition,
        joins=joins,
        limit=limit,
        spread=spread,
        oldest=oldest,
        edges=edges,
        of_rows=of_rows,
    )


ANY_PLAIN = "SELECT {columns} FROM sample s {joins} WHERE s.series_id = x.id AND {sample} LIMIT 1"


def any_of_series(conditions: FilterConditions, *, spread: Sql | str = "", edges: str = "") -> Sql:
    """Return the subquery that has a row if the series ``x`` has a sample that meets the conditions.

    ``spread`` and ``edges`` are those of :func:`newest_of_series`.
    """
    condition, joins = conditions.sample, conditions.joined_metadata
    columns = sample_columns("s.message_id", condition, joins)
    plain = filled(ANY_PLAIN, columns=listed(columns), joins=joins, sample=condition)
    return first_of_series(
        columns,
        conditions.bounds,
        series="x.id",
        condition=condition,
        joins=joins,
        limit=1,
        plain=plain,
        spread=spread,
        any_of_row=conditions.bounds.last != NO_END,
        edges=edges,
    )


def conjunction(*conditions: Sql) -> Sql:
    """Return the conjunction of ``conditions``, each of which is a conjunction itself: :data:`TRUE` where there are none."""
    given = [condition for condition in conditions if condition != TRUE]
    if not given:
        return TRUE
    text = " AND ".join(condition.text for condition in given)
    return Sql(text, tuple(value for condition in given for value in condition.parameters))
