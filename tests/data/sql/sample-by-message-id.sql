-- $1 = ['0195d3f0-1111-7abc-8def-000000000001']
-- $2 = '0195d3f0-1111-7abc-8def-000000000001'
SELECT s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume,
encode(s.signature, 'hex') AS signature, s.verbatim_json, s.recorded_at
FROM (
    SELECT s.* FROM (
        SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM sample s WHERE s.message_id = ANY($1::uuid[])
        UNION ALL
        SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM unnest($1::uuid[]) AS given (id) CROSS JOIN LATERAL (
            SELECT e.timestamp, e.recorded_at, e.message_id, e.volume, e.metadata_id, e.series_id, e.wire_format_id, e.signature, e.verbatim_json
            FROM (
                SELECT DISTINCT w.week, bucket.series_ids[position] AS series_id
                FROM (
                    SELECT week, id_buckets FROM packed_week
                    WHERE ((week) + time '00:00') AT TIME ZONE 'UTC' <= 'infinity'::timestamptz AND ((week + 7) + time '00:00') AT TIME ZONE 'UTC' > '-infinity'::timestamptz OFFSET 0
                ) AS w
                CROSS JOIN LATERAL (SELECT message_id_key(given.id) AS key OFFSET 0) AS of_id
                CROSS JOIN LATERAL (
                    SELECT i.fingerprints, i.series_ids FROM packed_message_id i
                    WHERE i.week = w.week AND i.bucket = mod(of_id.key, w.id_buckets) OFFSET 0
                ) AS bucket
                CROSS JOIN LATERAL unnest(
                    array_positions(bucket.fingerprints, (mod(of_id.key / w.id_buckets, 65536) - 32768)::smallint)
                ) AS position
            ) AS c
            CROSS JOIN LATERAL (
                SELECT p.* FROM packed_samples p
                WHERE p.series_id = c.series_id AND p.first >= ((c.week) + time '00:00') AT TIME ZONE 'UTC' AND p.first < ((c.week + 7) + time '00:00') AT TIME ZONE 'UTC'
                    AND p.first <= 'infinity'::timestamptz AND p.last >= '-infinity'::timestamptz AND NOT p.archived OFFSET 0
            ) AS p
            CROSS JOIN LATERAL (SELECT p.message_ids) AS ids
            CROSS JOIN LATERAL (
                SELECT position AS lower, position AS upper FROM unnest(array_positions(ids.message_ids, given.id)) AS position OFFSET 0
            ) AS slice
            CROSS JOIN LATERAL (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, coalesce(u.recorded_times, coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') + u.delays * interval '1 microsecond') AS recorded_at, u.message_ids AS message_id, u.volumes AS volume, u.metadata_ids AS metadata_id, p.series_id AS series_id, u.wire_format_ids AS wire_format_id, coalesce(uuid_send(u.signatures_left) || uuid_send(u.signatures_right), u.signatures, '') AS signature, coalesce(u.verbatim_jsons, '') AS verbatim_json FROM LATERAL (SELECT p.times[slice.lower:slice.upper], p.time_offsets[slice.lower:slice.upper], p.recorded_times[slice.lower:slice.upper], p.delays[slice.lower:slice.upper], p.message_ids[slice.lower:slice.upper], p.volumes[slice.lower:slice.upper], p.metadata_ids[slice.lower:slice.upper], p.wire_format_ids[slice.lower:slice.upper], p.signatures_left[slice.lower:slice.upper], p.signatures_right[slice.lower:slice.upper], p.signatures[slice.lower:slice.upper], p.verbatim_jsons[slice.lower:slice.upper] WHERE NOT p.archived UNION ALL
                    SELECT p.times[slice.lower - shift:slice.upper - shift], p.time_offsets[slice.lower - shift:slice.upper - shift], p.recorded_times[slice.lower - shift:slice.upper - shift], p.delays[slice.lower - shift:slice.upper - shift], p.message_ids[slice.lower - shift:slice.upper - shift], p.volumes[slice.lower - shift:slice.upper - shift], p.metadata_ids[slice.lower - shift:slice.upper - shift], p.wire_format_ids[slice.lower - shift:slice.upper - shift], p.signatures_left[slice.lower - shift:slice.upper - shift], p.signatures_right[slice.lower - shift:slice.upper - shift], p.signatures[slice.lower - shift:slice.upper - shift], p.verbatim_jsons[slice.lower - shift:slice.upper - shift] FROM (SELECT CASE WHEN slice.upper <= 4 THEN 0 ELSE p.count - 8 END AS shift) AS edge WHERE p.archived AND (slice.upper <= 4 OR slice.lower > p.count - 4) UNION ALL
                    SELECT a.times[slice.lower:slice.upper], a.time_offsets[slice.lower:slice.upper], a.recorded_times[slice.lower:slice.upper], a.delays[slice.lower:slice.upper], a.message_ids[slice.lower:slice.upper], a.volumes[slice.lower:slice.upper], a.metadata_ids[slice.lower:slice.upper], a.wire_format_ids[slice.lower:slice.upper], a.signatures_left[slice.lower:slice.upper], a.signatures_right[slice.lower:slice.upper], a.signatures[slice.lower:slice.upper], a.verbatim_jsons[slice.lower:slice.upper] FROM archived_arrays('time_offsets, times, delays, recorded_times, message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons, NULL::bigint[], NULL::smallint[]', p.series_id, p.first, p.part, p.count) AS a WHERE p.archived AND NOT (slice.upper <= 4 OR slice.lower > p.count - 4) AND slice.lower <= slice.upper) AS held (times, time_offsets, recorded_times, delays, message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons)
                CROSS JOIN LATERAL unnest(held.times, held.time_offsets, held.recorded_times, held.delays, held.message_ids, held.volumes, held.metadata_ids, held.wire_format_ids, held.signatures_left, held.signatures_right, held.signatures, held.verbatim_jsons) WITH ORDINALITY AS u (times, time_offsets, recorded_times, delays, message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons, n) OFFSET 0) AS e
            WHERE e.timestamp >= '-infinity'::timestamptz AND e.timestamp <= 'infinity'::timestamptz
        ) s
        UNION ALL
        SELECT s.timestamp, s.recorded_at, s.message_id, s.volume, s.metadata_id, s.series_id, s.wire_format_id, s.signature, s.verbatim_json FROM (SELECT coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') AS timestamp, coalesce(u.recorded_times, coalesce(u.times, p.first + ((u.n + slice.lower - 2) * p.step + u.time_offsets) * interval '1 microsecond') + u.delays * interval '1 microsecond') AS recorded_at, u.message_ids AS message_id, u.volumes AS volume, u.metadata_ids AS metadata_id, p.series_id AS series_id, u.wire_format_ids AS wire_format_id, coalesce(uuid_send(u.signatures_left) || uuid_send(u.signatures_right), u.signatures, '') AS signature, coalesce(u.verbatim_jsons, '') AS verbatim_json
            FROM archived_with_ids('a.time_offsets[k.lower:k.upper], a.times[k.lower:k.upper], a.delays[k.lower:k.upper], a.recorded_times[k.lower:k.upper], a.message_ids[k.lower:k.upper], a.volumes[k.lower:k.upper], a.metadata_ids[k.lower:k.upper], a.wire_format_ids[k.lower:k.upper], a.signatures_left[k.lower:k.upper], a.signatures_right[k.lower:k.upper], a.signatures[k.lower:k.upper], a.verbatim_jsons[k.lower:k.upper], NULL::bigint[], NULL::smallint[]', $1::uuid[], '-infinity'::timestamptz, 'infinity'::timestamptz, false) AS p CROSS JOIN LATERAL (SELECT p.lower AS lower) AS slice
            CROSS JOIN LATERAL unnest(p.times, p.time_offsets, p.recorded_times, p.delays, p.message_ids, p.volumes, p.metadata_ids, p.wire_format_ids, p.signatures_left, p.signatures_right, p.signatures, p.verbatim_jsons) WITH ORDINALITY AS u (times, time_offsets, recorded_times, delays, message_ids, volumes, metadata_ids, wire_format_ids, signatures_left, signatures_right, signatures, verbatim_jsons, n)
            WHERE (SELECT EXISTS (SELECT FROM archived_week))) s WHERE s.message_id = ANY($1::uuid[]) AND s.timestamp >= '-infinity'::timestamptz AND s.timestamp <= 'infinity'::timestamptz
    ) s
    WHERE (s.message_id = $2::uuid)
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
) s
ORDER BY s.timestamp DESC, s.message_id DESC;
