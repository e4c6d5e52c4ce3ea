"""Pages of samples in a spread store: each server finds the newest ones of its shards, and the coordinator checks the other conditions.

Series are values of the statement, so that servers without any of them are not asked. Metadata and names are at the coordinator: if a
condition on them leaves too few samples, many times as many are read.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from typing import Any

from meter.query import Marker
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import FEW_SERIES
from meter.store.query.access_paths import SERIES_OF_SAMPLE
from meter.store.query.access_paths import AccessPath
from meter.store.query.conditions import FilterConditions
from meter.store.query.samples import COLUMNS_OF_PAGE
from meter.store.query.samples import selected_rows

SERIES = f"""
SELECT cardinality(ids), ids::text, ({FEW_SERIES})
FROM (SELECT ARRAY(SELECT x.id FROM series x WHERE {{series}}) AS ids) AS matching
"""

# One row at least, with the number of samples that were read.
PAGE = """
WITH read AS MATERIALIZED (SELECT * FROM {source} s)
SELECT n.read, page.* FROM (SELECT count(*) AS read FROM read) AS n LEFT JOIN LATERAL ({page}) AS page ON true
"""
MATCHING = f"""
SELECT {COLUMNS_OF_PAGE} FROM read s {{joins}} WHERE {{condition}}
ORDER BY s.timestamp DESC, s.message_id DESC LIMIT {{limit}}
"""

IN_ORDER = "spread_samples_in_order({series}, {first}, {last}, false, 0, {rows}, true)"
OF_EACH = "spread_samples_of_each({series}, {first}, {last}, false, {rows}, true, true)"

GROWTH = 16
"""How many times as many samples are read if those that were read are not enough."""

MAX_ROWS = 300_000
"""Beyond this all are read: the statement timeout ends a query for which that is too many."""


async def spread_page(
    query: Callable[[Sql], Awaitable[list[tuple[Any, ...]]]],
    conditions: FilterConditions,
    limit: int,
    after: Marker | None,
    form: Callable[[Sql], Sql],
) -> list[tuple[Any, ...]]:
    """Return the rows for ``IStore.samples``, newest first, if nothing is packed; ``query`` executes a statement.

    ``form`` changes the query that selects the samples to select other columns.
    """
    conditions = conditions.after(after)
    ids, source = Sql("NULL"), IN_ORDER
    if conditions.access_path is AccessPath.SERIES:
        [[count, text, few]] = await query(filled(SERIES, series=conditions.series))
        if not count:
            return []
        ids = Sql("%s::integer[]", (text,))
        source = OF_EACH if count <= few else IN_ORDER
    rows: int | None = limit
    while True:
        found = await query(_page(conditions, source, ids, limit, rows, form))
        page = [row[1:] for row in found if row[1] is not None]
        if len(page) == limit or rows is None or found[0][0] < rows:
            return page
        rows = rows * GROWTH if rows * GROWTH <= MAX_ROWS else None


def _page(
    conditions: FilterConditions, source: str, ids: Sql, limit: int, rows: int | None, form: Callable[[Sql], Sql]
) -> Sql:
    page = filled(
        MATCHING,
        # The series are those of the statement already.
        joins=f"{SERIES_OF_SAMPLE} {conditions.joined_metadata}",
        condition=conditions.sample if conditions.access_path is AccessPath.SERIES else conditions.sample_of_any_series,
        limit=limit,
    )
    read = filled(
        source,
        series=ids,
        first=conditions.bounds.first,
        last=conditions.bounds.last,
        rows="NULL" if rows is None else str(rows),
    )
    return filled(PAGE, source=read, page=form(selected_rows(page)))
