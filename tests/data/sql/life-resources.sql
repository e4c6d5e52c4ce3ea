-- $1 = 'demo'
-- $2 = ['volume', 'volume.size']
-- $3 = 100
SELECT r.name
FROM (SELECT x.resource_id FROM series x WHERE x.resource_id > 0 AND (x.project_id = (SELECT id FROM project WHERE name = $1)) AND (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = ANY($2::text[]))) GROUP BY x.resource_id OFFSET 0) x
CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
ORDER BY r.name LIMIT $3;
