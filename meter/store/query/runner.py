"""Reading: each question of ``IStore`` is one statement, and some more for what its rows refer to by number."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from meter.interfaces import RequestError
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Pool
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import both
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import NEWEST_FIRST
from meter.store.query.as_of import wait_for_writers_before
from meter.store.query.conditions import metadata_of_sample
from meter.store.query.conditions import of_sample
from meter.store.query.conditions import of_series
from meter.store.query.dimension_cache import DimensionCaches
from meter.store.query.samples import Row
from meter.store.query.samples import complete
from meter.store.query.samples import recent_samples_query
from meter.store.query.samples import samples_of_many_series_query
from meter.store.query.samples import samples_of_series_query
from meter.store.query.samples import samples_query
from meter.store.query.samples import selective_series_query
from meter.store.query.statistics import statistics_rows
from meter.store.query.statistics import statistics_statement
from meter.store.write.record import Record
from meter.store.write.record import fields_of

METADATA_TEXT = "SELECT text FROM metadata WHERE id = %s"

# Sorted before they are looked into (OFFSET 0 keeps PostgreSQL to it), so that a page looks into no more than it shows.
METERS = """
SELECT pair.name, pair.type, pair.unit, pair.resource, u.name, p.name, o.name
FROM (
    SELECT m.name, m.type, m.unit, r.name AS resource, array_agg(x.id) AS ids
    FROM (SELECT * FROM series x WHERE {of_series} OFFSET 0) x
    CROSS JOIN LATERAL (SELECT m.name, m.type, m.unit FROM meter m WHERE m.id = x.meter_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
    GROUP BY m.name, m.type, m.unit, r.name
    ORDER BY m.name, r.name, m.type, m.unit OFFSET 0
) pair
CROSS JOIN LATERAL (
    SELECT x.user_id, x.project_id, x.source_id
    FROM series x
    CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id FROM sample s {added}
        WHERE s.series_id = x.id AND {of_sample}
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
    ) sample
    WHERE x.id = ANY(pair.ids)
    ORDER BY sample.timestamp DESC, sample.message_id DESC LIMIT 1
) newest
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = newest.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = newest.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = newest.source_id OFFSET 0) o ON true
ORDER BY pair.name, pair.resource, pair.type, pair.unit LIMIT {limit}
"""

# LIMIT 1 keeps PostgreSQL from looking for all samples at once.
UNIQUE_METERS = """
SELECT m.name, m.type, m.unit
FROM meter m
CROSS JOIN LATERAL (
    SELECT FROM series x
    CROSS JOIN LATERAL (SELECT FROM sample s {added} WHERE s.series_id = x.id AND {of_sample} LIMIT 1) s
    WHERE x.meter_id = m.id AND {of_series}
    LIMIT 1
) sampled
ORDER BY m.name, m.type, m.unit LIMIT {limit}
"""

ALL_RESOURCES = """
SELECT r.name, ARRAY(SELECT x.id FROM series x WHERE x.resource_id = r.id) AS ids FROM resource r ORDER BY r.name OFFSET 0
"""

RESOURCES_OF_SERIES = """
SELECT r.name, x.ids
FROM (SELECT x.resource_id, array_agg(x.id) AS ids FROM series x WHERE {of_series} GROUP BY x.resource_id OFFSET 0) x
CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
ORDER BY r.name OFFSET 0
"""

RESOURCES = """
SELECT asked.name, u.name, p.name, o.name, span.first_sample, span.last_sample, d.text,
    (SELECT array_agg(m.name ORDER BY m.name, m.type, m.unit) FROM meter m WHERE m.id = ANY(span.meter_ids))
