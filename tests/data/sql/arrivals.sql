-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 1000
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
WITH recent AS MATERIALIZED (
    SELECT s.series_id, s.timestamp, s.recorded_at FROM sample s
    WHERE s.metadata_id >= -2147483648 AND s.recorded_at >= $1
    ORDER BY s.recorded_at DESC LIMIT $2
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
