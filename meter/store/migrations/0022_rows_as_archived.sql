-- An archived row is read only if it is the one that was moved: an archive server that was restored from a backup can have another one with the same key
-- and number of samples, of a week that was brought back, changed and archived again since. What packed_samples says of a row is compared
-- with what the archive says: its times, the time at which the last sample was recorded, and what times are computed with.

-- The archived rows of packed_samples that have samples from since to until, and of each the elements that may lie between these
-- times, as meter.store.packing.packed_rows computes them. Rows whose elements are all at an end, which stays here, are left out.
-- Up to a thousand rows of a week are read from the archive with one statement, whose rows postgres_fdw fetches a hundred at a time.
-- They come in the order of their key: sums of numbers depend on the order. wanted: the select list of the arrays that are needed, of the
-- row a and the slice k, null for others. of_series: null for all. without_lost: nothing of weeks that are lost, instead of an error.
CREATE OR REPLACE FUNCTION archived_slices(
    wanted text, of_series integer[], since timestamptz, until timestamptz, recorded_since timestamptz, without_lost boolean
)
RETURNS TABLE (
    series_id integer,
    first timestamptz,
    step bigint,
    lower integer,
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
) LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 1000 COST 100000 AS $$
#variable_conflict use_column
DECLARE
    of_week record;
    needed record;
    found_rows bigint;
BEGIN
    FOR of_week IN
        SELECT w.*, (SELECT min(o.week) || ' to ' || max(o.week) FROM archived_week o WHERE o.server = w.server) AS weeks
        FROM (
            SELECT *, (week + time '00:00') AT TIME ZONE 'UTC' AS begins, (week + 7 + time '00:00') AT TIME ZONE 'UTC' AS ends
            FROM archived_week
        ) AS w
        WHERE w.begins <= until AND w.ends > since AND NOT (without_lost AND w.lost_at IS NOT NULL)
        ORDER BY w.week
    LOOP
        FOR needed IN EXECUTE format(
            'SELECT array_agg(series_id) AS series, array_agg(first) AS firsts, array_agg(part) AS parts, array_agg(count) AS counts,'
            ' array_agg(last) AS lasts, array_agg(last_recorded) AS recorded, array_agg(step) AS steps,'
            ' array_agg(least_offset) AS least, array_agg(greatest_offset) AS greatest,'
            ' array_agg(lower) AS lowers, array_agg(upper) AS uppers, min(first) AS earliest, max(first) AS latest'
            ' FROM ('
            '  SELECT p.series_id, p.first, p.part, p.count, p.last, p.last_recorded, p.step, p.least_offset, p.greatest_offset, slice.lower, slice.upper,'
            '   (row_number() OVER (ORDER BY p.series_id, p.first, p.part) - 1) / 1000 AS batch'
            '  FROM packed_samples p CROSS JOIN LATERAL ('
            '   SELECT CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1'
            '    ELSE least(p.count + 1, greatest(1, floor((date_part(''epoch'', greatest($1, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer'
            '    END AS lower,'
            '   CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count'
            '    ELSE least(p.count, ceil((date_part(''epoch'', least($2, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer'
            '    END AS upper'
            '   OFFSET 0'
            '  ) AS slice'
            '  WHERE p.first >= $5 AND p.first < $6 AND p.archived AND p.first <= $2 AND p.last >= $1 AND %s AND %s'
            '  AND slice.lower <= slice.upper AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4)'
            ' ) AS needed GROUP BY batch ORDER BY batch',
            CASE WHEN of_series IS NULL THEN 'true' ELSE 'p.series_id = ANY($3)' END,
            CASE WHEN recorded_since IS NULL THEN 'true' ELSE 'p.last_recorded >= $4' END
        ) USING since, until, of_series, recorded_since, of_week.begins, of_week.ends
        LOOP
            PERFORM raise_if_lost(of_week.week);
            RETURN QUERY EXECUTE format(
                'SELECT a.series_id, a.first, a.step, k.lower, %s'
                ' FROM unnest($1, $2, $3, $4, $5, $6, $10, $11, $12, $13, $14)'
                ' AS k (series_id, first, part, count, lower, upper, last, last_recorded, step, least_offset, greatest_offset)'
                ' JOIN archive_%s a ON a.series_id = k.series_id AND a.first = k.first AND a.part = k.part AND a.count = k.count'
                ' AND a.last = k.last AND a.last_recorded = k.last_recorded AND a.step = k.step'
                ' AND a.least_offset = k.least_offset AND a.greatest_offset = k.greatest_offset'
                ' WHERE a.store_id = $7 AND a.series_id = ANY($1) AND a.first >= $8 AND a.first <= $9'
                ' ORDER BY a.series_id, a.first, a.part'
                ' /* weeks %s of archive %s */', wanted, of_week.server, of_week.weeks, of_week.server
            ) USING needed.series, needed.firsts, needed.parts, needed.counts, needed.lowers, needed.uppers,
                (SELECT i.id FROM store_identity i), needed.earliest, needed.latest,
                needed.lasts, needed.recorded, needed.steps, needed.least, needed.greatest;
            GET DIAGNOSTICS found_rows = ROW_COUNT;
            IF found_rows <> cardinality(needed.series) THEN
                RAISE EXCEPTION 'the archive server % does not have % of % rows of the week of % as they were moved there', of_week.server,
                    cardinality(needed.series) - found_rows, cardinality(needed.series), of_week.week
                    USING ERRCODE = 'data_corrupted';
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- The elements of archived rows with the message ids of_ids, from since to until, as the index of ids tells. Those of a false candidate
-- are null. without_lost: as above.
CREATE OR REPLACE FUNCTION archived_with_ids(
    wanted text, of_ids uuid[], since timestamptz, until timestamptz, without_lost boolean
)
RETURNS TABLE (
    series_id integer,
    first timestamptz,
    step bigint,
    lower integer,
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
) LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 10 COST 100000 AS $$
#variable_conflict use_column
DECLARE
    of_week record;
    needed record;
    found_rows bigint;
