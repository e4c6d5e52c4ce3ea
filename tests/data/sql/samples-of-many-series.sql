SELECT week.first, week.last, archived.until
FROM (
    SELECT ((min(name)::date) + time '00:00') AT TIME ZONE 'UTC' AS first, ((max(name)::date) + time '00:00') AT TIME ZONE 'UTC' AS last
    FROM (
        SELECT replace(right(c.relname, 10), '_', '-') AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('sample'::regclass, 'packed_samples'::regclass) AND c.relname ~ '^(sample|packed_samples)(_[0-9]+){3}$'
    ) AS _
) AS week
CROSS JOIN (SELECT ((max(week) + 7) + time '00:00') AT TIME ZONE 'UTC' AS until FROM archived_week) AS archived;

-- $1 = 'cpu'
-- $2 = 'demo'
SELECT found.*, (SELECT nullif(max(x.retained_until), 'infinity') FROM series x WHERE x.id = ANY(found.ids)) AS until
FROM (
    SELECT threshold.few, ARRAY(SELECT x.id FROM series x WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $1)) AND (x.project_id = (SELECT id FROM project WHERE name = $2)) LIMIT threshold.few + 1) AS ids
    FROM (SELECT sqrt(greatest(reltuples, 100))::bigint AS few FROM pg_class WHERE oid = 'series'::regclass) threshold
    OFFSET 0
) AS found;

