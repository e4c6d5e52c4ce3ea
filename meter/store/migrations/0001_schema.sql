-- Samples in weekly partitions, and what many samples have in common, stored once: docs/decisions/0005-store-layout.rst.
-- From the first release on the schema is upgraded, never replaced: this file stays as it is, and a change is a further file.
-- Id 0 stands for "none": unlike NULL it takes part in unique keys on every supported version of PostgreSQL.

CREATE TABLE meter (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    unit text COLLATE "C" NOT NULL,
    UNIQUE (name, type, unit)
);

CREATE TABLE resource (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE project (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE "user" (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE source (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

-- A run of a counter: meter/counter_runs.py says what that is.
CREATE TABLE run (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

-- A meter of a resource while it belongs to the same user, project, source and run.
-- run_kind: 0 none, 1 declared, 2 by instance_host, 3 by host. polling_interval: seconds, 0 if unknown.
-- retained_until: neither a sample of a later time nor a rollup of later samples refers to the row.
CREATE TABLE series (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id integer NOT NULL,
    resource_id integer NOT NULL,
    user_id integer NOT NULL DEFAULT 0,
    project_id integer NOT NULL DEFAULT 0,
    source_id integer NOT NULL DEFAULT 0,
    retained_until timestamptz NOT NULL DEFAULT 'infinity',
    polling_interval double precision NOT NULL DEFAULT 0,
    run_id integer NOT NULL DEFAULT 0,
    run_kind smallint NOT NULL DEFAULT 0,
    CONSTRAINT series_key
        UNIQUE (meter_id, resource_id, user_id, project_id, source_id, run_kind, run_id, polling_interval)
);
CREATE INDEX series_resource ON series (resource_id);
CREATE INDEX series_project ON series (project_id);

-- resource_metadata: the text byte for byte, for signatures, and the same as jsonb, for queries. hash is its SHA-256.
CREATE TABLE metadata (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    text text NOT NULL,
    document jsonb NOT NULL,
    retained_until timestamptz NOT NULL DEFAULT 'infinity'
);

-- How messages were written: their fields, the notation of numbers and times, the id of the signing key.
CREATE TABLE wire_format (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    text text NOT NULL,
    retained_until timestamptz NOT NULL DEFAULT 'infinity'
);

-- Columns are ordered by size and never null, so that a row needs neither padding nor a null bitmap.
-- signature is empty for unsigned samples. verbatim_json is empty, or JSON: the number monotonic_time, or the whole message
-- where the other columns cannot reproduce it.
CREATE TABLE sample (
    timestamp timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    message_id uuid NOT NULL,
    volume double precision NOT NULL,
    metadata_id integer NOT NULL,
    series_id integer NOT NULL,
    wire_format_id integer NOT NULL,
    signature bytea NOT NULL,
    verbatim_json text NOT NULL
) PARTITION BY RANGE (timestamp);
CREATE INDEX sample_series ON sample (series_id, timestamp);

-- Indexes that serve only statements which repeat their condition: docs/decisions/0009-plans.rst says why.
-- The conditions are true of every row.
CREATE INDEX sample_timestamp ON sample (timestamp) WHERE wire_format_id >= -2147483648;
CREATE INDEX sample_recorded ON sample (recorded_at) WHERE metadata_id >= -2147483648;

-- Samples of weeks that have no partition of their own: too old, too far ahead, or not yet moved to one.
CREATE TABLE sample_default PARTITION OF sample DEFAULT;

-- Makes the unique index of the message ids of a partition, a week: docs/decisions/0005-store-layout.rst. A unique key of
-- the whole table would have to include the time, and would admit one id twice with two times.
CREATE FUNCTION index_message_ids(partition regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := (SELECT relname FROM pg_class WHERE oid = partition);
    monday date := to_date(substring(name from '^sample_(\d{4}_\d\d_\d\d)$'), 'YYYY_MM_DD');
    columns text := CASE WHEN monday IS NULL THEN 'message_id, date_trunc(''week'', timestamp AT TIME ZONE ''UTC'')'
        ELSE 'message_id' END;
    storage text := CASE WHEN monday + 9 < now() THEN 'WITH (fillfactor = 100)' ELSE '' END;
BEGIN
    EXECUTE format('CREATE UNIQUE INDEX %I ON %s (%s) %s', name || '_message_id', partition, columns, storage);
END
$$;
SELECT index_message_ids('sample_default');

-- Returns the time that a text states, null if it states none: metadata are compared with times.
CREATE FUNCTION to_timestamptz(written text) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF written ~ '^\d{4}-\d\d-\d\d' THEN
        RETURN written::timestamptz;
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;

-- Aggregates of the samples of a series within an hour or a day: docs/decisions/0008-rollups.rst. A row covers a run of
-- consecutive samples with the same metadata, numbered within the hour or day from 1. Number 0 covers all samples of the
-- series, because their metadata changed too often: metadata_id is 0 then, and queries by metadata read the samples.
-- Rows of a series with resource_id 0, which has no samples, are the totals of all resources with the same meter, user,
-- project and source; their columns from first_volume to integral are 0.
-- overlap: 0 if the rows of this meter and resource do not overlap in time, 1 if those of the series overlap with rows of
-- other runs, 2 if with rows of the same run. Increases between rows that overlap are computed from the samples.
CREATE TABLE rollup (
    start timestamptz NOT NULL,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    count bigint NOT NULL,
    min_volume double precision NOT NULL,
    max_volume double precision NOT NULL,
    sum_volume double precision NOT NULL,
    squared_deviations double precision NOT NULL,
    first_volume double precision NOT NULL,
    last_volume double precision NOT NULL,
    increase double precision NOT NULL,
    integral double precision NOT NULL,
    series_id integer NOT NULL,
    hours smallint NOT NULL,
    metadata_run smallint NOT NULL,
    metadata_id integer NOT NULL,
    overlap smallint NOT NULL,
    PRIMARY KEY (hours, series_id, start, metadata_run)
);
CREATE INDEX rollup_start ON rollup (start, hours) WHERE metadata_run >= -32768;

-- Merges counts, sums, and sums of squared deviations from the mean, {count, sum_volume, squared_deviations}, without
-- cancelling digits.
CREATE AGGREGATE merge_deviations (double precision[]) (
    SFUNC = float8_combine,
    STYPE = double precision[],
    INITCOND = '{0,0,0}',
    COMBINEFUNC = float8_combine,
    PARALLEL = SAFE
);

-- Hours and days whose rollups cover all samples that are stored.
CREATE TABLE final_period (
    start timestamptz NOT NULL,
    hours smallint NOT NULL,
    PRIMARY KEY (hours, start)
);

-- Samples before this time have been deleted or are about to be; rollups may stay. The meter '' stands for all meters.
CREATE TABLE retention_cutoff (
    meter text COLLATE "C" PRIMARY KEY,
    before timestamptz NOT NULL
);

-- How many unused rows of each dimension table have been deleted so far, and when the last ones were.
CREATE TABLE garbage_collected (
    dimension text COLLATE "C" PRIMARY KEY,
    rows bigint NOT NULL,
    at timestamptz NOT NULL
);
