-- $1 = 'cpu'
-- $2 = 'demo'
SELECT threshold.few, ARRAY(SELECT x.id FROM series x WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $1)) AND (x.project_id = (SELECT id FROM project WHERE name = $2)) LIMIT threshold.few + 1) AS ids
FROM (SELECT sqrt(greatest(reltuples, 100))::bigint AS few FROM pg_class WHERE oid = 'series'::regclass) threshold;

-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 2026-12-01 00:00:00+00:00
-- $3 = 'cpu'
-- $4 = 'demo'
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume,
encode(s.signature, 'hex') AS signature, s.verbatim_json, s.recorded_at
FROM (
    SELECT s.* FROM (
        SELECT s.* FROM sample s WHERE s.wire_format_id >= -2147483648 AND (s.timestamp >= $1) AND (s.timestamp < $2)
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 60
    ) s CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.id = s.series_id OFFSET 0) x
    WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $3)) AND (x.project_id = (SELECT id FROM project WHERE name = $4)) AND (s.timestamp >= $1) AND (s.timestamp < $2)
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
) s
ORDER BY s.timestamp DESC, s.message_id DESC;

-- $1 = 2026-11-01 00:00:00+00:00
-- $2 = 2026-12-01 00:00:00+00:00
-- $3 = 'cpu'
-- $4 = 'demo'
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume,
encode(s.signature, 'hex') AS signature, s.verbatim_json, s.recorded_at
FROM (
    WITH newest_of_series AS MATERIALIZED (
        SELECT x.id, s.timestamp, s.message_id FROM series x CROSS JOIN LATERAL (
            SELECT s.timestamp, s.message_id FROM sample s
            WHERE s.series_id = x.id AND (s.timestamp >= $1) AND (s.timestamp < $2)
            ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
        ) s
        WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $3)) AND (x.project_id = (SELECT id FROM project WHERE name = $4))
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
    ), oldest AS MATERIALIZED (
        SELECT CASE WHEN count(*) = 20 THEN min(timestamp) ELSE '-infinity' END AS timestamp FROM newest_of_series
    )
    SELECT s.* FROM oldest CROSS JOIN newest_of_series JOIN series x ON x.id = newest_of_series.id CROSS JOIN LATERAL (
        SELECT s.* FROM sample s
        WHERE s.series_id = x.id AND s.timestamp >= oldest.timestamp AND (s.timestamp >= $1) AND (s.timestamp < $2)
        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
    ) s
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
) s
ORDER BY s.timestamp DESC, s.message_id DESC;