-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 2026-12-01 00:00:00+00:00
-- $3 = 'cpu'
-- $4 = 'demo'
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume,
encode(s.signature, 'hex') AS signature, s.verbatim_json, s.recorded_at
FROM (
    SELECT s.* FROM (
        SELECT s.* FROM sample s WHERE s.wire_format_id >= -2147483648 AND (s.timestamp >= $1) AND (s.timestamp < $2) AND s.timestamp > coalesce((SELECT max(p.last) FROM packed_samples p WHERE p.count > 0 AND p.first >= (($1::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC'), '-infinity')
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 200
    ) s CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.id = s.series_id OFFSET 0) x
    WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $3)) AND (x.project_id = (SELECT id FROM project WHERE name = $4)) AND (s.timestamp >= $1) AND (s.timestamp < $2)
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
) s
ORDER BY s.timestamp DESC, s.message_id DESC;

-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 2026-12-01 00:00:00+00:00
-- $3 = 'cpu'
-- $4 = 'demo'
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume,
encode(s.signature, 'hex') AS signature, s.verbatim_json, s.recorded_at
FROM (
    WITH reach AS MATERIALIZED (
        SELECT CASE WHEN count(*) = 20 THEN min(p.last) ELSE '-infinity' END AS timestamp
        FROM (
            SELECT p.last
            FROM (
                SELECT p.last, p.series_id FROM packed_samples p
                WHERE p.count > 0 AND p.last > $1::timestamptz AND p.last < $2::timestamptz AND p.first >= (($1::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC'
                ORDER BY p.last DESC LIMIT 200
            ) p
            WHERE EXISTS (SELECT FROM series x WHERE x.id = p.series_id AND (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $3)) AND (x.project_id = (SELECT id FROM project WHERE name = $4)) OFFSET 0)
            ORDER BY p.last DESC LIMIT 20
        ) p
    ), newest_of_series AS MATERIALIZED (
        SELECT x.id, s.timestamp, s.message_id FROM series x CROSS JOIN LATERAL (
            WITH plain AS MATERIALIZED (
                SELECT s.timestamp, s.message_id FROM sample s
                WHERE s.series_id = x.id AND s.timestamp >= (SELECT timestamp FROM reach) AND (s.timestamp >= $1) AND (s.timestamp < $2)
                ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
            )
            SELECT s.timestamp, s.message_id FROM plain s
            UNION ALL (
                SELECT s.timestamp, s.message_id FROM (
                    SELECT p.* FROM packed_samples p
                    WHERE p.series_id = x.id AND p.first <= $2::timestamptz AND p.last >= greatest($1::timestamptz, (SELECT timestamp FROM reach)) AND p.first >= ((greatest($1::timestamptz, (SELECT timestamp FROM reach))) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.first >= (($1::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 1 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                    ORDER BY p.first DESC, p.part DESC OFFSET 0
                ) p CROSS JOIN LATERAL (
                    SELECT
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                    ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(greatest($1::timestamptz, (SELECT timestamp FROM reach)), p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                    END AS lower,
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                    ELSE least(p.count, ceil((date_part('epoch', least($2::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                    END AS upper
                    OFFSET 0
                ) AS whole
                CROSS JOIN LATERAL (SELECT CASE WHEN p.archived AND whole.upper - p.count + 4 > 0 THEN least(whole.upper - p.count + 4, 1 + 3) ELSE 1 + 3 END AS size OFFSET 0) AS ahead
                CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - ahead.size + 1), whole.upper), (whole.lower, whole.upper - ahead.size)) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
                CROSS JOIN LATERAL (
                    SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                            SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                            SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                        CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
                    WHERE s.timestamp >= (SELECT timestamp FROM reach) AND (s.timestamp >= $1) AND (s.timestamp < $2)
                    ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
                ) s LIMIT 1
            )
            ORDER BY timestamp DESC, message_id DESC LIMIT 1
        ) s
        WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $3)) AND (x.project_id = (SELECT id FROM project WHERE name = $4))
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
    ), oldest AS MATERIALIZED (
        SELECT CASE WHEN count(*) = 20 THEN min(timestamp) ELSE '-infinity' END AS timestamp FROM newest_of_series
    )
    SELECT s.* FROM oldest CROSS JOIN newest_of_series JOIN series x ON x.id = newest_of_series.id CROSS JOIN LATERAL (
        WITH plain AS MATERIALIZED (
            SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM sample s
            WHERE s.series_id = x.id AND s.timestamp >= oldest.timestamp AND (s.timestamp >= $1) AND (s.timestamp < $2)
            ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
        )
        SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM plain s
        UNION ALL (
            SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM (
                SELECT p.* FROM packed_samples p
                WHERE p.series_id = x.id AND p.first <= $2::timestamptz AND p.last >= greatest($1::timestamptz, oldest.timestamp) AND p.first >= ((greatest($1::timestamptz, oldest.timestamp)) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.first >= (($1::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 20 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                ORDER BY p.first DESC, p.part DESC OFFSET 0
            ) p CROSS JOIN LATERAL (
                SELECT
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(greatest($1::timestamptz, oldest.timestamp), p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                END AS lower,
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                ELSE least(p.count, ceil((date_part('epoch', least($2::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                END AS upper
                OFFSET 0
            ) AS whole
            CROSS JOIN LATERAL (SELECT CASE WHEN p.archived AND whole.upper - p.count + 4 > 0 THEN least(whole.upper - p.count + 4, 20 + 3) ELSE 20 + 3 END AS size OFFSET 0) AS ahead
            CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - ahead.size + 1), whole.upper), (whole.lower, whole.upper - ahead.size)) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
            CROSS JOIN LATERAL (
                SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, coalesce(u.recorded_times, coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') + u.delays * interval '1 microsecond') AS recorded_at, u.message_ids AS message_id, u.volumes AS volume, u.metadata_ids AS metadata_id, p.series_id AS series_id, u.wire_format_ids AS wire_format_id, coalesce(uuid_send(u.signatures_left) || uuid_send(u.signatures_right), u.signatures, '') AS signature, coalesce(u.verbatim_jsons, '') AS verbatim_json FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.recorded_times[slice.lower:slice.upper], p.delays[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper], p.wire_format_ids[slice.lower:slice.upper], p.signatures_left[slice.lower:slice.upper], p.signatures_right[slice.lower:slice.upper], p.signatures[slice.lower:slice.upper], p.verbatim_jsons[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                        SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.recorded_times[slice.lower - shift:slice.upper - shift], p.delays[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift], p.wire_format_ids[slice.lower - shift:slice.upper - shift], p.signatures_left[slice.lower - shift:slice.upper - shift], p.signatures_right[slice.lower - shift:slice.upper - shift], p.signatures[slice.lower - shift:slice.upper - shift], p.verbatim_jsons[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                        SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.recorded_times[slice.lower:slice.upper], a.delays[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper], a.volumes[slice.lower:slice.upper], a.metadata_ids[slice.lower:slice.upper], a.wire_format_ids[slice.lower:slice.upper], a.signatures_left[slice.lower:slice.upper], a.signatures_right[slice.lower:slice.upper], a.signatures[slice.lower:slice.upper], a.verbatim_jsons[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, delays, recorded_times, message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons, NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, recorded_times, delays, message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons)
                    CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.recorded_times, held.delays, held.message_ids, held.volumes, held.metadata_ids, held.wire_format_ids, held.signatures_left, held.signatures_right, held.signatures, held.verbatim_jsons) WITH ORDINALITY AS u (times, time_offsets, recorded_times, delays, message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons, n) OFFSET 0) s
                WHERE s.timestamp >= oldest.timestamp AND (s.timestamp >= $1) AND (s.timestamp < $2)
                ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
            ) s LIMIT 20
        )
        ORDER BY timestamp DESC, message_id DESC LIMIT 20
    ) s
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
) s
ORDER BY s.timestamp DESC, s.message_id DESC;
