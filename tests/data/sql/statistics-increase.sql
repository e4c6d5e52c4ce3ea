SELECT week.first, week.last, archived.until
FROM (
    SELECT ((min(name)::date) + time '00:00') AT TIME ZONE 'UTC' AS first, ((max(name)::date) + time '00:00') AT TIME ZONE 'UTC' AS last
    FROM (
        SELECT replace(right(c.relname, 10), '_', '-') AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('sample'::regclass, 'packed_samples'::regclass) AND c.relname ~ '^(sample|packed_samples)(_[0-9]+){3}$'
    ) AS _
) AS week
CROSS JOIN (SELECT ((max(week) + 7) + time '00:00') AT TIME ZONE 'UTC' AS until FROM archived_week) AS archived;

-- $1 = 'cpu'
-- $2 = 2026-11-01 00:00:00+00:00
-- $3 = 2026-12-01 00:00:00+00:00
-- $4 = None
WITH partial AS (
    WITH sample_series AS MATERIALIZED (
        SELECT m.unit AS unit, m.name AS meter, x.resource_id AS resource_id, x.run_kind AS run_kind, x.run_id AS run_id, x.meter_id, x.retained_until, array_agg(x.id) AS ids
        FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1)) AND x.retained_until >= $2 OFFSET 0) x JOIN meter m ON m.id = x.meter_id
        GROUP BY x.retained_until, m.unit, m.name, x.resource_id, x.run_kind, x.run_id, x.meter_id
    ), rollup_series AS MATERIALIZED (
        SELECT m.unit AS unit, m.name AS meter, x.resource_id AS resource_id, x.run_kind AS run_kind, x.run_id AS run_id, x.meter_id, array_agg(x.id) AS ids
        FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1)) AND x.retained_until >= $2 OFFSET 0) x JOIN meter m ON m.id = x.meter_id
        GROUP BY m.unit, m.name, x.resource_id, x.run_kind, x.run_id, x.meter_id
        ORDER BY x.resource_id
    ), expired_series AS MATERIALIZED (
        SELECT m.unit AS unit, m.name AS meter, x.resource_id AS resource_id, x.run_kind AS run_kind, x.run_id AS run_id, x.meter_id, array_agg(x.id) AS ids
        FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1)) AND x.retained_until >= $2 OFFSET 0) x JOIN meter m ON m.id = x.meter_id
        WHERE EXISTS (SELECT FROM retention_cutoff)
        GROUP BY m.unit, m.name, x.resource_id, x.run_kind, x.run_id, x.meter_id
    ), period AS MATERIALIZED (
        SELECT p.start, p.hours FROM final_period p WHERE p.hours = 24 AND (p.start >= $2) AND (p.start + make_interval(hours => p.hours) <= $3)
        UNION ALL
        SELECT p.start, p.hours FROM final_period p
        WHERE p.hours = 1 AND 24 = 24 AND (p.start >= $2) AND (p.start + make_interval(hours => p.hours) <= $3) AND date_trunc('day', p.start) NOT IN (
            SELECT p.start FROM final_period p WHERE p.hours = 24 AND (p.start >= $2) AND (p.start + make_interval(hours => p.hours) <= $3)
        )
    ), covered AS MATERIALIZED (
        SELECT hours, min(start) AS start, max(start) + make_interval(hours => hours) AS finish
        FROM (SELECT hours, start, row_number() OVER (PARTITION BY hours ORDER BY start) AS n FROM period AS span) AS _
        GROUP BY hours, start - n * make_interval(hours => hours)
    ), gap AS MATERIALIZED (
        SELECT * FROM (
            SELECT start, finish FROM (
                SELECT finish AS start, coalesce(lead(start) OVER (ORDER BY start, finish), 'infinity') AS finish
                FROM (
                    SELECT start, start + make_interval(hours => hours) AS finish FROM period AS span
                    UNION ALL SELECT '-infinity', '-infinity'
                ) AS _
            ) AS gap WHERE start < finish
        ) AS gap WHERE (gap.finish > $2) AND (gap.start < $3)
    ), cutoff AS MATERIALIZED (
        SELECT m.id AS meter_id, max(c.before) AS before FROM retention_cutoff c JOIN meter m ON c.meter IN (m.name, '')
        GROUP BY m.id
    )
    SELECT partial.*
    FROM covered CROSS JOIN rollup_series LEFT JOIN cutoff ON cutoff.meter_id = rollup_series.meter_id
    CROSS JOIN LATERAL (
        SELECT unit, meter, resource_id, run_kind, run_id, r.first AS first, r.last AS last, r.count::float8 AS count, r.min_volume AS min_volume, r.max_volume AS max_volume, r.sum_volume AS sum_volume, r.first_volume AS first_volume, r.last_volume AS last_volume, r.increase AS increase, r.integral AS integral, NULL::uuid AS tie
        FROM rollup r
        WHERE r.hours = covered.hours AND r.series_id = ANY(rollup_series.ids) AND r.start >= covered.start AND r.start < covered.finish
            AND (r.overlap = 0 OR r.start < cutoff.before)
        OFFSET 0
    ) AS partial
    UNION ALL
    SELECT partial.*
    FROM gap AS gap JOIN sample_series ON sample_series.retained_until >= gap.start LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
    CROSS JOIN LATERAL (
        SELECT unit, meter, resource_id, run_kind, run_id, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume, s.volume AS first_volume, s.volume AS last_volume, 0::float8 AS increase, 0::float8 AS integral, s.message_id AS tie
        FROM (
            SELECT s.timestamp, s.message_id, s.volume FROM sample s WHERE s.series_id = ANY(sample_series.ids)
            UNION ALL
            (
                SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume
                FROM packed_samples p CROSS JOIN LATERAL (
                    SELECT
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                    ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(greatest($2::timestamptz, greatest(gap.start, cutoff.before)), p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                    END AS lower,
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                    ELSE least(p.count, ceil((date_part('epoch', least(least($3::timestamptz, gap.finish), p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                    END AS upper
                    OFFSET 0
                ) AS slice
                CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                    SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets, message_ids, volumes)
                CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids, held.volumes) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, n)
                WHERE p.series_id = ANY(sample_series.ids) AND p.first <= least($3::timestamptz, gap.finish) AND p.last >= greatest($2::timestamptz, greatest(gap.start, cutoff.before)) AND p.first >= ((greatest($2::timestamptz, greatest(gap.start, cutoff.before))) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.first >= (($2::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND true
                OFFSET 0
            )
        ) s
        WHERE s.timestamp >= greatest(gap.start, cutoff.before) AND s.timestamp < gap.finish
            AND (s.timestamp >= $2) AND (s.timestamp < $3)
        OFFSET 0
    ) AS partial
    UNION ALL (
        SELECT sample_series.unit, sample_series.meter, sample_series.resource_id, sample_series.run_kind, sample_series.run_id, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume, s.volume AS first_volume, s.volume AS last_volume, 0::float8 AS increase, 0::float8 AS integral, s.message_id AS tie
        FROM gap AS gap CROSS JOIN LATERAL (
            SELECT cutoff.before, array_agg(of_gap.member) AS ids
            FROM (SELECT unnest(ids) AS member, meter_id FROM sample_series WHERE retained_until >= gap.start AND (SELECT EXISTS (SELECT FROM archived_week))) AS of_gap
            LEFT JOIN cutoff ON cutoff.meter_id = of_gap.meter_id GROUP BY cutoff.before
        ) AS of_cutoff CROSS JOIN LATERAL (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume, p.series_id AS series_id
            FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], a.message_ids[k.lower:k.upper], a.volumes[k.lower:k.upper], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', of_cutoff.ids, greatest(greatest($2::timestamptz, gap.start), of_cutoff.before), least($3::timestamptz, gap.finish), NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
            CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.message_ids, p.volumes) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, n)
            WHERE (SELECT EXISTS (SELECT FROM archived_week))) s
        JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
        WHERE s.timestamp >= greatest(gap.start, of_cutoff.before) AND s.timestamp < gap.finish AND (s.timestamp >= $2) AND (s.timestamp < $3)
        ORDER BY s.series_id, s.timestamp)
    UNION ALL
    SELECT partial.*
    FROM gap CROSS JOIN expired_series JOIN cutoff ON cutoff.meter_id = expired_series.meter_id
    CROSS JOIN LATERAL (
        SELECT unit, meter, resource_id, run_kind, run_id, r.first AS first, r.last AS last, r.count::float8 AS count, r.min_volume AS min_volume, r.max_volume AS max_volume, r.sum_volume AS sum_volume, r.first_volume AS first_volume, r.last_volume AS last_volume, r.increase AS increase, r.integral AS integral, NULL::uuid AS tie
        FROM rollup r
        WHERE r.hours = 1 AND r.series_id = ANY(expired_series.ids) AND r.start >= gap.start AND r.start < gap.finish
            AND r.start < cutoff.before AND (r.start >= $2) AND (r.start + make_interval(hours => r.hours) <= $3)
        OFFSET 0
    ) AS partial
    UNION ALL
    SELECT partial.*
    FROM covered CROSS JOIN sample_series LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
    CROSS JOIN LATERAL (
        SELECT unit, meter, resource_id, run_kind, run_id, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume, s.volume AS first_volume, s.volume AS last_volume, 0::float8 AS increase, 0::float8 AS integral, s.message_id AS tie
        FROM rollup r CROSS JOIN LATERAL (
            SELECT s.* FROM (
                SELECT s.timestamp, s.message_id, s.volume FROM sample s WHERE s.series_id = r.series_id
                UNION ALL
                (
                    (
                        SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume
                        FROM packed_samples p CROSS JOIN LATERAL (
                            SELECT
                            CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                            ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(greatest($2::timestamptz, r.start), p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                            END AS lower,
                            CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                            ELSE least(p.count, ceil((date_part('epoch', least(least($3::timestamptz, r.start + make_interval(hours => r.hours)), p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                            END AS upper
                            OFFSET 0
                        ) AS slice
                        CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                            SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets, message_ids, volumes)
                        CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids, held.volumes) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, n)
                        WHERE p.series_id = r.series_id AND p.first <= least($3::timestamptz, r.start + make_interval(hours => r.hours)) AND p.last >= greatest($2::timestamptz, r.start) AND p.first >= ((greatest($2::timestamptz, r.start)) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.first >= (($2::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND true
                        OFFSET 0
                    )
                    UNION ALL
                    SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume
                    FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], a.message_ids[k.lower:k.upper], a.volumes[k.lower:k.upper], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', ARRAY[r.series_id], greatest($2::timestamptz, r.start), least($3::timestamptz, r.start + make_interval(hours => r.hours)), NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
                    CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.message_ids, p.volumes) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, n)
                    WHERE (SELECT EXISTS (SELECT FROM archived_week))
                )
            ) s
            WHERE s.timestamp >= r.start AND s.timestamp < r.start + make_interval(hours => r.hours)
                AND (s.timestamp >= $2) AND (s.timestamp < $3)
            OFFSET 0
        ) AS s
        WHERE r.hours = covered.hours AND r.series_id = ANY(sample_series.ids) AND r.start >= covered.start AND r.start < covered.finish
            AND r.metadata_run <= 1 AND r.overlap > 0 AND (cutoff.before IS NULL OR r.start >= cutoff.before)
        OFFSET 0
    ) AS partial
), windowed AS NOT MATERIALIZED (
    SELECT *, NULL::timestamptz AS window_start FROM partial
), of_several_hosts AS MATERIALIZED (
    SELECT x.resource_id FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1)) OFFSET 0) x JOIN meter m ON m.id = x.meter_id
    WHERE x.run_kind > 1
    GROUP BY x.resource_id, m.name, m.unit, x.run_kind HAVING min(x.run_id) < max(x.run_id)
), kept_step AS (
    SELECT *, lag(last_volume) OVER step AS volume_before, lag(last) OVER step AS before, NULL::timestamptz AS first_of_run_kind,
    false AS arrives, 0::bigint AS visit, NULL::float8 AS max_of_visit, false AS from_zero
    FROM windowed WHERE resource_id NOT IN (SELECT resource_id FROM of_several_hosts)
    WINDOW step AS (PARTITION BY resource_id, meter, unit, run_kind, run_id ORDER BY first, tie)
), run_step AS (
    SELECT *, lag(last_volume) OVER step AS volume_before, lag(last) OVER step AS before,
    min(first) OVER (PARTITION BY resource_id, meter, unit, run_kind) AS first_of_run_kind,
    run_kind > 1 AND run_id <> lag(run_id) OVER of_kind AS arrives
    FROM windowed WHERE (SELECT true FROM of_several_hosts LIMIT 1) AND resource_id IN (SELECT resource_id FROM of_several_hosts)
    WINDOW step AS (PARTITION BY resource_id, meter, unit, run_kind, run_id ORDER BY first, tie),
    of_kind AS (PARTITION BY resource_id, meter, unit, run_kind ORDER BY first, tie)
), numbered_visit AS (
    SELECT *, count(*) FILTER (WHERE arrives) OVER (PARTITION BY resource_id, meter, unit, run_kind ORDER BY first, tie) AS visit
    FROM run_step
), visit_maximum AS (
    SELECT *, max(max_volume) OVER (PARTITION BY resource_id, meter, unit, run_kind, visit) AS max_of_visit FROM numbered_visit
), arrival AS (
    SELECT *, CASE
    WHEN NOT coalesce(arrives, false) THEN false
    WHEN before IS NULL THEN first_of_run_kind < first AND NOT coalesce((
            SELECT true
            FROM meter m
            CROSS JOIN LATERAL (
                SELECT x.id FROM series x WHERE x.meter_id = m.id AND x.resource_id = visit_maximum.resource_id
                    AND x.run_kind = visit_maximum.run_kind AND x.run_id = visit_maximum.run_id
                OFFSET 0
            ) AS x
            WHERE m.name = visit_maximum.meter AND m.unit = visit_maximum.unit AND (EXISTS (SELECT FROM (
                        SELECT s.timestamp, s.series_id FROM sample s
                        UNION ALL
                        (
                            (
                                SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, p.series_id AS series_id
                                FROM packed_samples p CROSS JOIN LATERAL (
                                    SELECT
                                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                                    ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest('-infinity'::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                                    END AS lower,
                                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                                    ELSE least(p.count, ceil((date_part('epoch', least($2::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                                    END AS upper
                                    OFFSET 0
                                ) AS slice
                                CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                    SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets)
                                CROSS JOIN LATERAL unnest(held.times, held.time_offsets) WITH ORDINALITY AS u (times, time_offsets, n)
                                WHERE p.series_id = x.id AND p.first <= $2::timestamptz AND p.last >= '-infinity'::timestamptz AND p.first >= (('-infinity'::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND true
                                OFFSET 0
                            )
                            UNION ALL
                            SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, p.series_id AS series_id
                            FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], NULL::uuid[], NULL::double precision[], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', ARRAY[x.id], '-infinity'::timestamptz, $2::timestamptz, NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
                            CROSS JOIN LATERAL unnest(p.times, p.time_offsets) WITH ORDINALITY AS u (times, time_offsets, n)
                            WHERE (SELECT EXISTS (SELECT FROM archived_week))
                        )
                    ) s WHERE s.series_id = x.id AND s.timestamp < $2 AND true OFFSET 0) OR EXISTS (
                    SELECT FROM rollup r
                    WHERE r.hours IN (1, 24) AND r.series_id = x.id AND r.start < $2 AND r.last < $2 OFFSET 0
            ))
            LIMIT 1
        ), false)
    ELSE max_of_visit > first_volume
        AND lag(max_of_visit) OVER (PARTITION BY resource_id, meter, unit, run_kind ORDER BY first, tie) > 0
    END AS from_zero
    FROM visit_maximum
), step AS (
    SELECT * FROM kept_step UNION ALL SELECT * FROM arrival
), with_increase AS (
    SELECT *, increase + CASE WHEN from_zero THEN first_volume ELSE coalesce(CASE WHEN first_volume >= volume_before THEN first_volume - volume_before WHEN before IS NOT NULL THEN CASE WHEN run_kind = 1 THEN 0 ELSE first_volume END END, 0) END AS total_increase,
    sum(extract(epoch FROM last - CASE WHEN from_zero THEN first ELSE coalesce(before, first) END)::float8)
    OVER (PARTITION BY window_start, unit, resource_id ) AS run_seconds
    FROM step
), aggregated AS (
    SELECT window_start, unit, min(first) AS first, max(last) AS last, coalesce(sum(total_increase), 0) AS value_0
    FROM with_increase GROUP BY window_start, unit
)
SELECT window_start, unit, first, last, value_0
FROM aggregated
ORDER BY coalesce(window_start, first), unit
LIMIT $4;
