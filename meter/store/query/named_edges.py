"""SQL with named parameters that finds the newest or the oldest sample of a series between two times."""

from __future__ import annotations

from meter.store.postgres.sql import Sql
from meter.store.query.archived_edges import edge_table
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.sample_rows import first_of_series
from meter.store.query.sample_rows import listed

# A time as min() and max() is one step on the index of each week.
PLAIN_EDGE_OF_SERIES = """
    SELECT {columns} FROM (
        SELECT {function}(s.timestamp) AS at FROM sample s WHERE s.series_id = {series} AND {condition}
    ) AS edge CROSS JOIN LATERAL (
        SELECT {columns} FROM sample s WHERE s.series_id = {series} AND s.timestamp = edge.at AND {condition}
        ORDER BY s.message_id {direction} LIMIT 1
    ) AS s
"""


def edge_of_series(
    columns: tuple[str, ...],
    first: str,
    last: str,
    *,
    series: str,
    condition: str,
    oldest: bool = False,
    edges: str = "",
) -> str:
    """Return the subquery of the newest sample of one series, or the ``oldest``, from ``first`` to ``last``, both included, that meets ``condition``.

    The parameters of all these are named. ``edges`` is the name of a table that :func:`archived_edges_of` makes of the same arguments.
    """
    within = _within(first, last, condition)
    plain = PLAIN_EDGE_OF_SERIES.format(
        columns=listed(columns),
        function="min" if oldest else "max",
        series=series,
        condition=within,
        direction="ASC" if oldest else "DESC",
    )
    bounds = TimeBounds(Sql(first), Sql(last))
    return str(
        first_of_series(
            columns, bounds, series=series, condition=within, limit=1, plain=plain, oldest=oldest, edges=edges
        )
    )


def archived_edges_of(
    name: str,
    columns: tuple[str, ...],
    first: str,
    last: str,
    *,
    ids: str,
    condition: str,
    oldest: bool = False,
) -> str:
    """Return the common table expression ``name`` for :func:`edge_of_series`, of all series in the array ``ids``."""
    within = _within(first, last, condition)
    return str(edge_table(name, columns, first if oldest else last, ids, condition=within, oldest=oldest))


def _within(first: str, last: str, condition: str) -> str:
    return f"s.timestamp >= {first} AND s.timestamp <= {last} AND {condition}"
