-- $1 = 'cpu'
-- $2 = 'demo'
SELECT threshold.few, ARRAY(SELECT x.id FROM series x WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $1)) AND (x.project_id = (SELECT id FROM project WHERE name = $2)) LIMIT threshold.few + 1) AS ids
FROM (SELECT sqrt(greatest(reltuples, 100))::bigint AS few FROM pg_class WHERE oid = 'series'::regclass) threshold;

-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 2026-12-01 00:00:00+00:00
-- $3 = [1]
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume,
encode(s.signature, 'hex') AS signature, s.verbatim_json, s.recorded_at
FROM (
    SELECT s.* FROM series x CROSS JOIN LATERAL (
        WITH plain AS MATERIALIZED (
            SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM sample s
            WHERE s.series_id = x.id AND (s.timestamp >= $1) AND (s.timestamp < $2)
            ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
        )
        SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM plain s
        UNION ALL (
            SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM (
                SELECT p.* FROM packed_samples p
                WHERE p.series_id = x.id AND p.first <= $2::timestamptz AND p.last >= $1::timestamptz AND p.first >= $1::timestamptz - interval '7 days' AND p.last >= (SELECT CASE WHEN count(*) < 20 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                ORDER BY p.first DESC, p.part DESC OFFSET 0
            ) p CROSS JOIN LATERAL (
                SELECT
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest($1::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                END AS lower,
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                ELSE least(p.count, ceil((date_part('epoch', least($2::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                END AS upper
                OFFSET 0
            ) AS whole
            CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - (20 + 3) + 1), whole.upper), (whole.lower, whole.upper - (20 + 3))) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
            CROSS JOIN LATERAL (
                SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, coalesce(u.recorded_times, coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') + u.delays * interval '1 microsecond') AS recorded_at, u.message_ids AS message_id, u.volumes AS volume, u.metadata_ids AS metadata_id, p.series_id AS series_id, u.wire_format_ids AS wire_format_id, coalesce(uuid_send(u.signatures_left) || uuid_send(u.signatures_right), u.signatures, '') AS signature, coalesce(u.verbatim_jsons, '') AS verbatim_json FROM LATERAL (SELECT p.times, p.time_offsets, p.recorded_times, p.delays, p.message_ids, p.volumes, p.metadata_ids, p.wire_format_ids, p.signatures_left, p.signatures_right, p.signatures, p.verbatim_jsons WHERE NOT p.message_ids IS NULL UNION ALL
                        SELECT a.times, a.time_offsets, a.recorded_times, a.delays, a.message_ids, a.volumes, a.metadata_ids, a.wire_format_ids, a.signatures_left, a.signatures_right, a.signatures, a.verbatim_jsons FROM archived_arrays('time_offsets, times, delays, recorded_times, message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons, NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.message_ids IS NULL AND slice.lower <= slice.upper) AS held
                    CROSS JOIN LATERAL unnest(held.times[slice.lower:slice.upper], held.time_offsets[slice.lower:slice.upper], held.recorded_times[slice.lower:slice.upper], held.delays[slice.lower:slice.upper], held.message_ids[slice.lower:slice.upper], held.volumes[slice.lower:slice.upper], held.metadata_ids[slice.lower:slice.upper], held.wire_format_ids[slice.lower:slice.upper], held.signatures_left[slice.lower:slice.upper], held.signatures_right[slice.lower:slice.upper], held.signatures[slice.lower:slice.upper], held.verbatim_jsons[slice.lower:slice.upper]) WITH ORDINALITY AS u (times, time_offsets, recorded_times, delays, message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons, n) OFFSET 0) s
                WHERE (s.timestamp >= $1) AND (s.timestamp < $2)
                ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
            ) s LIMIT 20
        )
        ORDER BY timestamp DESC, message_id DESC LIMIT 20
    ) s
    WHERE x.id = ANY($3)
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
) s
ORDER BY s.timestamp DESC, s.message_id DESC;
