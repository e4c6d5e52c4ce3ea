"""Statements that measure samples: the usage of the resources of a page, in the time from ``start`` until ``finish``.

All sums are exact: volumes as ``numeric`` of their shortest decimal form, times in whole microseconds. Nothing depends on the order
in which samples arrived, or in which rows are read. docs/usage.rst has the rules. Parameters are named: ``meter``, ``after`` and
``through`` (ids of resources), ``resources`` (only these ids, or all), ``start``, ``finish``, ``as_of``, ``cutoff`` (before which samples of the meter have expired, or null), ``numerator`` and ``denominator`` (of the factor).
"""

from __future__ import annotations

from typing import Any

from meter.counter_runs import INTERVALS_CARRIED
from meter.counter_runs import RunKind
from meter.rating.book.price_book import Sku
from meter.rating.usage.sku_definition import LONGEST_VALUE
from meter.store.postgres.sql import filled
from meter.store.query.metadata import metadata_values
from meter.store.rating.usage_samples import FIRST_AFTER
from meter.store.rating.usage_samples import FIRST_BEFORE
from meter.store.rating.usage_samples import OLDEST_AFTER
from meter.store.rating.usage_samples import READ
from meter.store.rating.usage_samples import READ_DELTAS
from meter.store.rating.usage_samples import READ_GAUGES
from meter.store.rating.usage_samples import READ_WITH_BEFORE
from meter.store.rating.usage_samples import WANTED

SLOT_MICROSECONDS = 300_000_000
"""Five minutes: the time over which a rate of ``percentile95`` is taken."""


def microseconds(interval: str) -> str:
    """Return SQL for the whole microseconds of an interval."""
    return f"(extract(epoch FROM {interval}) * 1000000)::bigint"


# A resource that starts and stops often has many times; only those of the day are joined.
LIVES = """
life_of_any_time AS MATERIALIZED ({}), existing AS MATERIALIZED (
    SELECT DISTINCT resource_id FROM life_of_any_time
), life AS MATERIALIZED (
    SELECT * FROM life_of_any_time WHERE began < %(finish)s AND ended > %(start)s
)"""
GIVEN_LIVES = LIVES.format("""
    SELECT * FROM unnest(%(life_resources)s::integer[], %(life_projects)s::integer[], %(life_begins)s::timestamptz[],
        %(life_ends)s::timestamptz[], %(life_off)s::boolean[]) AS _ (resource_id, project_id, began, ended, is_off)
""")
KEPT_LIVES = LIVES.format("""
    SELECT resource_id, project_id, began, ended, is_off FROM usage_life
    WHERE resource_id > %(after)s AND resource_id <= %(through)s
""")

LATER_MEASURED = f"""
    SELECT FROM wanted w CROSS JOIN LATERAL ({OLDEST_AFTER}) AS s
    WHERE w.resource_id = held.resource_id AND w.measured"""

LATER = f"""
    SELECT min(s.timestamp) FROM wanted w CROSS JOIN LATERAL ({OLDEST_AFTER}) AS s
    WHERE w.resource_id = o.resource_id AND w.measured = o.measured
        AND (NOT o.polled OR (w.run_kind, w.run_id) = (o.run_kind, o.run_id))"""