FROM ({asked}) asked
CROSS JOIN LATERAL (
    SELECT min(oldest.timestamp) AS first_sample, max(newest.timestamp) AS last_sample,
        array_agg(DISTINCT x.meter_id) AS meter_ids,
        (array_agg(x.id ORDER BY newest.timestamp DESC, newest.message_id DESC))[1] AS series_id,
        (array_agg(newest.metadata_id ORDER BY newest.timestamp DESC, newest.message_id DESC))[1] AS metadata_id
    FROM series x
    CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id, s.metadata_id FROM sample s {added}
        WHERE s.series_id = x.id AND {of_sample}
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
    ) newest
    CROSS JOIN LATERAL (
        SELECT s.timestamp FROM sample s {added}
        WHERE s.series_id = x.id AND s.timestamp <= newest.timestamp AND {of_sample}
        ORDER BY s.timestamp LIMIT 1
    ) oldest
    WHERE x.id = ANY(asked.ids)
) span
CROSS JOIN LATERAL (SELECT d.text FROM metadata d WHERE d.id = span.metadata_id OFFSET 0) d
CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.id = span.series_id OFFSET 0) x
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = x.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = x.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = x.source_id OFFSET 0) o ON true
ORDER BY asked.name LIMIT {limit}
"""


def _listed(template: str, filter: SampleFilter, limit: int) -> Sql:
    """Return the statement that lists what has samples that ``filter`` lets through."""
    series = of_series(filter)
    return filled(
        f"{NEWEST_FIRST}{template}",
        asked=ALL_RESOURCES if series == both(()) else filled(RESOURCES_OF_SERIES, of_series=series),
        added=metadata_of_sample(filter),
        of_series=series,
        of_sample=of_sample(filter),
        limit=Sql("%s", (limit,)),
    )


class QueryRunner:
    """Answers questions over ``pool``, whose statements may take ``seconds``."""

    def __init__(self, pool: Pool, clock: IReactorTime, seconds: float) -> None:
        self._pool = pool
        self._clock = clock
        self._seconds = seconds
        self._lookups = DimensionCaches(pool)

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """See ``IStore.samples``."""
        if order and after:
            raise RequestError("a page can be continued in the order newest first only")
        await self._recorded(filter)
        rows = await self._sample_rows(filter, limit, order, after)
        found = await self._complete(rows)
        if len(found) < len(rows):
            # What is let go of between two questions is gone when asked again. Anything else is damage, left out.
            found = await self._complete(await self._sample_rows(filter, limit, order, after))
        return found

    async def _sample_rows(
        self, filter: SampleFilter, limit: int, order: Sequence[Order], after: Marker | None
    ) -> list[tuple[Any, ...]]:
        few = None if order else selective_series_query(filter)
        if few is None:
            return await self._asked(samples_query(filter, limit, order, after))
        [[most, series]] = await self._asked(few)
        if not series:
            return []
        if len(series) <= most:
            return await self._asked(samples_of_series_query(filter, limit, after, series))
        rows = await self._asked(recent_samples_query(filter, limit, after))
        return rows if len(rows) == limit else await self._asked(samples_of_many_series_query(filter, limit, after))

    async def _complete(self, rows: Sequence[tuple[Any, ...]]) -> list[StoredSample]:
        with self._answering():
            return await complete(rows, self._lookups)

    async def message(self, message_id: str, filter: SampleFilter) -> Mapping[str, Any] | None:
        """See ``IStore.message``."""
        one = replace(filter, equals={**filter.equals, "message_id": message_id})
        rows = await self._asked(samples_query(one, 1, (), None))
        with self._answering():
            return await self._message(Row(*rows[0])) if rows else None

    async def _message(self, row: Row) -> Mapping[str, Any] | None:
        series = await self._lookups.series.get_many({row.series_id})
        forms = await self._lookups.forms.get_many({row.wire_format_id})
        texts = await self._pool.rows(METADATA_TEXT, [row.metadata_id])
        if not (series and forms and texts):
            return None
        return fields_of(
            Record(
                series[row.series_id],
                texts[0][0],
                forms[row.wire_format_id],
                row.message_id,
                row.timestamp,
                row.volume,
                row.signature,
                row.verbatim_json,
            )
        )

    async def meters(self, filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """See ``IStore.meters``."""
        asked = _listed(UNIQUE_METERS if unique else METERS, filter, limit)
        await self._recorded(filter)
        rows = await self._asked(asked)
        nobody = (None,) * 4
        return [
            StoredMeter(
                name=row[0],
                type=row[1],
                unit=row[2],
                **dict(zip(("resource_id", "user_id", "project_id", "source"), row[3:] or nobody, strict=True)),
            )
            for row in rows
        ]

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """See ``IStore.resources``."""
        asked = _listed(RESOURCES, filter, limit)
        await self._recorded(filter)
        rows = await self._asked(asked)
        return [
            StoredResource(
                resource_id=name,
                user_id=user_id,
                project_id=project_id,
                source=source,
                first_sample=first,
                last_sample=last,
                metadata=msgspec.json.decode(metadata),
                meters=tuple(meters),
            )
            for name, user_id, project_id, source, first, last, metadata, meters in rows
        ]

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """See ``IStore.statistics``."""
        asked = statistics_statement(query)
        await self._recorded(query.filter)
        rows = await self._asked(Sql(f"{asked} LIMIT %s", (*asked.parameters, query.limit)))
        return statistics_rows(query, rows)

    async def _recorded(self, filter: SampleFilter) -> None:
        """Return once all that ``filter`` may let through is committed."""
        if filter.as_of is not None:
            with self._answering():
                await wait_for_writers_before(self._pool, self._clock, filter.as_of)

    async def _asked(self, question: Sql) -> list[tuple[Any, ...]]:
        with self._answering():
            return await self._pool.rows(question.text, question.parameters)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Tell of what PostgreSQL does not do as of the fault of whoever asked for it."""
        try:
            yield
        except TimedOut as error:
            raise RequestError(
                f"the question took longer than {self._seconds:g} s: narrow its time range, or ask for fewer resources"
            ) from error
        except Rejected as error:
            raise RequestError(f"the question cannot be answered: {error}") from error
