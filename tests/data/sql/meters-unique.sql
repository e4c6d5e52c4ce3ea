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
    CROSS JOIN LATERAL (SELECT FROM sample s WHERE s.series_id = x.id AND (s.timestamp >= $1) AND (s.timestamp < $2) LIMIT 1) s
    WHERE x.meter_id = m.id AND (x.meter_id IN (SELECT id FROM meter WHERE name = $3))
    LIMIT 1
) existing
ORDER BY m.name, m.type, m.unit LIMIT $4;
