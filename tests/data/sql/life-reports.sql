-- $1 = ['v1', 'v2']
-- $2 = ['volume']
-- $3 = 2026-11-01 00:00:00+00:00
WITH listed AS MATERIALIZED (
    SELECT * FROM metered_resource w WHERE w.resource = ANY($1) AND w.pollster = ANY($2)
), failing AS MATERIALIZED (
    SELECT asked.agent_id, asked.pollster, asked.interval, p.resource,
    unnest(range_agg(tstzrange(p.from_time, p.until_time + make_interval(secs => asked.interval / 2)))) AS failed
    FROM (SELECT agent_id, pollster, interval, min(first_due) AS since FROM listed GROUP BY 1, 2, 3) AS asked
    JOIN polling_exception p ON p.agent_id = asked.agent_id AND p.until_time > asked.since AND p.interval = asked.interval
        AND p.pollster IN (asked.pollster, '') AND (p.resource = '' OR p.resource = ANY($1))
    WHERE p.cause IN ('poll failed', 'domain hung', 'skipped') AND p.expected
    GROUP BY 1, 2, 3, 4
)
SELECT a.name, a.host, w.pollster, w.resource, nullif(w.project, '') AS project, w.interval, w.first_due,
greatest(cycles.last_listing, w.first_due) AS last_due,
CASE WHEN w.until_due < 'infinity' AND (
    w.ended = 'gone' OR cycles.last >= w.until_due + make_interval(secs => w.interval * (failed.cycles + 0.5))
) THEN w.until_due END AS gone,
extract(epoch FROM w.first_due - cycles.last_before)::float8 AS unlisted_seconds,
silences.last_heard, silences.heard_again
FROM listed w JOIN agent a ON a.id = w.agent_id
CROSS JOIN LATERAL (
    SELECT max(c.last_due) AS last,
    max(CASE WHEN c.last_due < w.until_due THEN c.last_due ELSE w.until_due - make_interval(secs => w.interval) END)
    FILTER (WHERE c.first_due < w.until_due) AS last_listing,
    max(CASE WHEN c.last_due < w.first_due THEN c.last_due ELSE w.first_due - make_interval(secs => w.interval) END)
    FILTER (WHERE c.first_due < w.first_due) AS last_before
    FROM cycle_run c
    WHERE c.agent_id = w.agent_id AND c.interval = w.interval AND w.pollster = ANY(c.pollsters) AND c.last_due <= $3
    OFFSET 0
) AS cycles
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(heard.last_due ORDER BY heard.next_due), '{}') AS last_heard,
    coalesce(array_agg(heard.next_due ORDER BY heard.next_due), '{}') AS heard_again
    FROM (
        SELECT c.first_due AS next_due, max(c.last_due) OVER (
            ORDER BY c.first_due ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS last_due
        FROM cycle_run c
        WHERE c.agent_id = w.agent_id AND c.interval = w.interval AND w.pollster = ANY(c.pollsters) AND c.last_due <= $3
            AND c.last_due >= w.first_due AND c.first_due < w.until_due
        UNION ALL
        SELECT upper(f.failed) - make_interval(secs => f.interval / 2), lower(f.failed) - make_interval(secs => f.interval)
        FROM failing f
        WHERE (f.agent_id, f.pollster, f.interval) = (w.agent_id, w.pollster, w.interval) AND f.resource IN ('', w.resource)
            AND upper(f.failed) - lower(f.failed) > make_interval(secs => (3 - 0.5) * f.interval)
            AND upper(f.failed) > w.first_due AND lower(f.failed) < w.until_due
    ) AS heard
    WHERE heard.next_due - heard.last_due > make_interval(secs => 1.5 * w.interval)
) AS silences
CROSS JOIN LATERAL (
    SELECT coalesce(sum(p.cycles), 0)::float8 AS cycles
    FROM polling_exception p
    WHERE p.agent_id = w.agent_id AND p.pollster IN (w.pollster, '') AND p.resource = '' AND p.expected AND p.until_time > w.until_due
    OFFSET 0
) AS failed
ORDER BY w.first_due, a.name;