# A polled volume holds until the next one of its source, for three intervals at most, or longer within a declared run; one that was
# told by a notification until the next one; the last one as long as the resource is known to exist. What was measured comes before
# what services have recorded: docs/decisions/0016-one-source-per-gauge.rst.
INTEGRAL = f"""
ordered AS (
    SELECT r.*, v.resource_id IS NOT NULL AS life_known,
        lead(timestamp) OVER (PARTITION BY r.resource_id, measured ORDER BY timestamp, message_id) AS next,
        lead(timestamp) OVER (PARTITION BY r.resource_id, run_kind, run_id ORDER BY timestamp, message_id) AS next_of_run
    FROM read r LEFT JOIN existing v ON v.resource_id = r.resource_id
), followed AS (
    SELECT o.*, CASE WHEN CASE WHEN polled
        THEN run_kind = {RunKind.DECLARED:d} AND next_of_run IS NULL
            AND timestamp + {INTERVALS_CARRIED} * make_interval(secs => polling_interval) < coalesce(next, %(finish)s)
        ELSE next IS NULL AND NOT life_known END THEN ({LATER}) END AS later
    FROM ordered o
), held AS MATERIALIZED (
    SELECT *, least(%(finish)s, CASE
        WHEN NOT polled THEN coalesce(next, CASE WHEN life_known OR later IS NOT NULL THEN %(finish)s ELSE timestamp END)
        WHEN run_kind = {RunKind.DECLARED:d} AND (next_of_run IS NOT NULL OR later IS NOT NULL) THEN coalesce(next, %(finish)s)
        ELSE least(coalesce(next, %(finish)s), timestamp + {INTERVALS_CARRIED} * make_interval(secs => polling_interval))
        END) AS until
    FROM followed
), gap AS (
    SELECT resource_id, project_id, until AS begins, coalesce(next, 'infinity') AS ends,
        next IS NOT NULL OR CASE WHEN until < %(finish)s AND NOT life_known THEN EXISTS ({LATER_MEASURED}) ELSE false END AS bounded
    FROM held WHERE measured AND until < coalesce(next, 'infinity')
    UNION ALL SELECT resource_id, 0, '-infinity', min(timestamp), false FROM held WHERE measured GROUP BY resource_id
    UNION ALL SELECT resource_id, 0, '-infinity', 'infinity', false FROM held GROUP BY resource_id HAVING NOT bool_or(measured)
), piece AS (
    SELECT resource_id, project_id, metadata_id, volume, greatest(timestamp, %(start)s) AS begins, until AS ends, false AS bounded
    FROM held WHERE measured AND until > greatest(timestamp, %(start)s)
    UNION ALL
    SELECT resource_id, project_id, metadata_id, volume, begins, ends, bounded FROM (
        SELECT n.resource_id, n.project_id, n.metadata_id, n.volume, g.bounded,
            greatest(n.timestamp, g.begins, %(start)s) AS begins, least(n.until, g.ends) AS ends
        FROM held n JOIN gap g ON g.resource_id = n.resource_id
        WHERE NOT n.measured
    ) AS filled WHERE begins < ends
), owned AS (
    SELECT p.resource_id, coalesce(l.project_id, p.project_id) AS project_id, p.metadata_id, p.volume, p.bounded, coalesce(l.is_off, false) AS is_off,
        {microseconds("least(p.ends, l.ended) - greatest(p.begins, l.began)")} AS us
    FROM piece p
    LEFT JOIN existing v ON v.resource_id = p.resource_id
    LEFT JOIN life l ON l.resource_id = p.resource_id AND l.began < p.ends AND l.ended > p.begins
    WHERE v.resource_id IS NULL OR l.resource_id IS NOT NULL
), total AS (
    SELECT resource_id, project_id, metadata_id, sum(volume * us) AS total, 1000000 AS per,
        coalesce(sum(us) FILTER (WHERE NOT is_off), 0) AS metered,
        coalesce(sum(us) FILTER (WHERE bounded), 0) AS filled
    FROM owned GROUP BY resource_id, project_id, metadata_id
), unmetered AS (
    SELECT resource_id, project_id, sum(us) AS us FROM (
        SELECT l.resource_id, l.project_id, {microseconds("least(l.ended, %(finish)s) - greatest(l.began, %(start)s)")} AS us
        FROM life l
        WHERE NOT l.is_off AND l.resource_id IN (SELECT resource_id FROM read UNION ALL SELECT resource_id FROM forgotten)
        UNION ALL SELECT t.resource_id, t.project_id, -t.metered FROM total t WHERE t.resource_id IN (SELECT resource_id FROM existing)
        UNION ALL
        SELECT g.resource_id, g.project_id, {microseconds("least(g.ends, %(finish)s) - greatest(g.begins, %(start)s)")}
        FROM gap g
        WHERE g.bounded AND g.begins < %(finish)s AND g.ends > %(start)s AND g.resource_id NOT IN (SELECT resource_id FROM existing)
        UNION ALL
        SELECT t.resource_id, t.project_id, -t.filled FROM total t WHERE t.resource_id NOT IN (SELECT resource_id FROM existing)
    ) AS part GROUP BY resource_id, project_id
)"""

