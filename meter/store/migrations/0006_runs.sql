-- Series tell which run of a counter their samples belong to, and how often it is polled: meter/runs.py says what a run is.
-- What is stored already has no run and no interval.

CREATE TABLE run (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

-- run_kind: 0 none, 1 declared, 2 by instance_host, 3 by host. polling_interval: seconds, 0 if unknown.
ALTER TABLE series
    ADD COLUMN polling_interval double precision NOT NULL DEFAULT 0,
    ADD COLUMN run_id integer NOT NULL DEFAULT 0,
    ADD COLUMN run_kind smallint NOT NULL DEFAULT 0,
    DROP CONSTRAINT series_meter_id_resource_id_user_id_project_id_source_id_key,
    ADD CONSTRAINT series_key
        UNIQUE (meter_id, resource_id, user_id, project_id, source_id, run_kind, run_id, polling_interval);

-- overlap: 0 if the rollups of this meter and resource follow one another in time; 1 if those of the series overlap with
-- others of other runs, 2 if with others of its own run. Steps between rollups that overlap are told by samples.
ALTER TABLE rollup ADD COLUMN overlap smallint NOT NULL DEFAULT 0;
ALTER TABLE rollup ALTER COLUMN overlap DROP DEFAULT;

UPDATE rollup SET overlap = 2 FROM (
    SELECT hours, start, series_id FROM (
        SELECT r.hours, r.start, r.series_id,
            max(r.last) OVER (step ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) >= r.first
            OR lead(r.first) OVER step <= r.last AS overlapping
        FROM settled h JOIN rollup r ON r.hours = h.hours AND r.start = h.start
        JOIN series x ON x.id = r.series_id JOIN meter m ON m.id = x.meter_id
        WHERE h.tangled AND x.resource_id > 0
        WINDOW step AS (PARTITION BY r.hours, r.start, m.name, m.unit, x.resource_id ORDER BY r.first)
    ) AS _ WHERE overlapping GROUP BY hours, start, series_id
) AS found
WHERE (rollup.hours, rollup.start, rollup.series_id) = (found.hours, found.start, found.series_id);

ALTER TABLE settled DROP COLUMN tangled;
