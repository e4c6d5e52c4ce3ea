-- Bounded volumes, voided samples and the audit log: docs/store.rst and docs/audit-log.rst.

-- What administrators did, in order. seq counts from 1 without a gap. previous is the hash of the entry before, 32 zero bytes
-- for the first one; hash covers all other columns (meter/store/audit/chain.py). key_id is the id of the signing key from
-- which the key of the hash is derived. details is a JSON object, as text because it is hashed.
CREATE TABLE audit_entry (
    seq bigint PRIMARY KEY CHECK (seq > 0),
    at timestamptz NOT NULL,
    who text NOT NULL,
    action text NOT NULL,
    reason text NOT NULL,
    details text NOT NULL,
    key_id text NOT NULL,
    previous bytea NOT NULL,
    hash bytea NOT NULL
);

-- A guard against mistakes. A superuser can remove it: the hashes are what detects that.
CREATE FUNCTION refuse_change_of_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_entry_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_audit_log();

-- Samples that an administrator has voided: no query reads them, and a repeat of one is a duplicate. The columns of sample,
-- then when, by whom and why; audit_seq is the entry of the audit log, 0 for what this step of the schema voids.
CREATE TABLE voided_sample (
    LIKE sample,
    voided_at timestamptz NOT NULL,
    voided_by text NOT NULL,
    reason text NOT NULL,
    audit_seq bigint NOT NULL
);
CREATE UNIQUE INDEX voided_sample_message_id ON voided_sample (message_id, timestamp);
CREATE INDEX voided_sample_audit_seq ON voided_sample (audit_seq);

-- Volumes beyond these bounds (meter/sample.py) made sums and averages fail. NaN is greater than every number here.
WITH moved AS (
    DELETE FROM sample
    WHERE NOT (volume = 0 OR abs(volume) BETWEEN 1e-100 AND 1e30)
    RETURNING *
)
INSERT INTO voided_sample
SELECT moved.*, now(), 'schema upgrade', 'the volume is out of the bounds that this version of the schema introduces', 0
FROM moved;

-- Their hours and days are aggregated again, without them.
DELETE FROM final_period p USING voided_sample v
WHERE v.timestamp >= p.start AND v.timestamp < p.start + make_interval(hours => p.hours);
DELETE FROM rollup r USING voided_sample v, series x, series o
WHERE v.timestamp >= r.start AND v.timestamp < r.start + make_interval(hours => r.hours)
AND x.id = v.series_id AND o.id = r.series_id AND (o.id = x.id OR (o.meter_id, o.resource_id, o.user_id, o.project_id, o.source_id)
    = (x.meter_id, 0, x.user_id, x.project_id, x.source_id));

-- Rollups whose samples have expired cannot be aggregated again: their numbers are limited, so that sums of them are finite.
UPDATE rollup SET
    min_volume = greatest(-1e30, least(1e30, min_volume)), max_volume = greatest(-1e30, least(1e30, max_volume)),
    sum_volume = greatest(-1e30, least(1e30, sum_volume)), squared_deviations = least(1e60, squared_deviations),
    first_volume = greatest(-1e30, least(1e30, first_volume)), last_volume = greatest(-1e30, least(1e30, last_volume)),
    increase = greatest(-1e30, least(1e30, increase)), integral = greatest(-1e30, least(1e30, integral))
WHERE min_volume < -1e30 OR max_volume > 1e30;

ALTER TABLE sample ADD CONSTRAINT volume_in_bounds CHECK (volume = 0 OR abs(volume) BETWEEN 1e-100 AND 1e30);
