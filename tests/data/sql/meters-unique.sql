-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 2026-12-01 00:00:00+00:00
-- $3 = 'cpu'
-- $4 = 100
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT m.name, m.type, m.unit
FROM meter m
CROSS JOIN LATERAL (
    SELECT FROM series x
    CROSS JOIN LATERAL (SELECT FROM (
            SELECT s.timestamp, s.series_id FROM sample s
            UNION ALL
            (
                SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, p.series_id AS series_id
                FROM packed_samples p CROSS JOIN LATERAL (
                    SELECT
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                    ELSE greatest(1, floor((date_part('epoch', greatest($1::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)::integer)
                    END AS lower,
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                    ELSE least(p.count, ceil((date_part('epoch', least($2::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step)::integer + 2)
                    END AS upper
                    OFFSET 0
                ) AS slice
                CROSS JOIN LATERAL unnest(p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper]) WITH ORDINALITY AS u (times, time_offsets, n)
                WHERE p.series_id = x.id AND p.first <= $2::timestamptz AND p.last >= $1::timestamptz AND p.first >= $1::timestamptz - interval '7 days' AND true
                OFFSET 0
            )
        ) s WHERE s.series_id = x.id AND (s.timestamp >= $1) AND (s.timestamp < $2) LIMIT 1) s
    WHERE x.meter_id = m.id AND (x.meter_id IN (SELECT id FROM meter WHERE name = $3))
    LIMIT 1
) existing
ORDER BY m.name, m.type, m.unit LIMIT $4;
