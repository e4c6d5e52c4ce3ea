SELECT ((max(week) + 7) + time '00:00') AT TIME ZONE 'UTC' FROM archived_week HAVING max(week) IS NOT NULL;

SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_sort = off;
SELECT s.series_id, s.metadata_id, s.wire_format_id, s.message_id::text, s.timestamp, s.volume,
encode(s.signature, 'hex') AS signature, s.verbatim_json, s.recorded_at
FROM (
    SELECT s.* FROM sample s
    WHERE s.wire_format_id >= -2147483648 AND s.timestamp > coalesce((SELECT max(p.last) FROM packed_samples p WHERE p.count > 0), '-infinity')
    ORDER BY s.timestamp DESC, s.message_id DESC LIMIT 20
) s
ORDER BY s.timestamp DESC, s.message_id DESC;

SELECT FROM packed_week LIMIT 1;
