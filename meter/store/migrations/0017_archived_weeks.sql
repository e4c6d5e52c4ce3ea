-- Packed weeks can be on other servers: docs/decisions/0022-archive.rst.
-- An archived row of packed_samples stays here, with the first four and the last four elements of each array: so it is known here which
-- rows a question needs, and what the first and the last sample of a series are. The whole row is on the archive server, in a table
-- whose foreign table here is archive_NAME.
ALTER TABLE packed_samples ADD COLUMN archived boolean NOT NULL DEFAULT false;

-- The name of this store in archives: several stores can share an archive server, and none reads or deletes rows of another.
CREATE TABLE store_identity (id uuid PRIMARY KEY);
INSERT INTO store_identity VALUES (gen_random_uuid());

-- The weeks that are archived or are being archived, each on one server. archived_at: when all of it had been moved, null until then.
-- rows, samples: of what has been moved. bytes: what its arrays took here.
CREATE TABLE archived_week (
    week date PRIMARY KEY,
    server text NOT NULL,
    archived_at timestamptz,
    rows bigint NOT NULL DEFAULT 0,
    samples bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0
);

-- What is still to be deleted on archive servers: the rows of a week, or of some of its series; they have expired or are back here.
CREATE TABLE archive_removal (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server text NOT NULL,
    week date NOT NULL,
    series_ids integer[],
    since timestamptz NOT NULL DEFAULT now()
);

-- The arrays of an archived row of packed_samples. wanted: the select list of the arrays that are needed, null for others.
-- A row that the archive does not have, or has with another number of samples, is an error. The archive is connected to by the first
-- call: statements that need none of its rows do without it. Errors name the server and its weeks: their context quotes the statement.
CREATE FUNCTION archived_arrays(wanted text, of_series integer, of_first timestamptz, of_part smallint, of_count integer)
RETURNS TABLE (
    time_offsets integer[],
    times timestamptz[],
    delays integer[],
    recorded_times timestamptz[],
    message_ids uuid[],
    volumes double precision[],
    metadata_ids integer[],
    wire_format_ids integer[],
    signatures_left uuid[],
    signatures_right uuid[],
    signatures bytea[],
    verbatim_jsons text[],
    batch_ids bigint[],
    batch_positions smallint[]
) LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 1 COST 10000 AS $$
DECLARE
    of_week date := date_trunc('week', of_first AT TIME ZONE 'UTC')::date;
    archive text;
    weeks text;
BEGIN
    SELECT w.server, (
        SELECT min(o.week) || ' to ' || max(o.week) FROM archived_week o WHERE o.server = w.server
    ) INTO archive, weeks FROM archived_week w WHERE w.week = of_week;
    IF archive IS NULL THEN
        RAISE EXCEPTION 'the row of series % from % in packed_samples is archived, and no archive is known to have it', of_series, of_first
            USING ERRCODE = 'data_corrupted';
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT %s FROM archive_%s a WHERE a.store_id = $1 AND a.series_id = $2 AND a.first = $3 AND a.part = $4 AND a.count = $5'
        ' /* weeks %s of archive %s */', wanted, archive, weeks, archive
    ) USING (SELECT i.id FROM store_identity i), of_series, of_first, of_part, of_count;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the archive server % does not have the % samples of series % from %', archive, of_count, of_series, of_first
            USING ERRCODE = 'data_corrupted';
    END IF;
END
$$;