NO_UNMETERED = """
unmetered AS (SELECT 0 AS resource_id, 0 AS project_id, 0 AS us WHERE false)"""

# A step leads to a sample from the one before of the same run; it belongs to the later one. One that was not polled does not count
# where polls measured the same time, be it in steps that end on other days: a poll before the day ended a step if its run has an earlier
# one. A resource that arrives on a host counts from 0, as in meter.store.query.steps.
STEPS = f"""
step AS (
    SELECT *, lag(timestamp) OVER run AS earlier, volume - lag(volume) OVER run AS difference,
        min(timestamp) OVER (PARTITION BY resource_id, unit, run_kind) < timestamp AS kind_before,
        coalesce(run_kind > {RunKind.DECLARED:d} AND run_id <> lag(run_id) OVER of_kind, false) AS arrives
    FROM read
    WINDOW run AS (PARTITION BY resource_id, unit, run_kind, run_id ORDER BY timestamp, message_id),
        of_kind AS (PARTITION BY resource_id, unit, run_kind ORDER BY timestamp, message_id)
), numbered_visit AS (
    SELECT *, count(*) FILTER (WHERE arrives) OVER (
        PARTITION BY resource_id, unit, run_kind ORDER BY timestamp, message_id
    ) AS visit
    FROM step
), visit_maximum AS (
    SELECT *, max(volume) OVER (PARTITION BY resource_id, unit, run_kind, visit) AS max_of_visit FROM numbered_visit
), arrival AS (
    SELECT *, arrives AND CASE
        WHEN earlier IS NULL THEN kind_before
        ELSE max_of_visit > volume AND lag(max_of_visit) OVER (
            PARTITION BY resource_id, unit, run_kind ORDER BY timestamp, message_id
        ) > 0 END AS from_zero
    FROM visit_maximum
), counted AS MATERIALIZED (
    SELECT *, CASE WHEN NOT from_zero THEN earlier END AS before, CASE
        WHEN from_zero THEN volume
        WHEN difference >= 0 THEN difference
        WHEN earlier IS NOT NULL AND run_kind <> {RunKind.DECLARED:d} THEN volume
        ELSE 0 END AS amount
    FROM arrival WHERE timestamp >= %(start)s
), neighbour AS MATERIALIZED (
    {FIRST_BEFORE}
    UNION ALL {FIRST_AFTER}
), polled_step AS MATERIALIZED (
    SELECT resource_id, unit, before, timestamp, polling_interval FROM counted WHERE polled AND before IS NOT NULL
    UNION ALL
    SELECT resource_id, unit, before, timestamp, polling_interval FROM (
        SELECT *, lag(timestamp) OVER (PARTITION BY resource_id, unit, run_kind, run_id ORDER BY timestamp, message_id) AS before FROM (
            SELECT * FROM read WHERE resource_id IN (SELECT resource_id FROM neighbour)
            UNION SELECT * FROM neighbour
        ) AS near
    ) AS other WHERE polled AND before IS NOT NULL AND (timestamp < %(start)s OR timestamp >= %(finish)s)
), kept AS (
    SELECT * FROM counted c WHERE polled OR NOT EXISTS (
        SELECT FROM polled_step p
        WHERE p.resource_id = c.resource_id AND p.unit = c.unit AND p.before < c.timestamp
            AND p.timestamp + make_interval(secs => p.polling_interval) > coalesce(c.before, c.timestamp)
    )
)"""

INCREASE = f"""{STEPS}, total AS (
    SELECT resource_id, project_id, metadata_id, sum(amount) AS total, 1 AS per FROM kept GROUP BY resource_id, project_id, metadata_id
), {NO_UNMETERED}"""

SUM = f"""
total AS (
    SELECT resource_id, project_id, metadata_id, sum(volume) AS total, 1 AS per
    FROM read c
    WHERE timestamp < %(finish)s AND (polled OR NOT EXISTS (
        SELECT FROM read p
        WHERE p.resource_id = c.resource_id AND p.unit = c.unit AND p.polled
            AND p.timestamp >= c.timestamp AND p.timestamp - make_interval(secs => p.polling_interval) < c.timestamp
    ))
    GROUP BY resource_id, project_id, metadata_id
), {NO_UNMETERED}"""

