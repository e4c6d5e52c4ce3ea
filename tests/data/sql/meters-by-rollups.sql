SELECT week.first, week.last, archived.until
FROM (
    SELECT ((min(name)::date) + time '00:00') AT TIME ZONE 'UTC' AS first, ((max(name)::date) + time '00:00') AT TIME ZONE 'UTC' AS last
    FROM (
        SELECT replace(right(c.relname, 10), '_', '-') AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('sample'::regclass, 'packed_samples'::regclass) AND c.relname ~ '^(sample|packed_samples)(_[0-9]+){3}$'
    ) AS _
) AS week
CROSS JOIN (SELECT ((max(week) + 7) + time '00:00') AT TIME ZONE 'UTC' AS until FROM archived_week) AS archived;

-- $1 = 250
-- $2 = 1969-12-31 00:00:00+00:00
-- $3 = 100
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
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
SELECT listed.name, listed.type, listed.unit, listed.resource, u.name, p.name, o.name, newest.decided, listed.candidates
FROM (
    SELECT m.name, m.type, m.unit, x.*, r.name AS resource, x.of_several OR x.of_several_users AS by_newest
    FROM (
        SELECT x.meter_id, x.resource_id, array_agg(x.id) AS ids, min(x.user_id) AS user_id, min(x.project_id) AS project_id,
        min(x.source_id) AS source_id, min(x.project_id) < max(x.project_id) AS of_several,
        min(x.user_id) < max(x.user_id) OR min(x.source_id) < max(x.source_id) AS of_several_users,
        min(x.candidates) AS candidates
        FROM (
            WITH RECURSIVE listed_name AS (
                SELECT ''::text COLLATE "C" AS name, 0 AS total, '{}'::integer[] AS meter_ids, '{}'::integer[] AS resource_ids
                UNION ALL
                SELECT meters.name, before.total + coalesce(cardinality(pairs.meter_ids), 0), pairs.meter_ids, pairs.resource_ids
                FROM listed_name before
                CROSS JOIN LATERAL (
                    SELECT m.name, array_agg(m.id) AS ids FROM meter m
                    WHERE m.name = (SELECT following.name FROM meter following WHERE following.name > before.name ORDER BY following.name LIMIT 1)
                    GROUP BY m.name
                ) meters
                CROSS JOIN LATERAL (
                    SELECT count(*) > 5000 AS are_many
                    FROM (SELECT FROM series x WHERE x.meter_id = ANY(meters.ids) LIMIT 5000 + 1) AS _
                ) series_of_name
                CROSS JOIN LATERAL (
                    SELECT array_agg(pair.meter_id) AS meter_ids, array_agg(pair.resource_id) AS resource_ids
                    FROM (
                        (
                            SELECT x.meter_id, x.resource_id
                            FROM (
                                SELECT DISTINCT x.meter_id, x.resource_id FROM series x
                                WHERE x.meter_id = ANY(meters.ids) AND x.resource_id > 0 AND NOT series_of_name.are_many OFFSET 0
                            ) x
                            CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
                            ORDER BY r.name FETCH FIRST $1 ROWS WITH TIES
                        )
                        UNION ALL
                        (
                            SELECT x.meter_id, r.id
                            FROM resource r
                            CROSS JOIN LATERAL (
                                SELECT DISTINCT x.meter_id FROM series x WHERE x.meter_id = ANY(meters.ids) AND x.resource_id = r.id OFFSET 0
                            ) x
                            WHERE series_of_name.are_many
                            ORDER BY r.name FETCH FIRST $1 ROWS WITH TIES
                        )
                    ) AS pair
                ) pairs
                WHERE before.total < $1
            )
            SELECT x.*, first.candidates
            FROM (
                SELECT pair.*, (SELECT max(total) FROM listed_name) AS candidates
                FROM listed_name CROSS JOIN LATERAL unnest(listed_name.meter_ids, listed_name.resource_ids) AS pair (meter_id, resource_id) OFFSET 0
            ) AS first
            CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.meter_id = first.meter_id AND x.resource_id = first.resource_id OFFSET 0) x
            OFFSET 0
        ) x
        GROUP BY x.meter_id, x.resource_id OFFSET 0
    ) x
    CROSS JOIN LATERAL (SELECT m.name, m.type, m.unit FROM meter m WHERE m.id = x.meter_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
    ORDER BY m.name, r.name, m.type, m.unit OFFSET 0
) listed
CROSS JOIN LATERAL (
    SELECT listed.user_id, listed.project_id, listed.source_id, true AS decided WHERE NOT listed.by_newest AND EXISTS (
        SELECT FROM rollup r
        WHERE r.hours = 1 AND r.series_id = ANY(listed.ids)
            AND r.start >= coalesce((SELECT cutoff.before FROM cutoff WHERE cutoff.meter_id = listed.meter_id), '-infinity')
        OFFSET 0
    )
    UNION ALL
    (
        SELECT x.user_id, x.project_id, x.source_id, true
        FROM series x
        CROSS JOIN LATERAL (
            WITH plain AS MATERIALIZED (SELECT s.timestamp, s.message_id FROM sample s WHERE s.series_id = x.id AND true LIMIT 1)
            SELECT s.timestamp, s.message_id FROM plain s
            UNION ALL (
                SELECT s.timestamp, s.message_id FROM (
                    SELECT p.* FROM packed_samples p
                    WHERE p.series_id = x.id AND p.first <= 'infinity'::timestamptz AND p.last >= '-infinity'::timestamptz AND p.first >= (('-infinity'::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 1 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                    ORDER BY p.first DESC, p.part DESC OFFSET 0
                ) p CROSS JOIN LATERAL (
                    SELECT
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                    ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest('-infinity'::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                    END AS lower,
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                    ELSE least(p.count, ceil((date_part('epoch', least('infinity'::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                    END AS upper
                    OFFSET 0
                ) AS whole
                CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - (1 + 3) + 1), whole.upper), (whole.lower, whole.upper - (1 + 3))) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
                CROSS JOIN LATERAL (
                    SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                            SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                            SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                        CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
                    WHERE true
                    ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
                ) s LIMIT 1
            )
            ORDER BY timestamp DESC, message_id DESC LIMIT 1
        ) sample
        WHERE NOT listed.by_newest AND x.id = ANY(listed.ids)
        LIMIT 1
    )
    UNION ALL
    (
        SELECT x.user_id, x.project_id, x.source_id, true
        FROM (SELECT WHERE listed.by_newest) several
        CROSS JOIN LATERAL (
            SELECT min(o.project_id) = max(o.project_id) AS only_one, (array_agg(o.project_id ORDER BY o.id))[1] AS first_project,
            CASE WHEN min(o.project_id) < max(o.project_id) THEN (
                SELECT EXISTS (SELECT FROM series a WHERE a.resource_id = listed.resource_id AND NOT coalesce(starts_with(
                            (SELECT o.name FROM source o WHERE o.id = a.source_id), (SELECT p.name FROM project p WHERE p.id = a.project_id) || ':'
                        ), false))
            ) END AS measured
            FROM series o WHERE o.resource_id = listed.resource_id AND listed.of_several
        ) owner
        CROSS JOIN series x
        CROSS JOIN LATERAL (
            (
                WITH plain AS MATERIALIZED (
                    SELECT s.timestamp, s.message_id FROM sample s
                    WHERE s.series_id = x.id AND s.timestamp >= $2::timestamptz
                    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
                )
                SELECT s.timestamp, s.message_id FROM plain s
                UNION ALL (
                    SELECT s.timestamp, s.message_id FROM (
                        SELECT p.* FROM packed_samples p
                        WHERE p.series_id = x.id AND p.first <= 'infinity'::timestamptz AND p.last >= $2::timestamptz AND p.first >= (($2::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 1 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                        ORDER BY p.first DESC, p.part DESC OFFSET 0
                    ) p CROSS JOIN LATERAL (
                        SELECT
                        CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                        ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest($2::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                        END AS lower,
                        CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                        ELSE least(p.count, ceil((date_part('epoch', least('infinity'::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                        END AS upper
                        OFFSET 0
                    ) AS whole
                    CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - (1 + 3) + 1), whole.upper), (whole.lower, whole.upper - (1 + 3))) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
                    CROSS JOIN LATERAL (
                        SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                                SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                            CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
                        WHERE s.timestamp >= $2::timestamptz
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
                        SELECT s.timestamp, s.message_id FROM sample s
                        WHERE s.series_id = x.id AND s.timestamp >= known.last
                        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
                    )
                    SELECT s.timestamp, s.message_id FROM plain s
                    UNION ALL (
                        SELECT s.timestamp, s.message_id FROM (
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
                            SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                    SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                                    SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                                CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
                            WHERE s.timestamp >= known.last
                            ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
                        ) s LIMIT 1
                    )
                    ORDER BY timestamp DESC, message_id DESC LIMIT 1
                ) AS s
            )
            LIMIT 1
        ) sample
        WHERE x.id = ANY(listed.ids)
        ORDER BY (CASE WHEN owner.only_one THEN true WHEN owner.measured THEN NOT coalesce(starts_with(
                    (SELECT o.name FROM source o WHERE o.id = x.source_id), (SELECT p.name FROM project p WHERE p.id = x.project_id) || ':'
                ), false)
            ELSE x.project_id = owner.first_project END) DESC, sample.timestamp DESC, sample.message_id DESC LIMIT 1
    )
    LIMIT 1
) newest
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = newest.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = newest.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = newest.source_id OFFSET 0) o ON true
ORDER BY listed.name, listed.resource, listed.type, listed.unit LIMIT $3;

-- $1 = 1969-12-31 00:00:00+00:00
-- $2 = 100
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
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
SELECT listed.name, listed.type, listed.unit, listed.resource, u.name, p.name, o.name, newest.decided, listed.candidates
FROM (
    SELECT m.name, m.type, m.unit, x.*, r.name AS resource, x.of_several OR x.of_several_users AS by_newest
    FROM (
        SELECT x.meter_id, x.resource_id, array_agg(x.id) AS ids, min(x.user_id) AS user_id, min(x.project_id) AS project_id,
        min(x.source_id) AS source_id, min(x.project_id) < max(x.project_id) AS of_several,
        min(x.user_id) < max(x.user_id) OR min(x.source_id) < max(x.source_id) AS of_several_users,
        min(x.candidates) AS candidates
        FROM (SELECT *, 0 AS candidates FROM series x WHERE true OFFSET 0) x
        GROUP BY x.meter_id, x.resource_id OFFSET 0
    ) x
    CROSS JOIN LATERAL (SELECT m.name, m.type, m.unit FROM meter m WHERE m.id = x.meter_id OFFSET 0) m
    CROSS JOIN LATERAL (SELECT r.name FROM resource r WHERE r.id = x.resource_id OFFSET 0) r
    ORDER BY m.name, r.name, m.type, m.unit OFFSET 0
) listed
CROSS JOIN LATERAL (
    SELECT listed.user_id, listed.project_id, listed.source_id, true AS decided WHERE NOT listed.by_newest AND EXISTS (
        SELECT FROM rollup r
        WHERE r.hours = 1 AND r.series_id = ANY(listed.ids)
            AND r.start >= coalesce((SELECT cutoff.before FROM cutoff WHERE cutoff.meter_id = listed.meter_id), '-infinity')
        OFFSET 0
    )
    UNION ALL
    (
        SELECT x.user_id, x.project_id, x.source_id, true
        FROM series x
        CROSS JOIN LATERAL (
            WITH plain AS MATERIALIZED (SELECT s.timestamp, s.message_id FROM sample s WHERE s.series_id = x.id AND true LIMIT 1)
            SELECT s.timestamp, s.message_id FROM plain s
            UNION ALL (
                SELECT s.timestamp, s.message_id FROM (
                    SELECT p.* FROM packed_samples p
                    WHERE p.series_id = x.id AND p.first <= 'infinity'::timestamptz AND p.last >= '-infinity'::timestamptz AND p.first >= (('-infinity'::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.last >= (SELECT CASE WHEN count(*) < 1 THEN '-infinity' ELSE min(s.timestamp) END FROM plain s)
                    ORDER BY p.first DESC, p.part DESC OFFSET 0
                ) p CROSS JOIN LATERAL (
                    SELECT
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                    ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest('-infinity'::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                    END AS lower,
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                    ELSE least(p.count, ceil((date_part('epoch', least('infinity'::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                    END AS upper
                    OFFSET 0
                ) AS whole
                CROSS JOIN LATERAL (SELECT * FROM (VALUES (greatest(whole.lower, whole.upper - (1 + 3) + 1), whole.upper), (whole.lower, whole.upper - (1 + 3))) AS v (lower, upper) WHERE lower <= upper OFFSET 0) AS slice
                CROSS JOIN LATERAL (
                    SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                            SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                            SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                        CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
                    WHERE true
                    ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
                ) s LIMIT 1
            )
            ORDER BY timestamp DESC, message_id DESC LIMIT 1
        ) sample
        WHERE NOT listed.by_newest AND x.id = ANY(listed.ids)
        LIMIT 1
    )
    UNION ALL
    (
        SELECT x.user_id, x.project_id, x.source_id, true
        FROM (SELECT WHERE listed.by_newest) several
        CROSS JOIN LATERAL (
            SELECT min(o.project_id) = max(o.project_id) AS only_one, (array_agg(o.project_id ORDER BY o.id))[1] AS first_project,
            CASE WHEN min(o.project_id) < max(o.project_id) THEN (
                SELECT EXISTS (SELECT FROM series a WHERE a.resource_id = listed.resource_id AND NOT coalesce(starts_with(
                            (SELECT o.name FROM source o WHERE o.id = a.source_id), (SELECT p.name FROM project p WHERE p.id = a.project_id) || ':'
                        ), false))
            ) END AS measured
            FROM series o WHERE o.resource_id = listed.resource_id AND listed.of_several
        ) owner
        CROSS JOIN series x
        CROSS JOIN LATERAL (
            (
                WITH plain AS MATERIALIZED (
                    SELECT s.timestamp, s.message_id FROM sample s
                    WHERE s.series_id = x.id AND s.timestamp >= $1::timestamptz
                    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
                )
                SELECT s.timestamp, s.message_id FROM plain s
                UNION ALL (
                    SELECT s.timestamp, s.message_id FROM (
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
                        SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                                SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                            CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
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
                        SELECT s.timestamp, s.message_id FROM sample s
                        WHERE s.series_id = x.id AND s.timestamp >= known.last
                        ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 1
                    )
                    SELECT s.timestamp, s.message_id FROM plain s
                    UNION ALL (
                        SELECT s.timestamp, s.message_id FROM (
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
                            SELECT s.timestamp, s.message_id FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                    SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                                    SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, NULL::integer[], NULL::timestamptz[], message_ids, NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, message_ids)
                                CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, n) OFFSET 0) s
                            WHERE s.timestamp >= known.last
                            ORDER BY s.timestamp DESC, s.message_id DESC OFFSET 0
                        ) s LIMIT 1
                    )
                    ORDER BY timestamp DESC, message_id DESC LIMIT 1
                ) AS s
            )
            LIMIT 1
        ) sample
        WHERE x.id = ANY(listed.ids)
        ORDER BY (CASE WHEN owner.only_one THEN true WHEN owner.measured THEN NOT coalesce(starts_with(
                    (SELECT o.name FROM source o WHERE o.id = x.source_id), (SELECT p.name FROM project p WHERE p.id = x.project_id) || ':'
                ), false)
            ELSE x.project_id = owner.first_project END) DESC, sample.timestamp DESC, sample.message_id DESC LIMIT 1
    )
    LIMIT 1
) newest
LEFT JOIN LATERAL (SELECT u.name FROM "user" u WHERE u.id = newest.user_id OFFSET 0) u ON true
LEFT JOIN LATERAL (SELECT p.name FROM project p WHERE p.id = newest.project_id OFFSET 0) p ON true
LEFT JOIN LATERAL (SELECT o.name FROM source o WHERE o.id = newest.source_id OFFSET 0) o ON true
ORDER BY listed.name, listed.resource, listed.type, listed.unit LIMIT $2;