BEGIN
    FOR of_week IN
        SELECT w.*, (SELECT min(o.week) || ' to ' || max(o.week) FROM archived_week o WHERE o.server = w.server) AS weeks
        FROM (
            SELECT *, (week + time '00:00') AT TIME ZONE 'UTC' AS begins, (week + 7 + time '00:00') AT TIME ZONE 'UTC' AS ends
            FROM archived_week
        ) AS w
        WHERE w.begins <= until AND w.ends > since
        AND NOT (without_lost AND w.lost_at IS NOT NULL)
        ORDER BY w.week
    LOOP
        FOR needed IN EXECUTE
            'SELECT array_agg(series_id) AS series, array_agg(first) AS firsts, array_agg(part) AS parts, array_agg(count) AS counts,'
            ' array_agg(last) AS lasts, array_agg(last_recorded) AS recorded, array_agg(step) AS steps,'
            ' array_agg(least_offset) AS least, array_agg(greatest_offset) AS greatest,'
            ' array_agg(id) AS ids, min(first) AS earliest, max(first) AS latest'
            ' FROM ('
            '  SELECT *, (row_number() OVER (ORDER BY series_id, first, part, id) - 1) / 1000 AS batch'
            '  FROM ('
            '   SELECT DISTINCT p.series_id, p.first, p.part, p.count, p.last, p.last_recorded, p.step, p.least_offset, p.greatest_offset, of_id.id'
            '   FROM unnest($1) AS given (id) CROSS JOIN (SELECT w.id_buckets FROM packed_week w WHERE w.week = $2 OFFSET 0) AS w'
            '   CROSS JOIN LATERAL (SELECT given.id, message_id_key(given.id) AS key OFFSET 0) AS of_id'
            '   CROSS JOIN LATERAL ('
            '    SELECT i.fingerprints, i.series_ids FROM packed_message_id i WHERE i.week = $2 AND i.bucket = mod(of_id.key, w.id_buckets) OFFSET 0'
            '   ) AS bucket'
            '   CROSS JOIN LATERAL unnest('
            '    array_positions(bucket.fingerprints, (mod(of_id.key / w.id_buckets, 65536) - 32768)::smallint)'
            '   ) AS position'
            '   CROSS JOIN LATERAL ('
            '    SELECT p.series_id, p.first, p.part, p.count, p.last, p.last_recorded, p.step, p.least_offset, p.greatest_offset FROM packed_samples p'
            '    WHERE p.first >= $5 AND p.first < $6 AND p.series_id = bucket.series_ids[position] AND p.archived AND p.first <= $4 AND p.last >= $3 OFFSET 0'
            '   ) AS p'
            '  ) AS candidate'
            ' ) AS needed GROUP BY batch ORDER BY batch'
            USING of_ids, of_week.week, since, until, of_week.begins, of_week.ends
        LOOP
            PERFORM raise_if_lost(of_week.week);
            RETURN QUERY EXECUTE format(
                'SELECT a.series_id, a.first, a.step, k.lower, %s'
                ' FROM ('
                '  SELECT a.*, k.id FROM unnest($1, $2, $3, $4, $5, $9, $10, $11, $12, $13)'
                '   AS k (series_id, first, part, count, id, last, last_recorded, step, least_offset, greatest_offset)'
                '  JOIN archive_%s a ON a.series_id = k.series_id AND a.first = k.first AND a.part = k.part AND a.count = k.count'
                ' AND a.last = k.last AND a.last_recorded = k.last_recorded AND a.step = k.step'
                ' AND a.least_offset = k.least_offset AND a.greatest_offset = k.greatest_offset'
                '  WHERE a.store_id = $6 AND a.series_id = ANY($1) AND a.first >= $7 AND a.first <= $8 OFFSET 0'
                ' ) AS a LEFT JOIN LATERAL ('
                '  SELECT position AS lower, position AS upper FROM unnest(array_positions(a.message_ids, a.id)) AS position'
                ' ) AS k ON true'
                ' /* weeks %s of archive %s */', wanted, of_week.server, of_week.weeks, of_week.server
            ) USING needed.series, needed.firsts, needed.parts, needed.counts, needed.ids,
                (SELECT i.id FROM store_identity i), needed.earliest, needed.latest,
                needed.lasts, needed.recorded, needed.steps, needed.least, needed.greatest;
            GET DIAGNOSTICS found_rows = ROW_COUNT;
            IF found_rows < cardinality(needed.series) THEN
                RAISE EXCEPTION 'the archive server % does not have % of % rows of the week of % as they were moved there', of_week.server,
                    cardinality(needed.series) - found_rows, cardinality(needed.series), of_week.week
                    USING ERRCODE = 'data_corrupted';
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- Likewise, of one row of packed_samples.
CREATE OR REPLACE FUNCTION archived_arrays(wanted text, of_series integer, of_first timestamptz, of_part smallint, of_count integer)
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
    PERFORM raise_if_lost(of_week);
    RETURN QUERY EXECUTE format(
        'SELECT %s FROM archive_%s a WHERE a.store_id = $1 AND a.series_id = $2 AND a.first = $3 AND a.part = $4 AND a.count = $5'
        ' AND (a.last, a.last_recorded, a.step, a.least_offset, a.greatest_offset) = ('
        '  SELECT p.last, p.last_recorded, p.step, p.least_offset, p.greatest_offset FROM packed_samples p'
        '  WHERE p.series_id = $2 AND p.first = $3 AND p.part = $4 AND p.count = $5 AND p.archived'
        ' )'
        ' /* weeks %s of archive %s */', wanted, archive, weeks, archive
    ) USING (SELECT i.id FROM store_identity i), of_series, of_first, of_part, of_count;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the archive server % does not have the % samples of series % from % as they were moved there', archive, of_count, of_series, of_first
            USING ERRCODE = 'data_corrupted';
    END IF;
END
$$;
