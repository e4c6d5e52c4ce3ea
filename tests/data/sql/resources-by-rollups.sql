SELECT week.first, week.last, archived.until
FROM (
    SELECT ((min(name)::date) + time '00:00') AT TIME ZONE 'UTC' AS first, ((max(name)::date) + time '00:00') AT TIME ZONE 'UTC' AS last
    FROM (
        SELECT replace(right(c.relname, 10), '_', '-') AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('sample'::regclass, 'packed_samples'::regclass) AND c.relname ~ '^(sample|packed_samples)(_[0-9]+){3}$'
    ) AS _
) AS week
CROSS JOIN (SELECT ((max(week) + 7) + time '00:00') AT TIME ZONE 'UTC' AS until FROM archived_week) AS archived;

-- $1 = 1969-12-31 00:00:00+00:00
-- $2 = 100
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SET LOCAL enable_seqscan = off;
WITH cutoff AS MATERIALIZED (
    SELECT m.id AS meter_id, max(c.before) AS before FROM retention_cutoff c JOIN meter m ON c.meter IN (m.name, '')
    GROUP BY m.id
), gap AS MATERIALIZED (
    SELECT gap.start, gap.finish
    FROM (
        SELECT start, finish FROM (
            SELECT finish AS start, coalesce(lead(start) OVER (ORDER BY start, finish), 'infinity') AS finish
            FROM (
                SELECT start, start + make_interval(hours => hours) AS finish FROM (SELECT p.start, p.hours FROM final_period p WHERE p.hours = 24) AS span
                UNION ALL SELECT '-infinity', '-infinity'
            ) AS _
        ) AS gap WHERE start < finish
    ) AS day_gap
    CROSS JOIN LATERAL (
        SELECT start, finish FROM (
            SELECT finish AS start, coalesce(lead(start) OVER (ORDER BY start, finish), day_gap.finish) AS finish
            FROM (
                SELECT p.start, p.start + interval '1 hour' AS finish FROM final_period p
                WHERE p.hours = 1 AND p.start >= day_gap.start AND p.start < day_gap.finish
                UNION ALL SELECT day_gap.start, day_gap.start
            ) AS _
        ) AS gap WHERE start < finish
    ) AS gap
), gaps_known AS MATERIALIZED (
    SELECT true AS known
), sampled_gap AS MATERIALIZED (
    SELECT gap.start, gap.finish FROM gap WHERE EXISTS (
        SELECT FROM sample s WHERE s.wire_format_id >= -2147483648 AND s.timestamp >= gap.start AND s.timestamp < gap.finish AND true OFFSET 0
    ) OR EXISTS (
        SELECT FROM packed_samples p WHERE p.count > 0 AND p.first <= gap.finish AND p.last >= gap.start AND p.first >= ((gap.start) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' OFFSET 0
    )
)
SELECT selected.name, u.name, p.name, o.name, summary.first_sample, summary.last_sample, d.text,
(SELECT array_agg(m.name ORDER BY m.name, m.type, m.unit) FROM meter m WHERE m.id = ANY(summary.meter_ids)), summary.decided
FROM (
    SELECT r.id, r.name, ARRAY(SELECT x.id FROM series x WHERE x.resource_id = r.id) AS ids FROM resource r ORDER BY r.name OFFSET 0
) selected
CROSS JOIN LATERAL (
    SELECT min(o.project_id) = max(o.project_id) AS only_one, (array_agg(o.project_id ORDER BY o.id))[1] AS first_project,
    CASE WHEN min(o.project_id) < max(o.project_id) THEN (
        SELECT EXISTS (SELECT FROM series a WHERE a.resource_id = selected.id AND NOT coalesce(starts_with(
                    (SELECT o.name FROM source o WHERE o.id = a.source_id), (SELECT p.name FROM project p WHERE p.id = a.project_id) || ':'
                ), false))
    ) END AS measured
    FROM series o WHERE o.resource_id = selected.id
) owner
CROSS JOIN LATERAL (
    SELECT min(each.first) AS first_sample, max(each.timestamp) AS last_sample, array_agg(DISTINCT each.meter_id) AS meter_ids,
    (array_agg(each.id ORDER BY each.timestamp DESC, each.message_id DESC))[1] AS series_id,
    (array_agg(each.metadata_id ORDER BY each.timestamp DESC, each.message_id DESC))[1] AS metadata_id,
    true AS decided
    FROM (
        SELECT x.*, newest.*, oldest.timestamp AS first
        FROM series x
        CROSS JOIN LATERAL (
            (
                WITH plain AS MATERIALIZED (
                    SELECT s.timestamp, s.message_id, s.metadata_id FROM sample s
                    WHERE s.series_id = x.id AND s.timestamp >= $1::timestamptz
                    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
                )
                SELECT s.timestamp, s.message_id, s.metadata_id FROM plain s
                UNION ALL (
                    SELECT s.timestamp, s.message_id, s.metadata_id FROM (
                        SELECT p.* FROM packed_samples p
                        WHERE p.series_id = x.id AND p.first <= 'infinity'::timestamptz AND p.last >= $1::timestamptz AND p.first >= (($1::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 1 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                        ORDER BY p.first DESC, p.part DESC OFFSET 0
                    ) p CROSS JOIN LATERAL (
                        SELECT
                        CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                        ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest($1::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                        END AS lower,
                        CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                        ELSE least(p.count, ceil((date_part('epoch', least('infinity'::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                        END AS upper
                        OFFSET 0
                    ) AS whole
                    CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - (1 + 3) + 1), whole.upper), (whole.lower, whole.upper - (1 + 3))) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
                    CROSS JOIN LATERAL (
                        SELECT s.timestamp, s.message_id, s.metadata_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.metadata_ids AS metadata_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                                SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper], a.metadata_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], metadata_ids, NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids, metadata_ids)
                            CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids, held.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, metadata_ids, n) OFFSET 0) s
                        WHERE s.timestamp >= $1::timestamptz
                        ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
                    ) s LIMIT 1
                )
                ORDER BY timestamp DESC, message_id DESC LIMIT 1
            )
            UNION ALL
            (
                SELECT s.* FROM (SELECT coalesce((SELECT known.last FROM (
                                SELECT r.first, r.last FROM rollup r
                                WHERE r.hours = 1 AND r.series_id = x.id
                                    AND r.start >= coalesce((SELECT cutoff.before FROM cutoff WHERE cutoff.meter_id = x.meter_id), '-infinity')
                                    AND EXISTS (SELECT FROM final_period p WHERE p.hours = 1 AND p.start = r.start OFFSET 0)
                                ORDER BY r.start DESC, r.metadata_run DESC LIMIT 1
                            ) AS known), '-infinity') AS last OFFSET 0) AS known
                CROSS JOIN LATERAL (
                    WITH plain AS MATERIALIZED (
                        SELECT s.timestamp, s.message_id, s.metadata_id FROM sample s
                        WHERE s.series_id = x.id AND s.timestamp >= known.last
                        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
                    )
                    SELECT s.timestamp, s.message_id, s.metadata_id FROM plain s
                    UNION ALL (
                        SELECT s.timestamp, s.message_id, s.metadata_id FROM (
                            SELECT p.* FROM packed_samples p
                            WHERE p.series_id = x.id AND p.first <= 'infinity'::timestamptz AND p.last >= known.last AND p.first >= ((known.last) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 1 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                            ORDER BY p.first DESC, p.part DESC OFFSET 0
                        ) p CROSS JOIN LATERAL (
                            SELECT
                            CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                            ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(known.last, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                            END AS lower,
                            CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                            ELSE least(p.count, ceil((date_part('epoch', least('infinity'::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                            END AS upper
                            OFFSET 0
                        ) AS whole
                        CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - (1 + 3) + 1), whole.upper), (whole.lower, whole.upper - (1 + 3))) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
                        CROSS JOIN LATERAL (
                            SELECT s.timestamp, s.message_id, s.metadata_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.metadata_ids AS metadata_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                    SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                                    SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper], a.metadata_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], metadata_ids, NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids, metadata_ids)
                                CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids, held.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, metadata_ids, n) OFFSET 0) s
                            WHERE s.timestamp >= known.last
                            ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
                        ) s LIMIT 1
                    )
                    ORDER BY timestamp DESC, message_id DESC LIMIT 1
                ) AS s
            )
            LIMIT 1
        ) newest
        CROSS JOIN LATERAL (
            SELECT least(known.first, (
                    SELECT min(s.timestamp) FROM sampled_gap CROSS JOIN LATERAL (
                        WITH plain AS MATERIALIZED (
                            SELECT s.timestamp, s.message_id FROM sample s
                            WHERE s.series_id = x.id AND s.timestamp >= sampled_gap.start AND s.timestamp < sampled_gap.finish
                            ORDER BY s.timestamp ASC, s.message_id ASC LIMIT 1
                        )
                        SELECT s.timestamp, s.message_id FROM plain s
                        UNION ALL (
                            SELECT s.timestamp, s.message_id FROM (
                                SELECT p.* FROM packed_samples p
                                WHERE p.series_id = x.id AND p.first <= sampled_gap.finish AND p.last >= sampled_gap.start AND p.first >= ((sampled_gap.start) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.first <= (SELECT CASE WHEN count(*) < 1 THEN 'infinity' ELSE max(s.timestamp) END FROM plain s)
                                ORDER BY p.first ASC, p.part ASC OFFSET 0
                            ) p CROSS JOIN LATERAL (
                                SELECT
                                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                                ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(sampled_gap.start, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                                END AS lower,
                                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                                ELSE least(p.count, ceil((date_part('epoch', least(sampled_gap.finish, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                                END AS upper
                                OFFSET 0
                            ) AS whole
                            CROSS JOIN LATERAL (SELECT * FROM (VALUES (whole.lower, least(whole.upper, whole.lower + (1 + 3) - 1)), (whole.lower + (1 + 3), whole.upper)) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
                            CROSS JOIN LATERAL (
                                SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                        SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                                        SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                                    CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
                                WHERE s.timestamp >= sampled_gap.start AND s.timestamp < sampled_gap.finish
                                ORDER BY s.timestamp ASC, s.message_id ASC OFFSET 0
                            ) s LIMIT 1
                        )
                        ORDER BY timestamp ASC, message_id ASC LIMIT 1
                    ) AS s
                    WHERE sampled_gap.finish <= coalesce(known.first, 'infinity')
            )) AS timestamp
            FROM (SELECT (SELECT known.first FROM (
                        SELECT r.first, r.last FROM rollup r
                        WHERE r.hours = 1 AND r.series_id = x.id
                            AND r.start >= coalesce((SELECT cutoff.before FROM cutoff WHERE cutoff.meter_id = x.meter_id), '-infinity')
                            AND EXISTS (SELECT FROM final_period p WHERE p.hours = 1 AND p.start = r.start OFFSET 0)
                        ORDER BY r.start ASC, r.metadata_run ASC LIMIT 1
                    ) AS known) AS first OFFSET 0) AS known
        ) oldest
        WHERE x.id = ANY(selected.ids) AND (CASE WHEN owner.only_one THEN true WHEN owner.measured THEN NOT coalesce(starts_with(
                    (SELECT o.name FROM source o WHERE o.id = x.source_id), (SELECT p.name FROM project p WHERE p.id = x.project_id) || ':'
                ), false)
            ELSE x.project_id = owner.first_project END)
    ) each
) summary
CROSS JOIN LATERAL (SELECT d.text FROM metadata d WHERE d.id = summary.metadata_id OFFSET 0) d
CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.id = summary.series_id OFFSET 0) x
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = x.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = x.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = x.source_id OFFSET 0) o ON true
ORDER BY selected.name LIMIT $2;
