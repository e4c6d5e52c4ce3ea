-- What the samples of a series amount to within an hour or a day that is settled. docs/decisions/0008-rollups.rst says why.

CREATE TABLE rollup (
    start timestamptz NOT NULL,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    count bigint NOT NULL,
    smallest double precision NOT NULL,
    largest double precision NOT NULL,
    total double precision NOT NULL,
    deviation double precision NOT NULL,
    first_volume double precision NOT NULL,
    last_volume double precision NOT NULL,
    increase double precision NOT NULL,
    integral double precision NOT NULL,
    series_id integer NOT NULL,
    hours smallint NOT NULL,
    PRIMARY KEY (hours, series_id, start)
);
CREATE INDEX rollup_start ON rollup (start, hours);

-- Hours and days whose rollups tell all samples that there are. tangled: samples of one meter and resource alternate
-- between series, so that the steps between them are not told.
CREATE TABLE settled (
    start timestamptz NOT NULL,
    hours smallint NOT NULL,
    tangled boolean NOT NULL,
    PRIMARY KEY (hours, start)
);

-- Samples before this time are let go; rollups may stay. The meter '' stands for all meters.
CREATE TABLE horizon (
    meter text COLLATE "C" PRIMARY KEY,
    before timestamptz NOT NULL
);
