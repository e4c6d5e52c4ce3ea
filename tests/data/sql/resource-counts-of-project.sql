-- $1 = ['volume', 'volume']
-- $2 = ['volume', 'volume.size']
-- $3 = [True, False]
-- $4 = ['status', 'status']
-- $5 = 'demo'
-- $6 = 1000
-- $7 = 2026-11-01 00:00:00+00:00
-- $8 = ['volume']
-- $9 = ['deleted']
WITH asked AS MATERIALIZED (
    SELECT kind, meter, counting, state_key
    FROM unnest($1::text[], $2::text[], $3::boolean[], $4::text[]) AS asked (kind, meter, counting, state_key)
), listed AS MATERIALIZED (
    SELECT x.id, x.resource_id, x.project_id, a.kind, a.counting, a.state_key
    FROM asked a JOIN meter m ON m.name = a.meter
    CROSS JOIN LATERAL (SELECT x.id, x.resource_id, x.project_id FROM series x WHERE x.meter_id = m.id AND x.project_id = (SELECT id FROM project WHERE name = $5) OFFSET 0) x
    LIMIT $6
), newest AS (
    SELECT DISTINCT ON (l.kind, l.resource_id) l.kind, l.project_id, l.counting, l.state_key, s.volume, s.metadata_id
    FROM listed l
    CROSS JOIN LATERAL (
        WITH plain AS MATERIALIZED (
            SELECT s.timestamp, s.message_id, s.volume, s.metadata_id FROM sample s
            WHERE s.series_id = l.id AND s.timestamp >= $7
            ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
        )
        SELECT s.timestamp, s.message_id, s.volume, s.metadata_id FROM plain s
        UNION ALL (
            SELECT s.timestamp, s.message_id, s.volume, s.metadata_id FROM (
                SELECT p.* FROM packed_samples p
                WHERE p.series_id = l.id AND p.first <= 'infinity'::timestamptz AND p.last >= $7::timestamptz AND p.first >= (($7::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 1 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                ORDER BY p.first DESC, p.part DESC OFFSET 0
            ) p CROSS JOIN LATERAL (
                SELECT
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest($7::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                END AS lower,
                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                ELSE least(p.count, ceil((date_part('epoch', least('infinity'::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                END AS upper
                OFFSET 0
            ) AS whole
            CROSS JOIN LATERAL (SELECT CASE WHEN p.archived AND whole.upper - p.count + 4 > 0 THEN least(whole.upper - p.count + 4, 1 + 3) ELSE 1 + 3 END AS size OFFSET 0) AS ahead
            CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - ahead.size + 1), whole.upper), (whole.lower, whole.upper - ahead.size)) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
            CROSS JOIN LATERAL (
                SELECT s.timestamp, s.message_id, s.volume, s.metadata_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume, u.metadata_ids AS metadata_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                        SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                        SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper], a.volumes[slice.lower:slice.upper], a.metadata_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, volumes, metadata_ids, NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids, volumes, metadata_ids)
                    CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids, held.volumes, held.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, metadata_ids, n) OFFSET 0) s
                WHERE s.timestamp >= $7
                ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
            ) s LIMIT 1
        )
        ORDER BY timestamp DESC, message_id DESC LIMIT 1
    ) s
    ORDER BY l.kind, l.resource_id, s.timestamp DESC, s.message_id DESC
), existing AS (
    SELECT n.kind, n.project_id, CASE WHEN jsonb_typeof(d.document -> n.state_key) = 'string' THEN d.document ->> n.state_key END AS state
    FROM newest n JOIN metadata d ON d.id = n.metadata_id
    WHERE NOT (n.counting AND n.volume = 0)
), ended AS (
    SELECT * FROM unnest($8::text[], $9::text[]) AS ended (kind, state)
)
SELECT e.kind, e.state, count(*), count(DISTINCT nullif(e.project_id, 0)), grouping(e.kind, e.state),
(SELECT count(*) FROM listed)
FROM existing e
WHERE NOT EXISTS (SELECT FROM ended WHERE (ended.kind, ended.state) = (e.kind, e.state))
GROUP BY GROUPING SETS ((e.kind, e.state), ())
ORDER BY 5, 3 DESC, 1, 2;
