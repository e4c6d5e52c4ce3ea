-- $1 = ['instance', 'instance']
-- $2 = ['instance', 'power.state']
-- $3 = [True, False]
-- $4 = ['state', 'state']
-- $5 = 1000
-- $6 = 2026-11-01 00:00:00+00:00
-- $7 = ['instance']
-- $8 = ['deleted']
WITH asked AS MATERIALIZED (
    SELECT kind, meter, counting, state_key
    FROM unnest($1::text[], $2::text[], $3::boolean[], $4::text[]) AS asked (kind, meter, counting, state_key)
), listed AS MATERIALIZED (
    SELECT x.id, x.resource_id, x.project_id, a.kind, a.counting, a.state_key
    FROM asked a JOIN meter m ON m.name = a.meter
    CROSS JOIN LATERAL (SELECT x.id, x.resource_id, x.project_id FROM series x WHERE x.meter_id = m.id OFFSET 0) x
    LIMIT $5
), newest AS (
    SELECT DISTINCT ON (l.kind, l.resource_id) l.kind, l.project_id, l.counting, l.state_key, s.volume, s.metadata_id
    FROM listed l
    CROSS JOIN LATERAL (
        SELECT s.timestamp, s.message_id, s.volume, s.metadata_id FROM sample s
        WHERE s.series_id = l.id AND s.timestamp >= $6
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
    ) s
    ORDER BY l.kind, l.resource_id, s.timestamp DESC, s.message_id DESC
), existing AS (
    SELECT n.kind, n.project_id, CASE WHEN jsonb_typeof(d.document -> n.state_key) = 'string' THEN d.document ->> n.state_key END AS state
    FROM newest n JOIN metadata d ON d.id = n.metadata_id
    WHERE NOT (n.counting AND n.volume = 0)
), ended AS (
    SELECT * FROM unnest($7::text[], $8::text[]) AS ended (kind, state)
)
SELECT e.kind, e.state, count(*), count(DISTINCT nullif(e.project_id, 0)), grouping(e.kind, e.state),
(SELECT count(*) FROM listed)
FROM existing e
WHERE NOT EXISTS (SELECT FROM ended WHERE (ended.kind, ended.state) = (e.kind, e.state))
GROUP BY GROUPING SETS ((e.kind, e.state), ())
ORDER BY 5, 3 DESC, 1, 2;