MAXIMUM = f"""
total AS (
    SELECT resource_id, project_id, metadata_id, max(volume) AS total, 1 AS per FROM read GROUP BY resource_id, project_id, metadata_id
), {NO_UNMETERED}"""

NUMBERS = f"div({microseconds('{} - %(start)s')}, {SLOT_MICROSECONDS})"

# In a slot: a counter's increase by the time of the steps that end in it, or else of the one that spans it; the mean of a gauge; the
# sum of deltas by five minutes. Volumes have the number of samples in place of seconds.
PERCENTILE = f"""{STEPS}, valued AS (
    SELECT k.resource_id, k.project_id, d.value_no, k.kind, k.timestamp, k.before, CASE WHEN k.kind = 'c' THEN amount ELSE volume END AS amount,
        CASE WHEN k.kind = 'c' THEN {microseconds("timestamp - before")} WHEN k.kind = 'd' THEN NULL ELSE 1000000 END AS us
    FROM kept k JOIN numbered d ON d.metadata_id = k.metadata_id
    WHERE k.kind <> 'c' OR k.before IS NOT NULL
), ending AS MATERIALIZED (
    SELECT resource_id, project_id, value_no, {NUMBERS.format("timestamp")} AS slot, sum(amount) AS amount,
        coalesce(sum(us), {SLOT_MICROSECONDS}) AS us
    FROM valued GROUP BY resource_id, project_id, value_no, slot
), spanned AS (
    SELECT v.resource_id, v.project_id, v.value_no, slot::numeric AS slot, sum(v.amount) AS amount, sum(v.us) AS us
    FROM valued v
    CROSS JOIN LATERAL generate_series(
        {NUMBERS.format("greatest(before, %(start)s)")}::bigint + 1, {NUMBERS.format("timestamp")}::bigint - 1) AS slot
    WHERE v.kind = 'c' AND v.us > {SLOT_MICROSECONDS} AND NOT EXISTS (
        SELECT FROM ending e WHERE e.resource_id = v.resource_id AND e.slot = slot.slot)
    GROUP BY v.resource_id, v.project_id, v.value_no, slot.slot
), rate AS (
    SELECT *, amount / us AS rate FROM ending WHERE us > 0
    UNION ALL SELECT *, amount / us FROM spanned
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY resource_id, project_id, value_no ORDER BY rate, amount, slot) AS n,
        count(*) OVER (PARTITION BY resource_id, project_id, value_no) AS slots,
        max(slot) OVER (PARTITION BY resource_id, project_id, value_no) - min(slot) OVER (PARTITION BY resource_id, project_id, value_no) + 1
            AS expected
    FROM rate
), result AS (
    SELECT r.resource_id, r.project_id, value.document, r.amount AS total, r.us::numeric / 1000000 AS per,
        greatest(0, expected - slots) * {SLOT_MICROSECONDS} AS us
    FROM ranked r JOIN value ON value.value_no = r.value_no
    WHERE n = div(95 * slots + 99, 100)
)"""

# Different metadata with the same values are one.
NUMBERED_VALUES = """
valued_metadata AS MATERIALIZED (
    SELECT d.metadata_id, {document} AS document FROM (SELECT DISTINCT metadata_id FROM read{unknown}) AS d {joined}
), value AS MATERIALIZED (
    SELECT document, row_number() OVER (ORDER BY document) AS value_no FROM (SELECT DISTINCT document FROM valued_metadata) AS _
), numbered AS MATERIALIZED (
    SELECT m.metadata_id, v.value_no FROM valued_metadata m JOIN value v ON v.document = m.document
)"""

# Nothing is known of what has expired: as of a resource without metadata.
UNKNOWN_VALUES = " UNION ALL SELECT -1 WHERE EXISTS (SELECT FROM forgotten)"
FORGOTTEN_VALUES = " UNION ALL SELECT resource_id, -1 FROM forgotten"

