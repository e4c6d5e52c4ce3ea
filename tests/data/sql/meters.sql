-- $1 = 'cpu'
-- $2 = 2026-11-01 00:00:00+00:00
-- $3 = 2026-12-01 00:00:00+00:00
-- $4 = 100
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT listed.name, listed.type, listed.unit, listed.resource, u.name, p.name, o.name
FROM (
    SELECT m.name, m.type, m.unit, r.name AS resource, array_agg(x.id) AS ids
    FROM (SELECT * FROM series x WHERE (x.meter_id IN (SELECT id FROM meter WHERE name = $1)) OFFSET 0) x
    CROSS JOIN LATERAL (SELECT m.name, m.type, m.unit FROM meter m WHERE m.id = x.meter_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
    GROUP BY m.name, m.type, m.unit, r.name
    ORDER BY m.name, r.name, m.type, m.unit OFFSET 0
) listed
CROSS JOIN LATERAL (
    SELECT x.user_id, x.project_id, x.source_id
    FROM series x
    CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id FROM sample s
        WHERE s.series_id = x.id AND (s.timestamp >= $2) AND (s.timestamp < $3)
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
    ) sample
    WHERE x.id = ANY(listed.ids)
    ORDER BY sample.timestamp DESC, sample.message_id DESC LIMIT 1
) newest
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = newest.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = newest.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = newest.source_id OFFSET 0) o ON true
ORDER BY listed.name, listed.resource, listed.type, listed.unit LIMIT $4;
