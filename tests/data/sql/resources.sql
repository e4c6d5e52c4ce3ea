-- $1 = 'cpu'
-- $2 = 'demo'
-- $3 = 2026-12-01 00:00:00+00:00
-- $4 = 100
-- $5 = 2026-11-01 00:00:00+00:00
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SET LOCAL enable_seqscan = off;
WITH archived_newest AS MATERIALIZED (SELECT array_agg(s.series_id ORDER BY s.series_id) AS series_ids, array_agg(s.timestamp ORDER BY s.series_id) AS timestamp_of_series, array_agg(s.message_id ORDER BY s.series_id) AS message_id_of_series, array_agg(s.metadata_id ORDER BY s.series_id) AS metadata_id_of_series FROM (
        SELECT DISTINCT ON (s.series_id) s.series_id, s.timestamp, s.message_id, s.metadata_id FROM (SELECT p.series_id AS series_id, coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.metadata_ids AS metadata_id
            FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], a.message_ids[k.lower:k.upper], NULL::double precision[], a.metadata_ids[k.lower:k.upper], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', ARRAY(
                    SELECT unnest(ids) FROM (
                        SELECT listed.ids FROM (
                            SELECT x.resource_id AS id, r.name, x.ids
                            FROM (SELECT x.resource_id, array_agg(x.id) AS ids FROM series x WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $1)) AND (x.project_id = (SELECT id FROM project WHERE name = $2)) GROUP BY x.resource_id OFFSET 0) x
                            CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
                            ORDER BY r.name OFFSET 0
                        ) listed
                        WHERE EXISTS (SELECT FROM packed_samples p WHERE p.series_id = ANY(listed.ids) AND p.archived AND p.first <= $3::timestamptz AND p.last >= $3::timestamptz AND p.first >= (($3::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' OFFSET 0)
                        LIMIT $4
                    ) AS page
                ), $3::timestamptz, $3::timestamptz, NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
            CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.message_ids, p.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, metadata_ids, n)
            WHERE (SELECT EXISTS (SELECT FROM archived_week))) s
        WHERE (s.timestamp >= $5) AND (s.timestamp < $3)
        ORDER BY s.series_id, s.timestamp DESC, s.message_id DESC
    ) s), archived_oldest AS MATERIALIZED (SELECT array_agg(s.series_id ORDER BY s.series_id) AS series_ids, array_agg(s.timestamp ORDER BY s.series_id) AS timestamp_of_series, array_agg(s.message_id ORDER BY s.series_id) AS message_id_of_series, array_agg(s.metadata_id ORDER BY s.series_id) AS metadata_id_of_series FROM (
        SELECT DISTINCT ON (s.series_id) s.series_id, s.timestamp, s.message_id, s.metadata_id FROM (SELECT p.series_id AS series_id, coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.metadata_ids AS metadata_id
            FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], a.message_ids[k.lower:k.upper], NULL::double precision[], a.metadata_ids[k.lower:k.upper], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', ARRAY(
                    SELECT unnest(ids) FROM (
                        SELECT listed.ids FROM (
                            SELECT x.resource_id AS id, r.name, x.ids
                            FROM (SELECT x.resource_id, array_agg(x.id) AS ids FROM series x WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $1)) AND (x.project_id = (SELECT id FROM project WHERE name = $2)) GROUP BY x.resource_id OFFSET 0) x
                            CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
                            ORDER BY r.name OFFSET 0
                        ) listed
                        WHERE EXISTS (SELECT FROM packed_samples p WHERE p.series_id = ANY(listed.ids) AND p.archived AND p.first <= $5::timestamptz AND p.last >= $5::timestamptz AND p.first >= (($5::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' OFFSET 0)
                        LIMIT $4
                    ) AS page
                ), $5::timestamptz, $5::timestamptz, NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
            CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.message_ids, p.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, metadata_ids, n)
            WHERE (SELECT EXISTS (SELECT FROM archived_week))) s
        WHERE (s.timestamp >= $5) AND (s.timestamp < $3)
        ORDER BY s.series_id, s.timestamp ASC, s.message_id ASC
    ) s)
