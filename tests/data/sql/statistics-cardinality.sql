-- $1 = 'cpu'
-- $2 = 2026-11-01 00:00:00+00:00
-- $3 = 2026-12-01 00:00:00+00:00
-- $4 = None
WITH matching AS (
    WITH sampled AS MATERIALIZED (
        SELECT m.unit AS unit, x.resource_id AS resource_id, x.meter_id, array_agg(x.id) AS ids FROM series x JOIN meter m ON m.id = x.meter_id
        WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1))
        GROUP BY m.unit, x.resource_id, x.meter_id
    ), rolled AS MATERIALIZED (
        SELECT m.unit AS unit, x.resource_id AS resource_id, array_agg(x.id) AS ids FROM series x JOIN meter m ON m.id = x.meter_id
        WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1))
        GROUP BY m.unit, x.resource_id
    ), rolled_past AS MATERIALIZED (
        SELECT m.unit AS unit, x.resource_id AS resource_id, x.meter_id, array_agg(x.id) AS ids FROM series x JOIN meter m ON m.id = x.meter_id
        WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1)) AND EXISTS (SELECT FROM retention_cutoff)
        GROUP BY m.unit, x.resource_id, x.meter_id
    ), span AS MATERIALIZED (
        SELECT h.start, h.hours FROM final_period h WHERE h.hours = 24 AND (h.start >= $2) AND (h.start + make_interval(hours => h.hours) <= $3)
        UNION ALL
        SELECT h.start, h.hours FROM final_period h
        WHERE h.hours = 1 AND 24 = 24 AND (h.start >= $2) AND (h.start + make_interval(hours => h.hours) <= $3) AND date_trunc('day', h.start) NOT IN (
            SELECT h.start FROM final_period h WHERE h.hours = 24 AND (h.start >= $2) AND (h.start + make_interval(hours => h.hours) <= $3)
        )
    ), told AS MATERIALIZED (
        SELECT hours, min(start) AS start, max(start) + make_interval(hours => hours) AS finish
        FROM (SELECT hours, start, row_number() OVER (PARTITION BY hours ORDER BY start) AS n FROM span AS span) AS _
        GROUP BY hours, start - n * make_interval(hours => hours)
    ), gap AS MATERIALIZED (
        SELECT * FROM (
            SELECT start, finish FROM (
                SELECT finish AS start, coalesce(lead(start) OVER (ORDER BY start, finish), 'infinity') AS finish
                FROM (
                    SELECT start, start + make_interval(hours => hours) AS finish FROM span AS span
                    UNION ALL SELECT '-infinity', '-infinity'
                ) AS _
            ) AS gap WHERE start < finish
        ) AS gap WHERE (gap.finish > $2) AND (gap.start < $3)
    ), past AS MATERIALIZED (
        SELECT m.id AS meter_id, max(h.before) AS before FROM retention_cutoff h JOIN meter m ON h.meter IN (m.name, '') GROUP BY m.id
    )
    SELECT piece.* FROM told CROSS JOIN rolled CROSS JOIN LATERAL (
        SELECT unit, resource_id, r.first AS first, r.last AS last, r.count::float8 AS count, r.min_volume AS min_volume, r.max_volume AS max_volume, r.sum_volume AS sum_volume FROM rollup r
        WHERE r.hours = told.hours AND r.series_id = ANY(rolled.ids) AND r.start >= told.start AND r.start < told.finish
            AND true
        OFFSET 0
    ) AS piece
    UNION ALL
    SELECT piece.* FROM gap CROSS JOIN sampled LEFT JOIN past ON past.meter_id = sampled.meter_id CROSS JOIN LATERAL (
        SELECT unit, resource_id, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume FROM sample s
        WHERE s.series_id = ANY(sampled.ids) AND s.timestamp >= greatest(gap.start, past.before) AND s.timestamp < gap.finish
            AND (s.timestamp >= $2) AND (s.timestamp < $3)
        OFFSET 0
    ) AS piece
    UNION ALL
    SELECT piece.* FROM gap CROSS JOIN rolled_past JOIN past ON past.meter_id = rolled_past.meter_id CROSS JOIN LATERAL (
        SELECT unit, resource_id, r.first AS first, r.last AS last, r.count::float8 AS count, r.min_volume AS min_volume, r.max_volume AS max_volume, r.sum_volume AS sum_volume FROM rollup r
        WHERE r.hours = 1 AND r.series_id = ANY(rolled_past.ids) AND r.start >= gap.start AND r.start < gap.finish
            AND r.start < past.before AND (r.start >= $2) AND (r.start + make_interval(hours => r.hours) <= $3)
        OFFSET 0
    ) AS piece
), cell AS (
    SELECT *, NULL::timestamptz AS window_start FROM matching
), rows AS (
    SELECT window_start, unit, min(first) AS first, max(last) AS last, count(DISTINCT nullif(resource_id, 0)) AS value_0
    FROM cell GROUP BY window_start, unit
)
SELECT window_start, unit, first, last, value_0
FROM rows
ORDER BY coalesce(window_start, first), unit
LIMIT $4;
