"""The statement that finds the series of a page of samples, as far as they are few."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.query.access_paths import FEW_SERIES
from meter.store.query.access_paths import AccessPath
from meter.store.query.conditions import FilterConditions

# The ids of the matching series, as far as they are few, and one more.
MATCHING_SERIES = f"""
SELECT found.*, (SELECT nullif(max(x.retained_until), 'infinity') FROM series x WHERE x.id = ANY(found.ids)) AS until
FROM (
    SELECT threshold.few, ARRAY(SELECT x.id FROM series x WHERE {{series}} LIMIT threshold.few + 1) AS ids
    FROM ({FEW_SERIES}) threshold
    OFFSET 0
) AS found
"""


class MatchingSeries(NamedTuple):
    """The row of :func:`matching_series_query`.

    ``few`` is how many series count as few; ``ids`` has those that match, and at most one more than ``few``. None of ``ids`` has a
    sample after ``until``; ``None`` if that is not known.
    """

    few: int
    ids: Sequence[int]
    until: datetime | None

    @property
    def are_few(self) -> bool:
        """Whether ``ids`` are all that match."""
        return len(self.ids) <= self.few


def matching_series_query(conditions: FilterConditions) -> Sql | None:
    """Return the statement whose row is a :class:`MatchingSeries`; ``None`` if samples are not found by series."""
    if conditions.access_path is not AccessPath.SERIES:
        return None
    return filled(MATCHING_SERIES, series=conditions.series)
