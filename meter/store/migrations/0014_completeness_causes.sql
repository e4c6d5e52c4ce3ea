-- The ledger counts the voided samples of some series.

CREATE INDEX voided_sample_series ON voided_sample (series_id, timestamp);

-- Whether samples were expected of what the row is about: false for what a pollster skipped without a name, for what it does not
-- measure any more is not expected any more. Such a row explains no missing sample.
ALTER TABLE polling_exception ADD COLUMN expected boolean NOT NULL DEFAULT true;
UPDATE polling_exception SET expected = false
WHERE cause = 'skipped' AND pollster <> '' AND resource = '' AND reason <> 'an earlier poll was still running';