SELECT selected.name, u.name, p.name, o.name, summary.first_sample, summary.last_sample, d.text,
(SELECT array_agg(m.name ORDER BY m.name, m.type, m.unit) FROM meter m WHERE m.id = ANY(summary.meter_ids)), summary.decided
FROM (
    SELECT x.resource_id AS id, r.name, x.ids
    FROM (SELECT x.resource_id, array_agg(x.id) AS ids FROM series x WHERE (x.meter_id + 0 IN (SELECT id FROM meter WHERE name = $1)) AND (x.project_id = (SELECT id FROM project WHERE name = $2)) GROUP BY x.resource_id OFFSET 0) x
    CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
    ORDER BY r.name OFFSET 0
) selected
CROSS JOIN LATERAL (
    SELECT min(each.first) AS first_sample, max(each.timestamp) AS last_sample, array_agg(DISTINCT each.meter_id) AS meter_ids,
    (array_agg(each.id ORDER BY each.timestamp DESC, each.message_id DESC))[1] AS series_id,
    (array_agg(each.metadata_id ORDER BY each.timestamp DESC, each.message_id DESC))[1] AS metadata_id,
    true AS decided
    FROM (
        SELECT x.*, newest.*, oldest.timestamp AS first
        FROM series x
        CROSS JOIN LATERAL (
            WITH edge AS MATERIALIZED (
                SELECT e.timestamp_of_series[place.n] AS timestamp, e.message_id_of_series[place.n] AS message_id, e.metadata_id_of_series[place.n] AS metadata_id FROM archived_newest e CROSS JOIN LATERAL (SELECT width_bucket(x.id, e.series_ids) AS n OFFSET 0) AS place
                WHERE (SELECT EXISTS (SELECT FROM archived_week)) AND place.n > 0 AND e.series_ids[place.n] = x.id
            ), plain AS MATERIALIZED (
                SELECT s.timestamp, s.message_id, s.metadata_id FROM ((
                        SELECT s.timestamp, s.message_id, s.metadata_id FROM sample s
                        WHERE s.series_id = x.id AND (s.timestamp >= $5) AND (s.timestamp < $3)
                        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
                    ) UNION ALL SELECT s.timestamp, s.message_id, s.metadata_id FROM edge s WHERE s.timestamp IS NOT NULL) s
                ORDER BY timestamp DESC, message_id DESC LIMIT 1
            )
            SELECT s.timestamp, s.message_id, s.metadata_id FROM plain s
            UNION ALL (
                SELECT s.timestamp, s.message_id, s.metadata_id FROM (
                    SELECT p.* FROM packed_samples p
                    WHERE p.series_id = x.id AND p.first <= $3::timestamptz AND p.last >= $5::timestamptz AND p.first >= (($5::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND NOT (p.first < $3::timestamptz AND p.last > $3::timestamptz AND EXISTS (SELECT FROM edge)) AND p.last >= (SELECT CASE WHEN count(*) < 1 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                    ORDER BY p.first DESC, p.part DESC OFFSET 0
                ) p CROSS JOIN LATERAL (
                    SELECT
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                    ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest($5::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                    END AS lower,
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                    ELSE least(p.count, ceil((date_part('epoch', least($3::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                    END AS upper
                    OFFSET 0
                ) AS whole
                CROSS JOIN LATERAL (SELECT CASE WHEN p.archived AND whole.upper - p.count + 4 > 0 THEN least(whole.upper - p.count + 4, 1 + 3) ELSE 1 + 3 END AS size OFFSET 0) AS ahead
                CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - ahead.size + 1), whole.upper), (whole.lower, whole.upper - ahead.size)) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
                CROSS JOIN LATERAL (
                    SELECT s.timestamp, s.message_id, s.metadata_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.metadata_ids AS metadata_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                            SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                            SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper], a.metadata_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], metadata_ids, NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids, metadata_ids)
                        CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids, held.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, metadata_ids, n) OFFSET 0) s
                    WHERE (s.timestamp >= $5) AND (s.timestamp < $3)
                    ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
                ) s LIMIT 1
            )
            ORDER BY timestamp DESC, message_id DESC LIMIT 1
        ) newest
        CROSS JOIN LATERAL (
            WITH edge AS MATERIALIZED (
                SELECT e.timestamp_of_series[place.n] AS timestamp, e.message_id_of_series[place.n] AS message_id FROM archived_oldest e CROSS JOIN LATERAL (SELECT width_bucket(x.id, e.series_ids) AS n OFFSET 0) AS place
                WHERE (SELECT EXISTS (SELECT FROM archived_week)) AND place.n > 0 AND e.series_ids[place.n] = x.id
            ), plain AS MATERIALIZED (
                SELECT s.timestamp, s.message_id FROM ((
                        SELECT s.timestamp, s.message_id FROM sample s
                        WHERE s.series_id = x.id AND s.timestamp <= newest.timestamp AND (s.timestamp >= $5) AND (s.timestamp < $3)
                        ORDER BY s.timestamp ASC, s.message_id ASC LIMIT 1
                    ) UNION ALL SELECT s.timestamp, s.message_id FROM edge s WHERE s.timestamp IS NOT NULL) s
                ORDER BY timestamp ASC, message_id ASC LIMIT 1
            )
            SELECT s.timestamp, s.message_id FROM plain s
            UNION ALL (
                SELECT s.timestamp, s.message_id FROM (
                    SELECT p.* FROM packed_samples p
                    WHERE p.series_id = x.id AND p.first <= $3::timestamptz AND p.last >= $5::timestamptz AND p.first >= (($5::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND NOT (p.first < $5::timestamptz AND p.last > $5::timestamptz AND EXISTS (SELECT FROM edge)) AND p.first <= (SELECT CASE WHEN count(*) < 1 THEN 'infinity' ELSE max(s.timestamp) END FROM plain s)
                    ORDER BY p.first ASC, p.part ASC OFFSET 0
                ) p CROSS JOIN LATERAL (
                    SELECT
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                    ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest($5::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                    END AS lower,
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                    ELSE least(p.count, ceil((date_part('epoch', least($3::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                    END AS upper
                    OFFSET 0
                ) AS whole
                CROSS JOIN LATERAL (SELECT CASE WHEN p.archived AND whole.lower <= 4 THEN least(5 - whole.lower, 1 + 3) ELSE 1 + 3 END AS size OFFSET 0) AS ahead
                CROSS JOIN LATERAL (SELECT * FROM (VALUES (whole.lower, least(whole.upper, whole.lower + ahead.size - 1)), (whole.lower + ahead.size, whole.upper)) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
                CROSS JOIN LATERAL (
                    SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                            SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                            SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                        CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
                    WHERE s.timestamp <= newest.timestamp AND (s.timestamp >= $5) AND (s.timestamp < $3)
                    ORDER BY s.timestamp ASC, s.message_id ASC OFFSET 0
                ) s LIMIT 1
            )
            ORDER BY timestamp ASC, message_id ASC LIMIT 1
        ) oldest
        WHERE x.id = ANY(selected.ids)
    ) each
) summary
CROSS JOIN LATERAL (SELECT d.text FROM metadata d WHERE d.id = summary.metadata_id OFFSET 0) d
CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.id = summary.series_id OFFSET 0) x
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = x.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = x.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = x.source_id OFFSET 0) o ON true
ORDER BY selected.name LIMIT $4;
