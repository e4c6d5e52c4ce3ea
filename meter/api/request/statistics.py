"""Statistics queries: the parameters ``groupby``, ``period`` and ``aggregate``, parsed and validated."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import cast
from typing import get_args

from meter.api.errors import ApiError
from meter.api.errors import unknown_argument
from meter.api.limits import MAX_AGGREGATES
from meter.api.limits import MAX_GROUPINGS
from meter.api.request.simple_query import check_metadata_key
from meter.api.request.simple_query import metadata_key
from meter.query import STANDARD_AGGREGATES
from meter.query import Aggregate
from meter.query import AggregateFunction
from meter.query import Grouping
from meter.query import SampleFilter

GROUPABLE_IDS = ("user_id", "resource_id", "project_id", "source")
COUNTABLE_IDS = ("resource_id", "user_id", "project_id")
FUNCTIONS = get_args(AggregateFunction)

MAX_PERIOD_SECONDS = 100 * 366 * 24 * 3600
"""A century; much longer periods end after year 9999."""


def parse_groupings(names: Sequence[str]) -> dict[Grouping, str]:
    """Return the distinct groupings, each with the name that the request has for it; :class:`ApiError` 400 if invalid."""
    groupings = {_grouping(name): name for name in names}
    if "" in groupings:
        raise unknown_argument(
            ", ".join(sorted({name for name in names if not _grouping(name)})), "Invalid groupby fields"
        )
    if len(groupings) > MAX_GROUPINGS:
        raise ApiError(400, f"groupby can have at most {MAX_GROUPINGS} keys; this request has {len(groupings)}.")
    return groupings


def _grouping(name: str) -> Grouping:
    """Return the grouping called ``name``, empty if there is none."""
    if name in GROUPABLE_IDS:
        return name
    key = metadata_key(name)
    check_metadata_key(key)
    return f"metadata.{key}" if key else ""


def parse_period(period: int | None, filter: SampleFilter, now: float, max_windows: int) -> int | None:
    """Return the length of a window in seconds, ``None`` for a single window.

    Raises :class:`ApiError` 400 for an invalid period and for one that divides the range of ``filter``, up to ``now`` if
    it has no end, into more than ``max_windows`` windows.
    """
    if not period:
        return None
    if period < 0:
        raise ApiError(400, "Period must be positive.")
    if period > MAX_PERIOD_SECONDS:
        raise ApiError(400, f"Invalid period {period}: the maximum is {MAX_PERIOD_SECONDS} s.")
    if filter.start is not None:
        end = filter.end.timestamp() if filter.end else now
        windows = int((end - filter.start.timestamp()) // period)
        if windows > max_windows:
            raise ApiError(400, f"Invalid period {period}: it makes {windows} windows; the maximum is {max_windows}.")
    return period


def parse_aggregates(terms: Sequence[Mapping[str, str]]) -> tuple[Aggregate, ...]:
    """Return the distinct aggregates that ``terms`` (``func``, ``param``) select; without terms, the standard ones."""
    aggregates = tuple(dict.fromkeys(map(_aggregate, terms))) or STANDARD_AGGREGATES
    if len(aggregates) > MAX_AGGREGATES:
        raise ApiError(
            400, f"A query can have at most {MAX_AGGREGATES} distinct aggregates; this one has {len(aggregates)}."
        )
    return aggregates


def _aggregate(term: Mapping[str, str]) -> Aggregate:
    function, param = term["func"], term.get("param") or None
    if function not in FUNCTIONS:
        raise ApiError(400, f"Invalid aggregation function: {function}")
    if function == "percentile":
        if not _is_percentage(param):
            raise ApiError(400, f"Bad aggregate: percentile.{param}: aggregate.param must be a number from 0 to 100.")
    elif param not in (COUNTABLE_IDS if function == "cardinality" else (None,)):
        raise ApiError(400, f"Bad aggregate: {function}.{param}")
    return Aggregate(cast(AggregateFunction, function), param)


def _is_percentage(text: str | None) -> bool:
    try:
        return 0 <= float(text or "") <= 100
    except ValueError:
        return False
