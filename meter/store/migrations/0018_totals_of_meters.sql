-- Totals by hour and day of a meter: the samples of all its owners, for questions that name no owner and no resource
-- (docs/decisions/0008-rollups.rst). The columns are those of rollup. Only rows of a period whose row in final_period has with_meter_totals are
-- read: periods that were final before this step have none, and are read from the owner rollups until they are finalized again.
CREATE TABLE meter_totals (
    start timestamptz NOT NULL,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    count bigint NOT NULL,
    min_volume double precision NOT NULL,
    max_volume double precision NOT NULL,
    sum_volume double precision NOT NULL,
    squared_deviations double precision NOT NULL,
    meter_id integer NOT NULL,
    hours smallint NOT NULL,
    PRIMARY KEY (hours, meter_id, start)
);
CREATE INDEX meter_totals_start ON meter_totals (start);

ALTER TABLE final_period ADD COLUMN with_meter_totals boolean NOT NULL DEFAULT false;
