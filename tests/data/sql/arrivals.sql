-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 1000
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
WITH recent AS MATERIALIZED (
    (
        SELECT s.series_id, s.timestamp, s.recorded_at FROM sample s
        WHERE s.metadata_id >= -2147483648 AND s.recorded_at >= $1::timestamptz
        ORDER BY s.recorded_at DESC LIMIT $2
    )
    UNION ALL
    SELECT s.series_id, s.timestamp, s.recorded_at FROM (
        (
            SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, coalesce(u.recorded_times, coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') + u.delays * interval '1 microsecond') AS recorded_at, u.message_ids AS message_id, p.series_id AS series_id
            FROM packed_samples p CROSS JOIN LATERAL (
                SELECT
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest('-infinity'::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                END AS lower,
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                ELSE least(p.count, ceil((date_part('epoch', least('infinity'::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                END AS upper
                OFFSET 0
            ) AS slice
            CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.recorded_times[slice.lower:slice.upper], p.delays[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.recorded_times[slice.lower - shift:slice.upper - shift], p.delays[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets, recorded_times, delays, message_ids)
            CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.recorded_times, held.delays, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, recorded_times, delays, message_ids, n)
            WHERE true AND p.first <= 'infinity'::timestamptz AND p.last >= '-infinity'::timestamptz AND p.first >= (('-infinity'::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.part >= 0 AND p.last_recorded >= $1::timestamptz
            OFFSET 0
        )
        UNION ALL
        SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, coalesce(u.recorded_times, coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') + u.delays * interval '1 microsecond') AS recorded_at, u.message_ids AS message_id, p.series_id AS series_id
        FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], a.delays[k.lower:k.upper], a.recorded_times[k.lower:k.upper], a.message_ids[k.lower:k.upper], NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', NULL, '-infinity'::timestamptz, 'infinity'::timestamptz, $1::timestamptz, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
        CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.recorded_times, p.delays, p.message_ids) WITH ORDINALITY AS u (times, time_offsets, recorded_times, delays, message_ids, n)
        WHERE (SELECT EXISTS (SELECT FROM archived_week))
    ) s WHERE s.recorded_at >= $1::timestamptz
    ORDER BY recorded_at DESC LIMIT $2
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
