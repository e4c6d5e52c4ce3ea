"""The packed samples of a range of time and of some series: those that are here, and those on archive servers, which are read together."""

from __future__ import annotations

import re
from typing import NamedTuple

from meter.store.packing.packed_rows import WEEKS_SINCE
from meter.store.packing.packed_rows import archived_between
from meter.store.packing.packed_rows import overlaps
from meter.store.packing.packed_rows import unpacked_here
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled

NO_START = Sql("'-infinity'::timestamptz")
NO_END = Sql("'infinity'::timestamptz")

PACKED = """
    {unpacked}
    WHERE {series} AND {overlaps} AND {condition}
    OFFSET 0
"""
PACKED_ANYWHERE = """
    ({here})
    UNION ALL
    {archived}
"""

_SERIES = re.compile(r"p\.series_id = (?:ANY\((?P<several>.*)\)|(?P<one>.*))", re.DOTALL)


class TimeBounds(NamedTuple):
    """SQL for the first and the last time of a range, both included. Samples just outside of it may be read, too.

    ``since``: the first time of the range that it is a part of, if it is one. The first time of a part is known only when the statement is executed;
    that of the whole range says to PostgreSQL which weeks of packed samples it need not plan.
    """

    first: Sql
    last: Sql
    since: Sql = NO_START

    def within(self, first: Sql | str, last: Sql | str) -> TimeBounds:
        """Return the bounds of the part of the range that lies from ``first`` to ``last``, SQL for times that can be null for none."""
        since = self.first if self.since == NO_START and first != NO_START else self.since
        return TimeBounds(_both("greatest", self.first, first), _both("least", self.last, last), since)


def of_weeks_since(first: Sql) -> Sql:
    """Return the condition on packed rows ``p`` that excludes the partitions of weeks before ``first``.

    Without a start there is none: PostgreSQL would take the first time of a row for a reason to use the primary key.
    """
    return Sql("true") if first == NO_START else filled(WEEKS_SINCE, first=first)


def ids_of_series(condition: Sql | str) -> Sql:
    """Return the SQL array of the series that meet ``condition``, one on ``p.series_id``; null for all."""
    text, parameters = str(condition), condition.parameters if isinstance(condition, Sql) else ()
    found = _SERIES.fullmatch(text)
    if found is None:
        if text != "true":
            raise ValueError(f"no condition on the id of a series: {text}")
        return Sql("NULL")
    return Sql(found["several"] or f"ARRAY[{found['one']}]", parameters)


def packed_part(
    columns: tuple[str, ...],
    bounds: TimeBounds,
    series: Sql | str,
    condition: Sql | str,
    *,
    recorded_since: Sql | str = "",
    visible: Sql | str = "true",
) -> Sql:
    """Return the subquery of the packed samples of the rows ``p`` that meet the conditions ``series`` and ``condition``.

    On archive servers ``recorded_since``, the time since which a row must have recorded samples, takes the place of ``condition``. So what
    ``condition`` excludes beyond that, the statement must exclude again by conditions on the samples.
    ``visible`` is a condition on series ``x``: if any series is meant, archive servers are asked only about those that meet it.
    """
    ids = ids_of_series(series)
    if str(ids) == "NULL" and str(visible) != "true":
        ids = filled("ARRAY(SELECT x.id FROM series x WHERE {visible})", visible=visible)
    return filled(
        PACKED_ANYWHERE,
        here=packed_here(columns, bounds, series, condition),
        archived=archived_part(columns, bounds, ids, recorded_since=recorded_since),
    )


def packed_here(columns: tuple[str, ...], bounds: TimeBounds, series: Sql | str, condition: Sql | str) -> Sql:
    """Return :func:`packed_part` without what is only on archive servers."""
    return filled(
        PACKED,
        unpacked=within(unpacked_here(columns, first="{first}", last="{last}"), bounds),
        series=series,
        overlaps=within(overlaps("{first}", "{last}"), bounds),
        condition=condition
        if bounds.since == NO_START
        else filled("{since} AND {condition}", since=of_weeks_since(bounds.since), condition=condition),
    )


def archived_part(
    columns: tuple[str, ...],
    bounds: TimeBounds,
    ids: Sql | str,
    *,
    recorded_since: Sql | str = "",
    without_lost: bool = False,
) -> Sql:
    """Return the subquery of the samples on archive servers, of the series in the SQL array ``ids``, null for all.

    ``without_lost``: those of weeks that are lost are left out, instead of an error.
    """
    return filled(
        archived_between(
            columns,
            series="{ids}",
            first="{first}",
            last="{last}",
            recorded_since="{recorded_since}",
            without_lost=without_lost,
        ),
        ids=ids,
        recorded_since=recorded_since if str(recorded_since) else "NULL",
        first=bounds.first,
        last=bounds.last,
    )


def _both(function: str, time: Sql, other: Sql | str) -> Sql:
    unlimited = (NO_START, NO_END)
    if other in unlimited:
        return time
    return (
        filled("{other}", other=other)
        if time in unlimited
        else filled(f"{function}({{time}}, {{other}})", time=time, other=other)
    )


def within(template: str, bounds: TimeBounds) -> Sql:
    """Return ``template`` with ``bounds`` in place of ``{first}`` and ``{last}``."""
    return filled(template, first=bounds.first, last=bounds.last)
