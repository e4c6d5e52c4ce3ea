-- The series whose samples changed in an hour after it was final: late samples, voided ones and restored ones. As long as an hour
-- that is not final has such rows, its rollups are right but for the resources of these series. Whoever changes samples of an hour
-- that is final or has such rows adds the series, in the same transaction; finalizing the hour deletes the rows.
CREATE TABLE changed_series (
    start timestamptz NOT NULL,
    series_id integer NOT NULL,
    PRIMARY KEY (start, series_id)
);
