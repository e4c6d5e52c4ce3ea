-- $1 = 'cpu'
-- $2 = 2026-11-01 00:00:00+00:00
-- $3 = 2026-12-01 00:00:00+00:00
-- $4 = 0.95
-- $5 = None
WITH partial AS (
    WITH sample_series AS MATERIALIZED (
        SELECT m.unit AS unit, x.meter_id, array_agg(x.id) AS ids
        FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1)) OFFSET 0) x JOIN meter m ON m.id = x.meter_id
        GROUP BY m.unit, x.meter_id
    )
    SELECT partial.*
    FROM sample_series
    CROSS JOIN LATERAL (
        SELECT unit, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume
        FROM sample s
        WHERE s.series_id = ANY(sample_series.ids) AND (s.timestamp >= $2) AND (s.timestamp < $3)
        OFFSET 0
    ) AS partial
), windowed AS NOT MATERIALIZED (
    SELECT *, NULL::timestamptz AS window_start FROM partial
), aggregated AS (
    SELECT window_start, unit, min(first) AS first, max(last) AS last, percentile_cont($4) WITHIN GROUP (ORDER BY sum_volume) AS value_0
    FROM windowed GROUP BY window_start, unit
)
SELECT window_start, unit, first, last, value_0
FROM aggregated
ORDER BY coalesce(window_start, first), unit
LIMIT $5;
