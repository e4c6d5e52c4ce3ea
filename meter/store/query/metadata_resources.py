"""The resources that have samples with metadata that a filter names, as far as they are few: only their samples and rollups are read.

``metadata_resource`` has the resources of all metadata for samples since a time (docs/decisions/0035-resources-of-metadata.rst). It restricts
whole resources: what lies between the matching samples of one, for steps, is read with them.
"""

from __future__ import annotations

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import alternative
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import FEW_SERIES
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import FilterConditions

# The ids of the resources; null if they are many, or not all are known. Many documents, and many resources of one, are not read to the end.
RESOURCES_OF_METADATA = f"""
SELECT (
    SELECT CASE WHEN cardinality(found.ids) <= threshold.few THEN found.ids END
    FROM ({FEW_SERIES}) AS threshold
    CROSS JOIN LATERAL (
        SELECT ARRAY(SELECT d.id FROM metadata d WHERE {{documents}} AND {{metadata}} LIMIT threshold.few + 1) AS ids
        WHERE (SELECT max(known.since) FROM metadata_known known) <= {{start}} OFFSET 0
    ) AS matching
    CROSS JOIN LATERAL (
        SELECT ARRAY(
            SELECT l.resource_id FROM unnest(matching.ids) AS d (id)
            CROSS JOIN LATERAL (SELECT l.resource_id FROM metadata_resource l WHERE l.metadata_id = d.id OFFSET 0) l LIMIT threshold.few + 1
        ) AS ids
        WHERE cardinality(matching.ids) <= threshold.few OFFSET 0
    ) AS found
) AS ids
"""

TABLE = "matching_resource"
"""The common table expression with the row of :func:`resources_of_metadata`, of statements that use :data:`SERIES_OF_FEW`."""

# One of the two parts has no rows, and is not executed.
SERIES_OF_FEW = f"""(
    SELECT x.* FROM (SELECT DISTINCT unnest(ids) AS id FROM {TABLE}) AS of_metadata
    CROSS JOIN LATERAL (SELECT * FROM series x WHERE x.resource_id = of_metadata.id OFFSET 0) x
    WHERE {{resource}} AND {{series}}
    UNION ALL
    (SELECT * FROM series x WHERE (SELECT ids IS NULL FROM {TABLE}) AND {{resource}} AND {{series}} OFFSET 0)
)"""


def are_narrowed(conditions: FilterConditions) -> bool:
    """Return whether the resources of the metadata that ``conditions`` name may be fewer than those that they name otherwise.

    Within a project, only its own series are read, and nothing depends on the metadata of others.
    """
    return conditions.documents != TRUE and conditions.visible == TRUE and not conditions.selects_resources


def resources_of_metadata(conditions: FilterConditions) -> Sql:
    """Return the query whose row has the ids of all resources with matching samples, null if they are many or not known."""
    start = conditions.time_range.start
    return alternative(
        filled(
            RESOURCES_OF_METADATA,
            documents=conditions.documents,
            metadata=conditions.metadata,
            start="'-infinity'" if start is None else Sql("%s", (start,)),
        ),
        "SELECT NULL::integer[] AS ids",
    )
