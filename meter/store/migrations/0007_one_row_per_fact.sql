-- One message_id is one row in each week: docs/decisions/0005-store-layout.rst. A unique key of the whole table would have
-- to include the time, and would let one id in twice with two times; so each partition has an index of its own.

ALTER TABLE sample DROP CONSTRAINT sample_message_id_timestamp_key;

-- Makes the index of a partition. Where older versions stored an id twice, both rows stay, and the index is unique for
-- what is recorded from now on; whoever writes looks for older rows in any case.
CREATE FUNCTION index_message_ids(partition regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := (SELECT relname FROM pg_class WHERE oid = partition);
    monday date := to_date(substring(name from '^sample_(\d{4}_\d\d_\d\d)$'), 'YYYY_MM_DD');
    columns text := CASE WHEN monday IS NULL THEN 'message_id, date_trunc(''week'', timestamp AT TIME ZONE ''UTC'')'
        ELSE 'message_id' END;
    room text := CASE WHEN monday + 9 < now() THEN 'WITH (fillfactor = 100)' ELSE '' END;
    until timestamptz;
BEGIN
    EXECUTE format('CREATE UNIQUE INDEX %I ON %s (%s) %s', name || '_message_id', partition, columns, room);
EXCEPTION WHEN unique_violation THEN
    EXECUTE format('SELECT greatest(max(recorded_at), clock_timestamp()) FROM %s', partition) INTO until;
    EXECUTE format('CREATE INDEX %I ON %s (message_id) %s', name || '_message_id', partition, room);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %s (%s) WHERE recorded_at > timestamptz %L',
        name || '_message_id_since', partition, columns, to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00'));
    RAISE WARNING '% has ids of samples that are stored twice', name;
END
$$;

SELECT index_message_ids(inhrelid) FROM pg_inherits WHERE inhparent = 'sample'::regclass ORDER BY inhrelid::regclass::text;
