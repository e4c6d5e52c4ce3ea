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
-- $3 = 100.0
-- $4 = 2026-12-01 00:00:00+00:00
-- $5 = None
WITH partial AS (
    WITH sample_series AS MATERIALIZED (
        SELECT m.unit AS unit, m.name AS meter, x.resource_id AS resource_id, x.run_kind AS run_kind, x.run_id AS run_id, x.meter_id, array_agg(x.id) AS ids
        FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $1)) AND x.retained_until >= $2 OFFSET 0) x JOIN meter m ON m.id = x.meter_id
        GROUP BY m.unit, m.name, x.resource_id, x.run_kind, x.run_id, x.meter_id
    )
    SELECT partial.*
    FROM sample_series
    CROSS JOIN LATERAL (
        SELECT unit, meter, resource_id, run_kind, run_id, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume, s.volume AS first_volume, s.volume AS last_volume, 0::float8 AS increase, 0::float8 AS integral, s.message_id AS tie, CASE WHEN true THEN (s.volume > $3::float8) ELSE false END AS matches
        FROM (
            SELECT s.timestamp, s.message_id, s.volume FROM sample s WHERE s.series_id = ANY(sample_series.ids)
            UNION ALL
            (
                SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume
                FROM packed_samples p CROSS JOIN LATERAL (
                    SELECT
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                    ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest($2::timestamptz, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                    END AS lower,
                    CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                    ELSE least(p.count, ceil((date_part('epoch', least($4::timestamptz, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                    END AS upper
                    OFFSET 0
                ) AS slice
                CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                    SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets, message_ids, volumes)
                CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids, held.volumes) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, n)
                WHERE p.series_id = ANY(sample_series.ids) AND p.first <= $4::timestamptz AND p.last >= $2::timestamptz AND p.first >= (($2::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND true
                OFFSET 0
            )
        ) s
        WHERE (s.timestamp >= $2) AND (s.timestamp < $4)
        OFFSET 0
    ) AS partial
    UNION ALL (
        SELECT sample_series.unit, sample_series.meter, sample_series.resource_id, sample_series.run_kind, sample_series.run_id, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume, s.volume AS first_volume, s.volume AS last_volume, 0::float8 AS increase, 0::float8 AS integral, s.message_id AS tie, CASE WHEN true THEN (s.volume > $3::float8) ELSE false END AS matches
        FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume, p.series_id AS series_id
            FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], a.message_ids[k.lower:k.upper], a.volumes[k.lower:k.upper], NULL::integer[], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', ARRAY(SELECT unnest(ids) FROM sample_series), $2::timestamptz, $4::timestamptz, NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
            CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.message_ids, p.volumes) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, n)
            WHERE (SELECT EXISTS (SELECT FROM archived_week))) s
        JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
        WHERE (s.timestamp >= $2) AND (s.timestamp < $4)
        ORDER BY s.series_id, s.timestamp)
), windowed AS NOT MATERIALIZED (
    SELECT *, NULL::timestamptz AS window_start, matches AS selected FROM partial
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
                    ) s WHERE s.series_id = x.id AND s.timestamp < $2
                        AND s.timestamp >= coalesce((SELECT max(c.before) FROM retention_cutoff c WHERE c.meter IN (m.name, '')), '-infinity') AND true OFFSET 0))
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
    FILTER (WHERE selected) OVER (PARTITION BY window_start, unit, resource_id ) AS run_seconds
    FROM step
), aggregated AS (
    SELECT window_start, unit, min(first) AS first, max(last) AS last, coalesce(sum(total_increase / nullif(run_seconds, 0)), 0) AS value_0
    FROM with_increase WHERE selected GROUP BY window_start, unit
)
SELECT window_start, unit, first, last, value_0
FROM aggregated
ORDER BY coalesce(window_start, first), unit
LIMIT $5;
