-- $1 = 'cpu'
-- $2 = 2026-11-01 00:00:00+00:00
-- $3 = 2026-12-01 00:00:00+00:00
-- $4 = 100.0
-- $5 = None
WITH partial AS (
    WITH sample_series AS MATERIALIZED (
        SELECT m.unit AS unit, x.meter_id, array_agg(x.id) AS ids
        FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1)) AND x.retained_until >= $2 OFFSET 0) x JOIN meter m ON m.id = x.meter_id
        GROUP BY m.unit, x.meter_id
    )
    SELECT partial.*
    FROM sample_series
    CROSS JOIN LATERAL (
        SELECT unit, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume
        FROM (
            SELECT s.timestamp, s.volume FROM sample s WHERE s.series_id = ANY(sample_series.ids)
            UNION ALL
            (
                SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.volumes AS volume
                FROM packed_samples p CROSS JOIN LATERAL (
                    SELECT
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                    ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest($2::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                    END AS lower,
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                    ELSE least(p.count, ceil((date_part('epoch', least($3::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                    END AS upper
                    OFFSET 0
                ) AS slice
                CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                    SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets, volumes)
                CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.volumes) WITH ORDINALITY AS u (times, time_offsets, volumes, n)
                WHERE p.series_id = ANY(sample_series.ids) AND p.first <= $3::timestamptz AND p.last >= $2::timestamptz AND p.first >= (($2::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND true
                OFFSET 0
            )
        ) s
        WHERE (s.timestamp >= $2) AND (s.timestamp < $3) AND (s.volume > $4::float8)
        OFFSET 0
    ) AS partial
    UNION ALL (
        SELECT sample_series.unit, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume
        FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.volumes AS volume, p.series_id AS series_id
            FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], NULL::uuid[], a.volumes[k.lower:k.upper], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', ARRAY(SELECT unnest(ids) FROM sample_series), $2::timestamptz, $3::timestamptz, NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
            CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.volumes) WITH ORDINALITY AS u (times, time_offsets, volumes, n)
            WHERE (SELECT EXISTS (SELECT FROM archived_week))) s
        JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
        WHERE (s.timestamp >= $2) AND (s.timestamp < $3) AND (s.volume > $4::float8)
        ORDER BY s.series_id, s.timestamp)
), windowed AS NOT MATERIALIZED (
    SELECT *, NULL::timestamptz AS window_start FROM partial
), aggregated AS (
    SELECT window_start, unit, min(first) AS first, max(last) AS last, sum(count) AS value_0
    FROM windowed GROUP BY window_start, unit
)
SELECT window_start, unit, first, last, value_0
FROM aggregated
ORDER BY coalesce(window_start, first), unit
LIMIT $5;
