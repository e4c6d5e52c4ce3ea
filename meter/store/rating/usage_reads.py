"""Statements that read kept usage: atoms, their sums over resources, and the rows of an annex."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any

from meter.rating.book.price_book import Sku
from meter.rating.period import BillingPeriod

# OFFSET 0: usage is found by the project first where there are few of them, and by SKU and day otherwise.
OF_PROJECTS = """
SELECT u.* FROM unnest(%(project_ids)s::integer[]) AS wanted (id) CROSS JOIN LATERAL (
    SELECT u.* FROM usage_atom u
    WHERE u.project_id = wanted.id AND u.sku_id = ANY(%(skus)s::integer[]) AND u.day >= %(first)s AND u.day < %(until)s {resource}
    OFFSET 0
) AS u"""
OF_ALL = """
SELECT u.* FROM usage_atom u
WHERE u.sku_id = ANY(%(skus)s::integer[]) AND u.day >= %(first)s AND u.day < %(until)s AND u.project_id = ANY(%(project_ids)s::integer[]) {resource}"""

OF_RESOURCE = "AND u.resource_id = (SELECT id FROM resource WHERE name = %(resource)s)"

# The order of values is that of values_order: by their sorted names and values, not by the text of the document, which has
# short names first and a quotation mark behind each value.
VALUES_ORDER = """
coalesce(
    (SELECT array_agg(ARRAY[each.key, each.value] ORDER BY each.key COLLATE "C") FROM jsonb_each_text(v.document) AS each), ARRAY[]::text[]
) COLLATE "C"
"""

# The maximum of a period is that of its days.
OF_PERIOD = """
SELECT sku_id, %(first)s::date AS day, resource_id, project_id, values_id, sum(unmetered_seconds) AS unmetered_seconds,
    max(quantity) AS quantity
FROM ({atoms}) AS u GROUP BY sku_id, resource_id, project_id, values_id"""

# The first day on which a project uses the resource has at least the minimum.
WITH_MINIMUM = f"""
SELECT sku_id, day, resource_id, project_id, values_id, unmetered_seconds, quantity + CASE
    WHEN day = first_day AND n = 1 THEN greatest(0, %(minimum)s - of_day) ELSE 0 END AS quantity
FROM (
    SELECT u.*, min(day) FILTER (WHERE quantity > 0) OVER (PARTITION BY project_id, resource_id) AS first_day,
        sum(quantity) OVER (PARTITION BY project_id, resource_id, day) AS of_day,
        row_number() OVER (PARTITION BY project_id, resource_id, day ORDER BY {VALUES_ORDER}) AS n
    FROM ({{atoms}}) AS u JOIN usage_values v ON v.id = u.values_id
) AS u"""

ATOMS = f"""
SELECT u.sku_id, u.day, coalesce(p.name, ''), r.name, v.document::text, u.quantity, u.unmetered_seconds
FROM ({{atoms}}) AS u
JOIN usage_values v ON v.id = u.values_id
JOIN resource r ON r.id = u.resource_id
LEFT JOIN project p ON p.id = u.project_id
ORDER BY u.day, coalesce(p.name, '') COLLATE "C", r.name, {VALUES_ORDER}
"""

TOTALS = f"""
SELECT u.sku_id, u.day, coalesce(p.name, ''), '', v.document::text, u.quantity, u.unmetered_seconds
FROM (
    SELECT sku_id, day, project_id, values_id, sum(quantity) AS quantity, sum(unmetered_seconds) AS unmetered_seconds
    FROM ({{atoms}}) AS u GROUP BY sku_id, day, project_id, values_id
) AS u
JOIN usage_values v ON v.id = u.values_id
LEFT JOIN project p ON p.id = u.project_id
ORDER BY u.day, coalesce(p.name, '') COLLATE "C", {VALUES_ORDER}
"""

ANNEX = f"""
SELECT u.sku_id, coalesce(p.name, ''), r.name, v.document::text, u.days
FROM (
    SELECT sku_id, project_id, resource_id, values_id, json_object_agg(day::text, quantity::text ORDER BY day)::text AS days
    FROM ({{atoms}}) AS u WHERE quantity <> 0 GROUP BY sku_id, project_id, resource_id, values_id
) AS u
JOIN usage_values v ON v.id = u.values_id
JOIN resource r ON r.id = u.resource_id
LEFT JOIN project p ON p.id = u.project_id
ORDER BY coalesce(p.name, '') COLLATE "C", r.name, {VALUES_ORDER}
"""

COUNT = "SELECT count(*) FROM ({atoms}) AS u"

PROJECTS = """
SELECT coalesce(p.name, '')
FROM (
    SELECT used.project_id AS id FROM usage_project used
    WHERE EXISTS (
        SELECT FROM unnest(%(skus)s::integer[]) AS sku (id) CROSS JOIN LATERAL (
            SELECT u.project_id FROM usage_atom u
            WHERE u.project_id = used.project_id AND u.sku_id = sku.id AND u.day >= %(first)s AND u.day < %(until)s LIMIT 1
        ) AS u
    )
) AS used LEFT JOIN project p ON p.id = used.id
ORDER BY coalesce(p.name, '') COLLATE "C"
"""

PROJECT_IDS = """
SELECT id FROM (
    SELECT id, name FROM project WHERE name = ANY(%(projects)s::text[])
    UNION ALL SELECT 0, '' WHERE '' = ANY(%(projects)s::text[])
) AS p ORDER BY name
"""

FEW_PROJECTS = 50
"""Usage of more projects is read by SKU and day."""


MAX_ROWS = 100_000
"""Atoms of several SKUs that are read with one statement; of more, those of each SKU are read by themselves."""


def is_plain(sku: Sku) -> bool:
    """Return whether the usage of ``sku`` is what is kept, without a minimum, and by day."""
    return sku.minimum is None and sku.usage != "maximum"


def atoms_sql(sku: Sku | None, projects: int, *, of_resource: bool) -> str:
    """Return the statement that reads the usage of ``sku``, or of plain ones, for a number of projects, or of one resource."""
    template = OF_PROJECTS if projects <= FEW_PROJECTS else OF_ALL
    atoms = template.format(resource=OF_RESOURCE if of_resource else "")
    if sku is not None and sku.usage == "maximum":
        atoms = OF_PERIOD.format(atoms=atoms)
    if sku is not None and sku.minimum is not None:
        atoms = WITH_MINIMUM.format(atoms=atoms)
    return atoms


def atoms_parameters(
    skus: Collection[int],
    minimum: Decimal | None,
    period: BillingPeriod,
    project_ids: Collection[int],
    resource_id: str | None = None,
) -> dict[str, Any]:
    """Return the parameters of :func:`atoms_sql`."""
    return {
        "skus": list(skus),
        "first": period.first,
        "until": period.until,
        "project_ids": list(project_ids),
        "resource": resource_id,
        "minimum": minimum,
    }