RESULT = """
newest AS (
    (SELECT DISTINCT ON (resource_id) resource_id, metadata_id FROM read ORDER BY resource_id, timestamp DESC, message_id DESC){forgotten}
), result AS (
    SELECT part.resource_id, part.project_id, value.document, {combined}(part.total) AS total, max(part.per) AS per, sum(part.us) AS us
    FROM (
        SELECT resource_id, project_id, metadata_id, total, per, 0 AS us FROM total
        UNION ALL
        SELECT u.resource_id, u.project_id, n.metadata_id, 0, 1, u.us
        FROM unmetered u JOIN newest n ON n.resource_id = u.resource_id WHERE u.us >= 1000000
    ) AS part JOIN numbered d ON d.metadata_id = part.metadata_id JOIN value ON value.value_no = d.value_no
    GROUP BY part.resource_id, part.project_id, value.document
)"""

COMPUTED = """
computed AS MATERIALIZED (
    SELECT resource_id, project_id, document, {rounded} AS quantity, div(us, 1000000)::integer AS unmetered_seconds
    FROM (SELECT *, rated_quantity(total * %(numerator)s, per::numeric * %(denominator)s) AS quantity FROM result) AS exact
    WHERE quantity <> 0 OR us >= 1000000
)"""

ROUNDED_UP = (
    "((div(quantity, %(multiple)s) + CASE WHEN mod(quantity, %(multiple)s) > 0 THEN 1 ELSE 0 END) * %(multiple)s)"
)

PARTS = {
    "integral": (READ_GAUGES, INTEGRAL, "sum"),
    "increase": (READ_WITH_BEFORE, INCREASE, "sum"),
    "sum": (READ_DELTAS, SUM, "sum"),
    "maximum": (READ, MAXIMUM, "max"),
    "percentile95": (READ_WITH_BEFORE, PERCENTILE, ""),
}


def measuring(sku: Sku, *, lives: str = KEPT_LIVES) -> tuple[str, dict[str, Any]]:
    """Return the common table expressions that end with ``computed``, and the parameters that ``sku`` gives them.

    ``computed`` has the columns resource_id, project_id, document (the values, as ``jsonb``), quantity and unmetered_seconds.
    """
    read, measured, combined = PARTS[sku.usage]
    document, joined, parameters = _document(sku)
    parameters |= {
        "meter": sku.meter,
        "numerator": sku.factor.numerator,
        "denominator": sku.factor.denominator,
        "multiple": sku.round_up_to,
        "resources": None,
    }
    gauge = sku.usage == "integral"
    unknown, forgotten = (UNKNOWN_VALUES, FORGOTTEN_VALUES) if gauge else ("", "")
    values = str(filled(NUMBERED_VALUES, document=document, joined=joined, unknown=unknown))
    computed = str(filled(COMPUTED, rounded="quantity" if sku.round_up_to is None else f"round({ROUNDED_UP}, 9)"))
    parts = [WANTED, *([lives] if gauge else []), read, values, measured]
    if combined:
        parts.append(str(filled(RESULT, combined=combined, forgotten=forgotten)))
    return ", ".join([*parts, computed]), parameters


def _document(sku: Sku) -> tuple[str, str, dict[str, Any]]:
    """Return SQL for the values of ``sku`` as ``jsonb``, the join it needs, and their parameters."""
    if not sku.by:
        return "'{}'::jsonb", "", {}
    parameters: dict[str, Any] = {}
    pairs = []
    for n, name in enumerate(sorted(sku.by)):
        elements = metadata_values(name)
        texts = str(elements)
        for m, path in enumerate(elements.parameters):
            texts = texts.replace("%s", f"%(path_{n}_{m})s", 1)
            parameters[f"path_{n}_{m}"] = path
        parameters[f"by_{n}"] = name
        pairs.append(f"%(by_{n})s::text, coalesce(left(coalesce({texts}) #>> '{{}}', {LONGEST_VALUE}), '')")
    joined = "LEFT JOIN LATERAL (SELECT m.document FROM metadata m WHERE m.id = d.metadata_id OFFSET 0) AS d_ ON true"
    return f"jsonb_build_object({', '.join(pairs)})".replace("d.document", "d_.document"), joined, parameters
