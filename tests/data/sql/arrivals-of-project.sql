-- $1 = 'demo'
-- $2 = 2026-11-01 00:00:00+00:00
-- $3 = 1000
WITH recent AS MATERIALIZED (
    SELECT s.series_id, s.timestamp, s.recorded_at
    FROM (SELECT x.id FROM series x WHERE x.project_id = (SELECT id FROM project WHERE name = $1) OFFSET 0) x
    CROSS JOIN LATERAL (
        SELECT s.series_id, s.timestamp, s.recorded_at FROM sample s
        WHERE s.series_id = x.id AND s.timestamp >= $2::timestamptz - interval '1 day'
        ORDER BY s.timestamp DESC LIMIT 100
    ) s
    WHERE s.recorded_at >= $2
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
