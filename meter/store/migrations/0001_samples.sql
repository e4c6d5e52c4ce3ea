-- Samples, and what many samples have in common, stored once. docs/decisions/0005-store-layout.rst says why.
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

-- A meter of a resource while it belonged to the same user, project and source.
CREATE TABLE series (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_id integer NOT NULL,
    resource_id integer NOT NULL,
    user_id integer NOT NULL DEFAULT 0,
    project_id integer NOT NULL DEFAULT 0,
    source_id integer NOT NULL DEFAULT 0,
    UNIQUE (meter_id, resource_id, user_id, project_id, source_id)
);
CREATE INDEX series_resource ON series (resource_id);
CREATE INDEX series_project ON series (project_id);

-- resource_metadata: the text to the letter, for signatures, and what it says, for questions. hash is its SHA-256.
CREATE TABLE metadata (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    text text NOT NULL,
    document jsonb NOT NULL
);

-- How messages were written: the order of their fields, their way with numbers and times, who signed them.
CREATE TABLE form (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,
    text text NOT NULL
);

-- Columns are ordered by size and never null, which spares each row its padding and its null bitmap.
-- signature is empty for unsigned samples; rest is what is left of a message when all else is told, mostly nothing.
CREATE TABLE sample (
    timestamp timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    message_id uuid NOT NULL,
    volume double precision NOT NULL,
    metadata_id bigint NOT NULL,
    series_id integer NOT NULL,
    form_id integer NOT NULL,
    signature bytea NOT NULL,
    rest text NOT NULL,
    UNIQUE (message_id, timestamp)
) PARTITION BY RANGE (timestamp);
CREATE INDEX sample_series ON sample (series_id, timestamp);
CREATE INDEX sample_timestamp ON sample (timestamp);

-- Samples of weeks that have no partition of their own: too old, too far ahead, or not yet sorted.
CREATE TABLE sample_default PARTITION OF sample DEFAULT;
