-- $1 = 'cpu'
-- $2 = 'demo'
SELECT threshold.few, ARRAY(SELECT x.id FROM series x WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $1)) AND (x.project_id = (SELECT id FROM project WHERE name = $2)) LIMIT threshold.few + 1) AS ids
FROM (SELECT sqrt(greatest(reltuples, 100))::bigint AS few FROM pg_class WHERE oid = 'series'::regclass) threshold;

-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 2026-12-01 00:00:00+00:00
-- $3 = 2026-11-08 00:00:00+00:00
-- $4 = '0195d3f0-1111-7abc-8def-000000000001'
-- $5 = [1]
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume,
encode(s.signature, 'hex') AS signature, s.verbatim_json, s.recorded_at
FROM (
    SELECT s.* FROM series x CROSS JOIN LATERAL (
        SELECT s.* FROM sample s
        WHERE s.series_id = x.id AND (s.timestamp >= $1) AND (s.timestamp < $2) AND s.timestamp <= $3 AND (s.timestamp, s.message_id) < ($3, $4::uuid)
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
    ) s
    WHERE x.id = ANY($5)
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
) s
ORDER BY s.timestamp DESC, s.message_id DESC;
