-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 2026-12-01 00:00:00+00:00
-- $3 = 'cpu'
-- $4 = 100
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT m.name, m.type, m.unit, true
FROM meter m
CROSS JOIN LATERAL (
    SELECT FROM series x
    CROSS JOIN LATERAL (
        WITH plain AS MATERIALIZED (SELECT s.timestamp, s.message_id FROM sample s WHERE s.series_id = x.id AND (s.timestamp >= $1) AND (s.timestamp < $2) LIMIT 1)
        SELECT s.timestamp, s.message_id FROM plain s
        UNION ALL (
            SELECT s.timestamp, s.message_id FROM (
                SELECT p.* FROM packed_samples p
                WHERE p.series_id = x.id AND p.first <= $2::timestamptz AND p.last >= $1::timestamptz AND p.first >= (($1::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 1 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
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
            CROSS JOIN LATERAL (SELECT CASE WHEN p.archived AND whole.lower <= 4 THEN least(5 - whole.lower, 1 + 3) ELSE 1 + 3 END AS size OFFSET 0) AS ahead
            CROSS JOIN LATERAL (SELECT * FROM (VALUES (whole.lower, least(whole.upper, whole.lower + ahead.size - 1)), (whole.lower + ahead.size, whole.upper)) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
            CROSS JOIN LATERAL (
                SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                        SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                        SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                    CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
                WHERE (s.timestamp >= $1) AND (s.timestamp < $2)
                ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
            ) s LIMIT 1
        )
        ORDER BY timestamp DESC, message_id DESC LIMIT 1
    ) s
    WHERE x.meter_id = m.id AND (x.meter_id IN (SELECT id FROM meter WHERE name = $3))
    LIMIT 1
) existing
ORDER BY m.name, m.type, m.unit LIMIT $4;
