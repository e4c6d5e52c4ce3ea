-- Totals by minute of the newest hours, for questions whose windows or ends cut hours: docs/decisions/0020-totals-by-minute.rst.
-- A row has the totals of the samples of one hour. series_id is that of an owner rollup (resource_id 0), or 0 for the totals of
-- all samples of the meter. An element of the arrays is a minute that has samples; first and last are the times of its first and
-- last sample. Where an owner has no row for a final hour, queries read the samples.
-- Rows stay inline, below the size of a page: they are read as a whole, and many at a time.
CREATE TABLE minute_totals (
    start timestamptz NOT NULL,
    meter_id integer NOT NULL,
    series_id integer NOT NULL,
    first timestamptz[] NOT NULL,
    last timestamptz[] NOT NULL,
    count integer[] NOT NULL,
    min_volume double precision[] NOT NULL,
    max_volume double precision[] NOT NULL,
    sum_volume double precision[] NOT NULL,
    squared_deviations double precision[] NOT NULL,
    PRIMARY KEY (meter_id, series_id, start)
) WITH (toast_tuple_target = 8160);
CREATE INDEX minute_totals_start ON minute_totals (start);
