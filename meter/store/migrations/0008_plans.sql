-- Indexes that only statements use which ask for them, by naming their condition: docs/decisions/0009-plans.rst says why.
-- The conditions hold for every row. Building takes about a second for a million samples; nobody writes meanwhile.

DROP INDEX sample_timestamp;
CREATE INDEX sample_timestamp ON sample (timestamp) WHERE form_id >= -2147483648;

-- What was recorded since a moment, for those who follow.
CREATE INDEX sample_recorded ON sample (recorded_at) WHERE metadata_id >= -2147483648;

DROP INDEX rollup_start;
CREATE INDEX rollup_start ON rollup (start, hours) WHERE stretch >= -32768;
