-- $1 = ['{"host":"compute-1"}']
-- $2 = ['host']
-- $3 = ['"compute-1"']
-- $4 = 2026-11-01 00:00:00+00:00
-- $5 = 'cpu'
-- $6 = 2026-12-01 00:00:00+00:00
-- $7 = ['flavor', 'name']
-- $8 = ['flavor.name']
-- $9 = None
WITH matching_resource AS MATERIALIZED (
    SELECT (
        SELECT CASE WHEN cardinality(found.ids) <= threshold.few THEN found.ids END
        FROM (SELECT sqrt(greatest(reltuples, 100))::bigint AS few FROM pg_class WHERE oid = 'series'::regclass) AS threshold
        CROSS JOIN LATERAL (
            SELECT ARRAY(SELECT d.id FROM metadata d WHERE d.document @> ANY($1::jsonb[]) AND ((ARRAY[d.document #> $2::text[]] && $3::jsonb[])) LIMIT threshold.few + 1) AS ids
            WHERE (SELECT max(known.since) FROM metadata_known known) <= $4 OFFSET 0
        ) AS matching
        CROSS JOIN LATERAL (
            SELECT ARRAY(
                SELECT l.resource_id FROM unnest(matching.ids) AS d (id)
                CROSS JOIN LATERAL (SELECT l.resource_id FROM metadata_resource l WHERE l.metadata_id = d.id OFFSET 0) l LIMIT threshold.few + 1
            ) AS ids
            WHERE cardinality(matching.ids) <= threshold.few OFFSET 0
        ) AS found
    ) AS ids
), partial AS (
    WITH partial AS MATERIALIZED (
        WITH sample_series AS MATERIALIZED (
            SELECT m.unit AS unit, x.meter_id, x.retained_until, array_agg(x.id) AS ids
            FROM (
                SELECT x.* FROM (SELECT DISTINCT unnest(ids) AS id FROM matching_resource) AS of_metadata
                CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.resource_id = of_metadata.id OFFSET 0) x
                WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $5)) AND x.retained_until >= $4
                UNION ALL
                (SELECT * FROM series x WHERE (SELECT ids IS NULL FROM matching_resource) AND x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $5)) AND x.retained_until >= $4 OFFSET 0)
            ) x JOIN meter m ON m.id = x.meter_id
            GROUP BY x.retained_until, m.unit, x.meter_id
        ), rollup_series AS MATERIALIZED (
            SELECT m.unit AS unit, array_agg(x.id) AS ids
            FROM (
                SELECT x.* FROM (SELECT DISTINCT unnest(ids) AS id FROM matching_resource) AS of_metadata
                CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.resource_id = of_metadata.id OFFSET 0) x
                WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $5)) AND x.retained_until >= $4
                UNION ALL
                (SELECT * FROM series x WHERE (SELECT ids IS NULL FROM matching_resource) AND x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $5)) AND x.retained_until >= $4 OFFSET 0)
            ) x JOIN meter m ON m.id = x.meter_id
            GROUP BY m.unit
        ), expired_series AS MATERIALIZED (
            SELECT m.unit AS unit, x.meter_id, array_agg(x.id) AS ids
            FROM (
                SELECT x.* FROM (SELECT DISTINCT unnest(ids) AS id FROM matching_resource) AS of_metadata
                CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.resource_id = of_metadata.id OFFSET 0) x
                WHERE x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $5)) AND x.retained_until >= $4
                UNION ALL
                (SELECT * FROM series x WHERE (SELECT ids IS NULL FROM matching_resource) AND x.resource_id > 0 AND (x.meter_id IN (SELECT id FROM meter WHERE name = $5)) AND x.retained_until >= $4 OFFSET 0)
            ) x JOIN meter m ON m.id = x.meter_id
            WHERE EXISTS (SELECT FROM retention_cutoff)
            GROUP BY m.unit, x.meter_id
        ), period AS MATERIALIZED (
            SELECT p.start, p.hours FROM final_period p WHERE p.hours = 24 AND (p.start >= $4) AND (p.start + make_interval(hours => p.hours) <= $6)
            UNION ALL
            SELECT p.start, p.hours FROM final_period p
            WHERE p.hours = 1 AND 24 = 24 AND (p.start >= $4) AND (p.start + make_interval(hours => p.hours) <= $6) AND date_trunc('day', p.start) NOT IN (
                SELECT p.start FROM final_period p WHERE p.hours = 24 AND (p.start >= $4) AND (p.start + make_interval(hours => p.hours) <= $6)
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
            ) AS gap WHERE (gap.finish > $4) AND (gap.start < $6)
        ), cutoff AS MATERIALIZED (
            SELECT m.id AS meter_id, max(c.before) AS before FROM retention_cutoff c JOIN meter m ON c.meter IN (m.name, '')
            GROUP BY m.id
        )
        SELECT partial.*
        FROM covered CROSS JOIN rollup_series
        CROSS JOIN LATERAL (
            SELECT unit, r.first AS first, r.last AS last, r.count::float8 AS count, r.min_volume AS min_volume, r.max_volume AS max_volume, r.sum_volume AS sum_volume, r.metadata_id AS metadata_id
            FROM rollup r
            WHERE r.hours = covered.hours AND r.series_id = ANY(rollup_series.ids) AND r.start >= covered.start AND r.start < covered.finish
                AND true
            OFFSET 0
        ) AS partial
        UNION ALL
        SELECT partial.*
        FROM gap AS gap JOIN sample_series ON sample_series.retained_until >= gap.start LEFT JOIN cutoff ON cutoff.meter_id = sample_series.meter_id
        CROSS JOIN LATERAL (
            SELECT unit, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume, s.metadata_id AS metadata_id
            FROM (
                SELECT s.timestamp, s.volume, s.metadata_id FROM sample s WHERE s.series_id = ANY(sample_series.ids)
                UNION ALL
                (
                    SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.volumes AS volume, u.metadata_ids AS metadata_id
                    FROM packed_samples p CROSS JOIN LATERAL (
                        SELECT
                        CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                        ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(greatest($4::timestamptz, greatest(gap.start, cutoff.before)), p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                        END AS lower,
                        CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                        ELSE least(p.count, ceil((date_part('epoch', least(least($6::timestamptz, gap.finish), p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                        END AS upper
                        OFFSET 0
                    ) AS slice
                    CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                        SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets, volumes, metadata_ids)
                    CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.volumes, held.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, volumes, metadata_ids, n)
                    WHERE p.series_id = ANY(sample_series.ids) AND p.first <= least($6::timestamptz, gap.finish) AND p.last >= greatest($4::timestamptz, greatest(gap.start, cutoff.before)) AND p.first >= ((greatest($4::timestamptz, greatest(gap.start, cutoff.before))) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.first >= (($4::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND true
                    OFFSET 0
                )
            ) s
            WHERE s.timestamp >= greatest(gap.start, cutoff.before) AND s.timestamp < gap.finish
                AND (s.timestamp >= $4) AND (s.timestamp < $6)
            OFFSET 0
        ) AS partial
        UNION ALL (
            SELECT sample_series.unit, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume, s.metadata_id AS metadata_id
            FROM gap AS gap CROSS JOIN LATERAL (
                SELECT cutoff.before, array_agg(of_gap.member) AS ids
                FROM (SELECT unnest(ids) AS member, meter_id FROM sample_series WHERE retained_until >= gap.start AND (SELECT EXISTS (SELECT FROM archived_week))) AS of_gap
                LEFT JOIN cutoff ON cutoff.meter_id = of_gap.meter_id GROUP BY cutoff.before
            ) AS of_cutoff CROSS JOIN LATERAL (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.volumes AS volume, u.metadata_ids AS metadata_id, p.series_id AS series_id
                FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], NULL::uuid[], a.volumes[k.lower:k.upper], a.metadata_ids[k.lower:k.upper], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', of_cutoff.ids, greatest(greatest($4::timestamptz, gap.start), of_cutoff.before), least($6::timestamptz, gap.finish), NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
                CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.volumes, p.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, volumes, metadata_ids, n)
                WHERE (SELECT EXISTS (SELECT FROM archived_week))) s
            JOIN (SELECT *, unnest(ids) AS member FROM sample_series) AS sample_series ON sample_series.member = s.series_id
            WHERE s.timestamp >= greatest(gap.start, of_cutoff.before) AND s.timestamp < gap.finish AND (s.timestamp >= $4) AND (s.timestamp < $6)
            ORDER BY s.series_id, s.timestamp)
        UNION ALL
        SELECT partial.*
        FROM gap CROSS JOIN expired_series JOIN cutoff ON cutoff.meter_id = expired_series.meter_id
        CROSS JOIN LATERAL (
            SELECT unit, r.first AS first, r.last AS last, r.count::float8 AS count, r.min_volume AS min_volume, r.max_volume AS max_volume, r.sum_volume AS sum_volume, r.metadata_id AS metadata_id
            FROM rollup r
            WHERE r.hours = 1 AND r.series_id = ANY(expired_series.ids) AND r.start >= gap.start AND r.start < gap.finish
                AND r.start < cutoff.before AND (r.start >= $4) AND (r.start + make_interval(hours => r.hours) <= $6)
            OFFSET 0
        ) AS partial
        UNION ALL
        SELECT partial.*
        FROM covered CROSS JOIN sample_series
        CROSS JOIN LATERAL (
            SELECT unit, s.timestamp AS first, s.timestamp AS last, 1::float8 AS count, s.volume AS min_volume, s.volume AS max_volume, s.volume AS sum_volume, s.metadata_id AS metadata_id
            FROM rollup r CROSS JOIN LATERAL (
                SELECT s.* FROM (
                    SELECT s.timestamp, s.volume, s.metadata_id FROM sample s WHERE s.series_id = r.series_id
                    UNION ALL
                    (
                        (
                            SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.volumes AS volume, u.metadata_ids AS metadata_id
                            FROM packed_samples p CROSS JOIN LATERAL (
                                SELECT
                                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN 1
                                ELSE least(p.count + 1, greatest(1, floor((date_part('epoch', greatest(greatest($4::timestamptz, r.first), p.first) - p.first) * 1000000 - p.greatest_offset) / p.step)))::integer
                                END AS lower,
                                CASE WHEN p.time_offsets IS NULL OR p.step <= 0 THEN p.count
                                ELSE least(p.count, ceil((date_part('epoch', least(least($6::timestamptz, r.last), p.last) - p.first) * 1000000 - p.least_offset) / p.step) + 2)::integer
                                END AS upper
                                OFFSET 0
                            ) AS slice
                            CROSS JOIN LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                                SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4)) AS held (times, time_offsets, volumes, metadata_ids)
                            CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.volumes, held.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, volumes, metadata_ids, n)
                            WHERE p.series_id = r.series_id AND p.first <= least($6::timestamptz, r.last) AND p.last >= greatest($4::timestamptz, r.first) AND p.first >= ((greatest($4::timestamptz, r.first)) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND p.first >= (($4::timestamptz) AT TIME ZONE 'UTC' - interval '7 days') AT TIME ZONE 'UTC' AND true
                            OFFSET 0
                        )
                        UNION ALL
                        SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, u.volumes AS volume, u.metadata_ids AS metadata_id
                        FROM archived_slices('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], NULL::integer[], NULL::timestamptz[], NULL::uuid[], a.volumes[k.lower:k.upper], a.metadata_ids[k.lower:k.upper], NULL::integer[], NULL::uuid[], NULL::uuid[], NULL::bytea[], NULL::text[], NULL::bigint[], NULL::smallint[]', ARRAY[r.series_id], greatest($4::timestamptz, r.first), least($6::timestamptz, r.last), NULL, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
                        CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.volumes, p.metadata_ids) WITH ORDINALITY AS u (times, time_offsets, volumes, metadata_ids, n)
                        WHERE (SELECT EXISTS (SELECT FROM archived_week))
                    )
                ) s
                WHERE s.timestamp >= r.first AND s.timestamp <= r.last AND (s.timestamp >= $4) AND (s.timestamp < $6)
                OFFSET 0
            ) AS s
            WHERE r.hours = covered.hours AND r.series_id = ANY(sample_series.ids) AND r.start >= covered.start AND r.start < covered.finish
                AND r.metadata_id = 0 AND true
            OFFSET 0
        ) AS partial
    ), document AS MATERIALIZED (
        SELECT d.id AS document_id, coalesce(d.document #> $7::text[], d.document #> $8::text[]) #>> '{}' AS group_0
        FROM metadata d
        WHERE d.id = ANY(ARRAY(SELECT DISTINCT metadata_id FROM partial )) AND ((ARRAY[d.document #> $2::text[]] && $3::jsonb[]))
    )
    SELECT * FROM partial FULL JOIN document ON document.document_id = partial.metadata_id
    WHERE coalesce(partial.count, 0) > 0 AND coalesce(document.document_id, 0) > 0
), windowed AS NOT MATERIALIZED (
    SELECT *, NULL::timestamptz AS window_start FROM partial
), aggregated AS (
    SELECT window_start, unit, min(first) AS first, max(last) AS last, group_0, sum(count) AS value_0
    FROM windowed GROUP BY window_start, unit, group_0
)
SELECT window_start, unit, first, last, group_0, value_0
FROM aggregated
ORDER BY coalesce(window_start, first), unit, coalesce(group_0, '') COLLATE "C"
LIMIT $9;
