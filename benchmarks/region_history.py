"""The samples of a simulated region as SQL: days that have passed are made in the database, and its clock is set."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from datetime import timedelta
from typing import Any

from benchmarks.simulated_region import BEGINNING
from benchmarks.simulated_region import CHECKSUM
from benchmarks.simulated_region import FLAVORS
from benchmarks.simulated_region import HOST_INSTANCES
from benchmarks.simulated_region import INTERVAL_SECONDS
from benchmarks.simulated_region import LIFE_DAYS
from benchmarks.simulated_region import METERS
from benchmarks.simulated_region import MIGRATED_AT
from benchmarks.simulated_region import PETS
from benchmarks.simulated_region import REGIONS
from benchmarks.simulated_region import RESIZED_AT
from benchmarks.simulated_region import VISITORS
from benchmarks.simulated_region import Region
from benchmarks.simulated_region import Tally
from meter.store.maintenance.partitions import end_of_week

# The clock of the database: functions of Meter's own schema are found before those of PostgreSQL.
CLOCK = """
CREATE SCHEMA region;
CREATE TABLE region.clock (shift interval NOT NULL);
INSERT INTO region.clock VALUES ('0');
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT pg_catalog.now() + shift FROM region.clock';
CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.clock_timestamp() + shift FROM region.clock';
"""
SEARCH_PATH = "ALTER DATABASE {} SET search_path = public, pg_catalog"
SET_CLOCK = "UPDATE region.clock SET shift = %s - pg_catalog.clock_timestamp()"

TABLES = """
CREATE TABLE region.series (slot integer, generation integer, moved integer, n integer, series_id integer, PRIMARY KEY (slot, generation, moved, n));
CREATE TABLE region.metadata (slot integer, generation integer, version integer, metadata_id integer,
    PRIMARY KEY (slot, generation, version));
CREATE FUNCTION region.alive(instances integer, visitors integer, day integer, OUT slot integer, OUT generation integer, OUT version integer)
RETURNS SETOF record LANGUAGE sql STABLE AS $$
    SELECT slot, CASE WHEN slot < {pets} THEN 0 ELSE (day + slot) / {life} END,
        CASE WHEN (day + slot) %% {life} >= {migrated} THEN 2 WHEN (day + slot) %% {life} >= {resized} THEN 1 ELSE 0 END
    FROM generate_series(0, instances - 1) AS slot
    UNION ALL SELECT slot, 0, 0 FROM generate_series({first_visitor} + day * visitors, {first_visitor} + (day + 1) * visitors - 1) AS slot
