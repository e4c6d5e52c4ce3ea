"""The SQL of steps between partials: what each contributes to ``increase``, ``rate`` and ``integral``.

:mod:`meter.testing.statistics` defines these. Each function returns common table expressions that add columns to the rows of
``source``, which are all partials of the meters and resources in the range; ``selected`` tells which of them match.
"""

from __future__ import annotations

from meter.counter_runs import INTERVALS_CARRIED
from meter.counter_runs import RunKind
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.before_range import IS_DELETED
from meter.store.query.before_range import IS_MEASURED
from meter.store.query.before_range import BeforeRange
from meter.store.query.partials import INCREASE_BETWEEN
from meter.store.query.partials import carried_hours

# A visit is a time on one host. A run that is defined by its host and begins after another such run of the resource has migrated
# here: its counter began at 0. So did that of a run that continues after the resource was counted on another host: the other
# counter was not 0, as it is while a domain arrives, and this one grows, as that of a domain that has left does not. Only resources
# that were counted on several hosts, at any time, are looked at in this way, as it takes three times as long; without any of them
# the rows are read once. Keys begin with the resource, which decides most comparisons.
WITH_INCREASE = f""", of_several_hosts AS MATERIALIZED ({{of_several_hosts}}), kept_step AS (
    SELECT *, lag(last_volume) OVER step AS volume_before, lag(last) OVER step AS before, NULL::timestamptz AS first_of_run_kind,
        false AS arrives, 0::bigint AS visit, NULL::float8 AS max_of_visit, false AS from_zero
    FROM {{source}} WHERE resource_id NOT IN (SELECT resource_id FROM of_several_hosts)
    WINDOW step AS (PARTITION BY resource_id, meter, unit, run_kind, run_id ORDER BY first, tie)
), run_step AS (
    SELECT *, lag(last_volume) OVER step AS volume_before, lag(last) OVER step AS before,
        min(first) OVER (PARTITION BY resource_id, meter, unit, run_kind) AS first_of_run_kind,
        run_kind > {RunKind.DECLARED:d} AND run_id <> lag(run_id) OVER of_kind AS arrives
    FROM {{source}} WHERE (SELECT true FROM of_several_hosts LIMIT 1) AND resource_id IN (SELECT resource_id FROM of_several_hosts)
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
        WHEN before IS NULL THEN first_of_run_kind < first AND NOT {{counted_before}}
        ELSE max_of_visit > first_volume
            AND lag(max_of_visit) OVER (PARTITION BY resource_id, meter, unit, run_kind ORDER BY first, tie) > 0
        END AS from_zero
    FROM visit_maximum
), step AS (
    SELECT * FROM kept_step UNION ALL SELECT * FROM arrival
), with_increase AS (
    SELECT *, increase + CASE WHEN from_zero THEN first_volume ELSE coalesce({INCREASE_BETWEEN}, 0) END AS total_increase,
        sum(extract(epoch FROM last - CASE WHEN from_zero THEN first ELSE coalesce(before, first) END)::float8)
            {{matching}} OVER (PARTITION BY window_start, unit, resource_id {{grouped}}) AS run_seconds
    FROM step
)"""

# Overlapping partials are read only where their samples have expired: there is no time between them to integrate over.
# After the deletion of its resource a partial does not count. Measured partials count until the next measured one; others do not
# count while a measured one is valid, until covered_until. The number of measured partials so far numbers the time between them.
WITH_INTEGRAL = f""", of_resource AS (
    SELECT *, {IS_MEASURED} AS measured, row_number() OVER in_order AS position,
        coalesce(bool_or({IS_DELETED}) OVER (
            PARTITION BY meter, resource_id ORDER BY first, tie ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), false) AS deleted_within
    FROM {{source}}
    WINDOW in_order AS (PARTITION BY meter, resource_id ORDER BY first, tie)
), known AS (
    SELECT *, deleted_within OR bool_or(CASE WHEN position = 1 THEN {{deleted_before}} ELSE false END)
        OVER (PARTITION BY meter, resource_id) AS deleted
    FROM of_resource
), resource_step AS (
    SELECT *, lead(first) OVER of_unit AS next_of_unit, lead(first) OVER in_order AS next_of_any,
        lead(first) OVER (PARTITION BY meter, unit, resource_id, deleted, measured ORDER BY first, tie) AS next_measured_of_unit,
        min(first) FILTER (WHERE measured) OVER (
            PARTITION BY meter, resource_id, deleted ORDER BY first DESC, tie DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS next_measured,
        max(last) OVER (PARTITION BY meter, resource_id, deleted) AS end_of_resource,
        lead(first) OVER same_run IS NOT NULL AS run_continues,
        count(*) FILTER (WHERE measured) OVER in_order AS measurement
    FROM known
    WINDOW of_unit AS (PARTITION BY meter, unit, resource_id, deleted ORDER BY first, tie),
        in_order AS (PARTITION BY meter, resource_id, deleted ORDER BY first, tie),
        same_run AS (PARTITION BY meter, resource_id, run_kind, run_id, deleted ORDER BY first, tie)
), valid AS (
    SELECT *,
        CASE WHEN measured THEN coalesce(next_measured_of_unit, next_measured, end_of_resource)
            ELSE least(coalesce(next_of_unit, next_of_any), next_measured) END AS next,
        CASE WHEN NOT measured THEN first_value(CASE
            WHEN measured THEN CASE WHEN run_kind = {RunKind.DECLARED:d} AND run_continues THEN 'infinity'
                ELSE last + make_interval(secs => {INTERVALS_CARRIED} * polling_interval) END
            WHEN position = 1 THEN {{covered_before}}
            END) OVER (PARTITION BY meter, resource_id, deleted, measurement ORDER BY first, tie) END AS covered_until
    FROM resource_step
), with_integral AS (
    SELECT *, CASE WHEN deleted THEN 0 ELSE
        CASE
            WHEN coalesce(covered_until <= first, true) THEN integral
            WHEN covered_until >= last THEN 0
            ELSE integral - first_volume * extract(epoch FROM covered_until - first)::float8 / 3600 END
        + coalesce(last_volume * greatest({carried_hours("greatest(next - last, '0')", within_run="run_continues")} - CASE
            WHEN coalesce(covered_until <= last, true) THEN 0
            WHEN next IS NOT NULL THEN extract(epoch FROM least(covered_until, next) - last)::float8 / 3600 END, 0), 0)
        END AS total_integral
    FROM valid
)"""


def with_increase(source: str, before: BeforeRange, *, of_several_hosts: Sql, all_selected: bool, grouped: str) -> Sql:
    """Return ``with_increase``, which adds ``total_increase`` and ``run_seconds`` to the rows of ``source``.

    ``of_several_hosts`` is a statement for the ids of resources: at least those with rows of several runs that hosts define.
    """
    return filled(
        WITH_INCREASE,
        source=source,
        of_several_hosts=of_several_hosts,
        counted_before=before.counted(),
        matching="" if all_selected else "FILTER (WHERE selected)",
        grouped=grouped,
    )


def with_integral(source: str, before: BeforeRange) -> Sql:
    """Return ``with_integral``, which adds ``total_integral`` to the rows of ``source``."""
    return filled(
        WITH_INTEGRAL,
        source=source,
        deleted_before=before.deleted(),
        covered_before=before.covered(),
    )
