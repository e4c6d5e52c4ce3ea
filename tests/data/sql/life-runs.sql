-- $1 = ['v1', 'v2']
-- $2 = ['volume', 'volume.size']
WITH read AS MATERIALIZED (
    WITH partial AS MATERIALIZED (
        WITH sample_series AS MATERIALIZED (
            SELECT x.id AS life_series, x.polling_interval AS life_interval, x.meter_id, x.retained_until, array_agg(x.id) AS ids
            FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.resource_id IN (SELECT id FROM resource WHERE name = ANY($1::text[]))) AND (x.meter_id IN (SELECT id FROM meter WHERE name = ANY($2::text[]))) OFFSET 0) x JOIN meter m ON m.id = x.meter_id
            GROUP BY x.retained_until, x.id, x.polling_interval, x.meter_id
        ), rollup_series AS MATERIALIZED (
            SELECT x.id AS life_series, x.polling_interval AS life_interval, array_agg(x.id) AS ids
            FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.resource_id IN (SELECT id FROM resource WHERE name = ANY($1::text[]))) AND (x.meter_id IN (SELECT id FROM meter WHERE name = ANY($2::text[]))) OFFSET 0) x JOIN meter m ON m.id = x.meter_id
            GROUP BY x.id, x.polling_interval
        ), expired_series AS MATERIALIZED (
            SELECT x.id AS life_series, x.polling_interval AS life_interval, x.meter_id, array_agg(x.id) AS ids
            FROM (SELECT * FROM series x WHERE x.resource_id > 0 AND (x.resource_id IN (SELECT id FROM resource WHERE name = ANY($1::text[]))) AND (x.meter_id IN (SELECT id FROM meter WHERE name = ANY($2::text[]))) OFFSET 0) x JOIN meter m ON m.id = x.meter_id
            WHERE EXISTS (SELECT FROM retention_cutoff)
            GROUP BY x.id, x.polling_interval, x.meter_id
        ), period AS MATERIALIZED (
            SELECT p.start, p.hours FROM final_period p WHERE p.hours = 24 AND true
            UNION ALL
            SELECT p.start, p.hours FROM final_period p
            WHERE p.hours = 1 AND 24 = 24 AND true AND date_trunc('day', p.start) NOT IN (
                SELECT p.start FROM final_period p WHERE p.hours = 24 AND true
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
            ) AS gap WHERE true
        ), sampled_gap AS MATERIALIZED (
            SELECT gap.start, gap.finish FROM gap WHERE EXISTS (
                SELECT FROM sample s WHERE s.wire_format_id >= -2147483648 AND s.timestamp >= gap.start AND s.timestamp < gap.finish AND true OFFSET 0
            ) OR EXISTS (
                SELECT FROM packed_samples p WHERE p.count > 0 AND p.first <= gap.finish AND p.last >= gap.start AND p.first >= ((gap.start) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' OFFSET 0
            )
        ), cutoff AS MATERIALIZED (
            SELECT m.id AS meter_id, max(c.before) AS before FROM retention_cutoff c JOIN meter m ON c.meter IN (m.name, '')
            GROUP BY m.id
        )
        SELECT partial.*
        FROM covered CROSS JOIN rollup_series
        CROSS JOIN LATERAL (
            SELECT life_series, life_interval, r.first AS first, r.last AS last, r.count::float8 AS count, r.min_volume AS min_volume, r.max_volume AS max_volume, NULL::uuid AS tie, r.metadata_run AS metadata_run, r.metadata_id AS metadata_id
            FROM rollup r
            WHERE r.hours = covered.hours AND r.series_id = ANY(rollup_series.ids) AND r.start >= covered.start AND r.start < covered.finish
                AND true
            OFFSET 0
        ) AS partial
        UNION ALL
        SELECT partial.*
        FROM sampled_gap AS gap JOIN sample_series ON sample_series.retained_until >= gap.start LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
        CROSS JOIN LATERAL (
            SELECT life_series, life_interval, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.message_id AS tie, 0::smallint AS metadata_run, s.metadata_id AS metadata_id
            FROM (
                SELECT s.timestamp, s.message_id, s.volume, s.metadata_id FROM sample s WHERE s.series_id = ANY(sample_series.ids)
                UNION ALL
                (
                    SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume, u.metadata_ids AS metadata_id
                    FROM packed_samples p CROSS JOIN LATERAL (
                        SELECT
                        CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                        ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(greatest(gap.start, cutoff.before), p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                        END AS lower,
                        CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                        ELSE least(p.count, ceil((date_part('epoch', least(gap.finish, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                        END AS upper
                        OFFSET 0
                    ) AS slice
                    CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                        SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets, message_ids, volumes, metadata_ids)
                    CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids, held.volumes, held.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, metadata_ids, n)
                    WHERE p.series_id = ANY(sample_series.ids) AND p.first <= gap.finish AND p.last >= greatest(gap.start, cutoff.before) AND p.first >= ((greatest(gap.start, cutoff.before)) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND true
                    OFFSET 0
                )
            ) s
            WHERE s.timestamp >= greatest(gap.start, cutoff.before) AND s.timestamp < gap.finish
                AND true
            OFFSET 0
        ) AS partial
        UNION ALL (
            SELECT sample_series.life_series, sample_series.life_interval, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.message_id AS tie, 0::smallint AS metadata_run, s.metadata_id AS metadata_id
            FROM sampled_gap AS gap CROSS JOIN LATERAL (
                SELECT cutoff.before, array_agg(of_gap.member) AS ids
                FROM (SELECT unnest(ids) AS member, meter_id FROM sample_series WHERE retained_until >= gap.start AND (SELECT EXISTS (SELECT FROM archived_week))) AS of_gap
                LEFT JOIN cutoff ON cutoff.meter_id = of_gap.meter_id GROUP BY cutoff.before
            ) AS of_cutoff CROSS JOIN LATERAL (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume, u.metadata_ids AS metadata_id, p.series_id AS series_id
                FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], a.message_ids[k.lower:k.upper], a.volumes[k.lower:k.upper], a.metadata_ids[k.lower:k.upper], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', of_cutoff.ids, greatest(gap.start, of_cutoff.before), gap.finish, NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
                CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.message_ids, p.volumes, p.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, metadata_ids, n)
                WHERE (SELECT EXISTS (SELECT FROM archived_week))) s
            JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
            WHERE s.timestamp >= greatest(gap.start, of_cutoff.before) AND s.timestamp < gap.finish AND true
            ORDER BY s.series_id, s.timestamp)
        UNION ALL
        SELECT partial.*
        FROM gap CROSS JOIN expired_series JOIN cutoff ON cutoff.meter_id = expired_series.meter_id
        CROSS JOIN LATERAL (
            SELECT life_series, life_interval, r.first AS first, r.last AS last, r.count::float8 AS count, r.min_volume AS min_volume, r.max_volume AS max_volume, NULL::uuid AS tie, r.metadata_run AS metadata_run, r.metadata_id AS metadata_id
            FROM rollup r
            WHERE r.hours = 1 AND r.series_id = ANY(expired_series.ids) AND r.start >= gap.start AND r.start < gap.finish
                AND r.start < cutoff.before AND true
            OFFSET 0
        ) AS partial
        UNION ALL
        SELECT partial.*
        FROM covered CROSS JOIN sample_series
        CROSS JOIN LATERAL (
            SELECT life_series, life_interval, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.message_id AS tie, 0::smallint AS metadata_run, s.metadata_id AS metadata_id
            FROM rollup r CROSS JOIN LATERAL (
                SELECT s.* FROM (
                    SELECT s.timestamp, s.message_id, s.volume, s.metadata_id FROM sample s WHERE s.series_id = r.series_id
                    UNION ALL
                    (
                        (
                            SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume, u.metadata_ids AS metadata_id
                            FROM packed_samples p CROSS JOIN LATERAL (
                                SELECT
                                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                                ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(r.first, p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                                END AS lower,
                                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                                ELSE least(p.count, ceil((date_part('epoch', least(r.last, p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                                END AS upper
                                OFFSET 0
                            ) AS slice
                            CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets, message_ids, volumes, metadata_ids)
                            CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.message_ids, held.volumes, held.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, metadata_ids, n)
                            WHERE p.series_id = r.series_id AND p.first <= r.last AND p.last >= r.first AND p.first >= ((r.first) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND true
                            OFFSET 0
                        )
                        UNION ALL
                        SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.message_ids AS message_id, u.volumes AS volume, u.metadata_ids AS metadata_id
                        FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], a.message_ids[k.lower:k.upper], a.volumes[k.lower:k.upper], a.metadata_ids[k.lower:k.upper], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', ARRAY[r.series_id], r.first, r.last, NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
                        CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.message_ids, p.volumes, p.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, message_ids, volumes, metadata_ids, n)
                        WHERE (SELECT EXISTS (SELECT FROM archived_week))
                    )
                ) s
                WHERE s.timestamp >= r.first AND s.timestamp <= r.last AND true
                OFFSET 0
            ) AS s
            WHERE r.hours = covered.hours AND r.series_id = ANY(sample_series.ids) AND r.start >= covered.start AND r.start < covered.finish
                AND r.metadata_id = 0 AND true
            OFFSET 0
        ) AS partial
    ), document AS MATERIALIZED (
        SELECT d.id AS document_id, true AS known
        FROM metadata d
        WHERE d.id = ANY(ARRAY(SELECT DISTINCT metadata_id FROM partial )) AND true
    )
    SELECT * FROM partial FULL JOIN document ON document.document_id = partial.metadata_id
    WHERE coalesce(partial.count, 0) > 0 AND coalesce(document.document_id, 0) > 0
), marked AS (
    SELECT *, coalesce(
        lag(metadata_id) OVER by_time <> metadata_id
        OR lag(min_volume) OVER by_time <> min_volume OR lag(max_volume) OVER by_time <> max_volume
        OR min_volume <> max_volume
        OR first - lag(last) OVER by_time > make_interval(secs => 3 * life_interval),
        true
    ) AS begins
    FROM read WINDOW by_time AS (PARTITION BY life_series ORDER BY first, metadata_run, tie)
), numbered AS (
    SELECT *, count(*) FILTER (WHERE begins) OVER (
        PARTITION BY life_series ORDER BY first, metadata_run, tie ROWS UNBOUNDED PRECEDING
    ) AS run
    FROM marked
)
SELECT life_series AS series_id, life_interval AS polling_interval, metadata_id, min(first) AS first, max(last) AS last,
min(min_volume) AS min_volume, max(max_volume) AS max_volume, sum(count) AS count
FROM numbered
GROUP BY life_series, life_interval, metadata_id, run
ORDER BY first, last;