$$;
CREATE FUNCTION region.resource(slot integer, generation integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN slot < {pets} THEN '00000000-0000-4000-8000-' || lpad(slot::text, 12, '0')
        ELSE md5('{seed}/' || slot || '/' || generation)::uuid::text END
$$;
CREATE FUNCTION region.run(slot integer, generation integer, moved integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'compute-' || slot / {host} + moved || '/' || slot || '-' || generation
$$;
CREATE FUNCTION region.metadata(slot integer, generation integer, version integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '{{"display_name":"instance-' || slot || '-' || generation || '","host":"compute-' || slot / {host} + version / 2
        || '","flavor":{{"name":"' || (ARRAY{flavors})[1 + (slot + least(version, 1)) %% {kinds}] || '","ram":512,"disk":1}},'
        || '"image":{{"id":"6d1f","links":[{{"rel":"bookmark","href":"http://nova/images/6d1f"}}]}},"status":"active",'
        || '"_meter":{{"run":"' || region.run(slot, generation, version / 2) || '","interval":{interval}}}}}'
$$;
INSERT INTO meter (name, type, unit) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]) ON CONFLICT DO NOTHING;
INSERT INTO project (name) SELECT lpad(to_hex(n), 32, '0') FROM generate_series(0, {projects} - 1) AS n ON CONFLICT DO NOTHING;
INSERT INTO "user" (name) SELECT 'user-' || n FROM generate_series(0, {projects} - 1) AS n ON CONFLICT DO NOTHING;
INSERT INTO source (name) SELECT 'region-' || n FROM generate_series(0, {regions} - 1) AS n ON CONFLICT DO NOTHING;
"""

# What a writer does when it first meets a series, metadata, or the first sample of them in a week.
DIMENSIONS = """
DELETE FROM region.series s WHERE slot < {pets} AND NOT EXISTS (SELECT FROM series x WHERE x.id = s.series_id);
DELETE FROM region.metadata m WHERE slot < {pets} AND NOT EXISTS (SELECT FROM metadata x WHERE x.id = m.metadata_id);
CREATE TEMPORARY TABLE alive ON COMMIT DROP AS SELECT * FROM region.alive({instances}, {visitors}, {day});
CREATE TEMPORARY TABLE new ON COMMIT DROP AS SELECT slot, generation, version / 2 AS moved FROM alive
WHERE NOT EXISTS (SELECT FROM region.series s WHERE (s.slot, s.generation, s.moved) = (alive.slot, alive.generation, alive.version / 2));
INSERT INTO resource (name) SELECT region.resource(slot, generation) FROM new ORDER BY slot ON CONFLICT DO NOTHING;
INSERT INTO run (name) SELECT region.run(slot, generation, moved) FROM new ORDER BY slot ON CONFLICT DO NOTHING;
INSERT INTO series (meter_id, resource_id, user_id, project_id, source_id, run_kind, run_id, polling_interval, retained_until)
SELECT m.id, r.id, u.id, p.id, o.id, 1, run.id, {interval}, %(until)s
FROM new JOIN resource r ON r.name = region.resource(slot, generation) JOIN run ON run.name = region.run(slot, generation, moved)
JOIN project p ON p.name = lpad(to_hex(slot %% {projects}), 32, '0') JOIN "user" u ON u.name = 'user-' || slot %% {projects}
JOIN source o ON o.name = 'region-' || slot %% {regions} CROSS JOIN meter m
ORDER BY slot, m.id ON CONFLICT DO NOTHING;
INSERT INTO region.series
SELECT slot, generation, moved, m.n, x.id FROM new
JOIN resource r ON r.name = region.resource(slot, generation) JOIN run ON run.name = region.run(slot, generation, moved)
JOIN series x ON x.resource_id = r.id AND x.run_id = run.id
JOIN unnest(%(meters)s::text[]) WITH ORDINALITY AS m (name, n) ON m.name = (SELECT name FROM meter WHERE id = x.meter_id);
CREATE TEMPORARY TABLE text ON COMMIT DROP AS
SELECT slot, generation, version, region.metadata(slot, generation, version) AS text FROM alive
WHERE NOT EXISTS (SELECT FROM region.metadata m WHERE (m.slot, m.generation, m.version) = (alive.slot, alive.generation, alive.version));
INSERT INTO metadata (hash, text, document, retained_until)
SELECT sha256(convert_to(text, 'UTF8')), text, text::jsonb, %(until)s FROM text ORDER BY slot ON CONFLICT DO NOTHING;
INSERT INTO region.metadata SELECT slot, generation, version, m.id FROM text JOIN metadata m ON m.hash = sha256(convert_to(text.text, 'UTF8'));
"""
EXTEND = """
UPDATE series x SET retained_until = %(until)s FROM region.alive({instances}, 0, {day}) a JOIN region.series s ON (s.slot, s.generation, s.moved) = (a.slot, a.generation, a.version / 2)
WHERE x.id = s.series_id AND x.retained_until < %(until)s AND a.slot < {extended};
UPDATE metadata x SET retained_until = %(until)s FROM region.alive({instances}, 0, {day}) a JOIN region.metadata m USING (slot, generation, version)
WHERE x.id = m.metadata_id AND x.retained_until < %(until)s AND a.slot < {extended};
UPDATE wire_format SET retained_until = %(until)s WHERE retained_until < %(until)s;
"""
SAMPLES = """
WITH stored AS (
    INSERT INTO sample (timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json)
    SELECT at + interval '1 ms' * (a.slot / {host} * 7 %% 240000), at + interval '1 ms' * (a.slot / {host} * 7 %% 240000 + 400),
        (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7a3c9f3d5c7e01' || lpad(to_hex(s.series_id), 6, '0'))::uuid,
        CASE WHEN kind.cumulative THEN number * 1000 + a.slot ELSE (number * 7 + a.slot + s.n - 1) %% 100 END,
        m.metadata_id, s.series_id, (SELECT max(id) FROM wire_format), '', ''
    FROM region.alive({instances}, {of_poll}, {day}) a JOIN region.series s ON (s.slot, s.generation, s.moved) = (a.slot, a.generation, a.version / 2)
    JOIN region.metadata m ON (m.slot, m.generation, m.version) = (a.slot, a.generation, a.version)
    JOIN unnest(%(cumulative)s::boolean[]) WITH ORDINALITY AS kind (cumulative, n) ON kind.n = s.n
    CROSS JOIN (SELECT %(at)s::timestamptz AS at, %(number)s::bigint AS number) AS poll
    ORDER BY a.slot, s.n
    RETURNING message_id
) SELECT count(*), coalesce({checksum}, 0) FROM stored
"""


class History:
    """Makes the samples of days that have passed by SQL statements: ``execute`` runs one and returns its rows."""

    def __init__(self, region: Region, execute: Callable[..., list[tuple[Any, ...]]]) -> None:
        self._region = region
        self._execute = execute
        self._extended: datetime | None = None
        self._parts = {
            "pets": PETS,
            "life": LIFE_DAYS,
            "resized": RESIZED_AT,
            "migrated": MIGRATED_AT,
            "seed": region.seed,
            "host": HOST_INSTANCES,
            "flavors": list(FLAVORS),
            "kinds": len(FLAVORS),
            "interval": INTERVAL_SECONDS,
            "projects": region.projects,
            "regions": REGIONS,
            "instances": region.instances,
            "visitors": region.visitors,
            "first_visitor": VISITORS,
            "checksum": CHECKSUM,
        }
        meters = METERS[: region.meters]
        execute(TABLES.format(**self._parts), [list(column) for column in zip(*meters, strict=True)])

    def begin_day(self, day: int) -> None:
        """Make the series and metadata of the instances that are new on a day, and retain those of the others for its week."""
        until = end_of_week(BEGINNING + timedelta(days=day))
        self._execute(
            DIMENSIONS.format(day=day, **self._parts),
            {"until": until, "meters": [name for name, _, _ in METERS[: self._region.meters]]},
        )
        # Once a week those of all; within a week metadata come back only to instances that are never replaced.
        extended = PETS if until == self._extended else self._region.instances
        self._execute(EXTEND.format(day=day, extended=extended, **self._parts), {"until": until})
        self._extended = until

    def poll(self, day: int, at: datetime) -> Tally:
        """Make a sample of each series at a time."""
        visitors = 0 if at.hour else self._region.visitors
        [(samples, checksum)] = self._execute(
            SAMPLES.format(day=day, of_poll=visitors, **self._parts),
            {
                "at": at,
                "number": int((at - BEGINNING).total_seconds()) // INTERVAL_SECONDS,
                "cumulative": [type_ == "cumulative" for _, type_, _ in METERS[: self._region.meters]],
            },
        )
        return Tally(samples, int(checksum))
