-- $1 = 'demo'
-- $2 = 2026-11-01 00:00:00+00:00
-- $3 = 1000
WITH recent AS MATERIALIZED (
    SELECT s.series_id, s.timestamp, s.recorded_at
    FROM (SELECT x.id FROM series x WHERE x.project_id = (SELECT id FROM project WHERE name = $1) OFFSET 0) x
    CROSS JOIN LATERAL (
        WITH plain AS MATERIALIZED (
            SELECT s.timestamp, s.recorded_at, s.message_id, s.series_id FROM sample s
            WHERE s.series_id = x.id AND s.timestamp >= $2::timestamptz - interval '1 day'
            ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 100
        )
        SELECT s.timestamp, s.recorded_at, s.message_id, s.series_id FROM plain s
        UNION ALL (
            SELECT s.timestamp, s.recorded_at, s.message_id, s.series_id FROM (
                SELECT p.* FROM packed_samples p
                WHERE p.series_id = x.id AND p.first <= 'infinity'::timestamptz AND p.last >= $2::timestamptz - interval '1 day' AND p.first >= (($2::timestamptz - interval '1 day') AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 100 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                ORDER BY p.first DESC, p.part DESC OFFSET 0
            ) p CROSS JOIN LATERAL (
                SELECT
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest($2::timestamptz - interval '1 day', p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                END AS lower,
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                ELSE least(p.count, ceil((date_part('epoch', least('infinity'::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                END AS upper
                OFFSET 0
            ) AS whole
            CROSS JOIN LATERAL (SELECT CASE WHEN p.archived AND whole.upper - p.count + 4 > 0 THEN least(whole.upper - p.count + 4, 100 + 3) ELSE 100 + 3 END AS size OFFSET 0) AS ahead
            CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - ahead.size + 1), whole.upper), (whole.lower, whole.upper - ahead.size)) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
            CROSS JOIN LATERAL (
                SELECT s.timestamp, s.recorded_at, s.message_id, s.series_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, coalesce(u.recorded_times, coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') + u.delays * interval '1 microsecond') AS recorded_at, u.message_ids AS message_id, p.series_id AS series_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.recorded_times[slice.lower:slice.upper], p.delays[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                        SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.recorded_times[slice.lower - shift:slice.upper - shift], p.delays[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                        SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.recorded_times[slice.lower:slice.upper], a.delays[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, delays, recorded_times, message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, recorded_times, delays, message_ids)
                    CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.recorded_times, held.delays, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, recorded_times, delays, message_ids, n) OFFSET 0) s
                WHERE s.timestamp >= $2::timestamptz - interval '1 day'
                ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
            ) s LIMIT 100
        )
        ORDER BY timestamp DESC, message_id DESC LIMIT 100
    ) s
    WHERE s.recorded_at >= $2::timestamptz
    ORDER BY s.recorded_at DESC LIMIT $3
)
SELECT part, source, count(*),
percentile_disc(0.5) WITHIN GROUP (ORDER BY lag), percentile_disc(0.95) WITHIN GROUP (ORDER BY lag), max(lag),
min(recorded_at), grouping(part, source)
FROM (
    SELECT to_timestamp(floor(extract(epoch FROM s.recorded_at) / 60) * 60) AS part, o.name AS source,
    extract(epoch FROM s.recorded_at - s.timestamp)::double precision AS lag, s.recorded_at
    FROM recent s CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.id = s.series_id OFFSET 0) x
    LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = x.source_id OFFSET 0) o ON true
) s
GROUP BY GROUPING SETS ((part), (source), ())
ORDER BY 8, 1, 2;
