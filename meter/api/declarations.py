"""Every operation of the API as data: where it is, what may be asked, what comes back and who answers.

Requests are routed from this list, and so would be anything else that must know all operations.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from meter.api import answers
from meter.api import rendering
from meter.api.answers import Question
from meter.api.arguments import Parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path. Names in braces in ``path`` match anything, slashes too.

    ``result`` is the type that ``answer`` returns and JSON is made from.
    """

    name: str
    method: str
    path: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    result: Any
    answer: Callable[[Question], Awaitable[Any]]


QUERY = Parameter(
    "q",
    "text",
    "Terms that all must hold: a field, an operator (default eq), a value, and for metadata a type.",
    members=("field", "op", "value", "type"),
)
LIMIT = Parameter("limit", "integer", "The most entries to answer with.")
UNIQUE = Parameter("unique", "boolean", "List each meter once, not once per resource.")
METER_LINKS = Parameter("meter_links", "integer", "0 leaves the links to meters out.")
GROUPBY = Parameter(
    "groupby", "text", "Makes a row per value of user_id, project_id, resource_id, source or metadata.<key>.", many=True
)
PERIOD = Parameter("period", "integer", "Length of a window in seconds; without one there is one window.")
AGGREGATE = Parameter(
    "aggregate",
    "text",
    "Aggregates instead of the standard ones: max, min, sum, avg, count, stddev, cardinality with its parameter.",
    members=("func", "param"),
)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="versions",
        method="GET",
        path="/",
        summary="The versions of the API.",
        result=rendering.Versions,
        answer=answers.versions,
    ),
    Operation(
        name="capabilities",
        method="GET",
        path="/v2/capabilities",
        summary="What the API and the store can do.",
        result=rendering.Capabilities,
        answer=answers.capabilities,
    ),
    Operation(
        name="meters",
        method="GET",
        path="/v2/meters",
        summary="The meters of each resource, or of any.",
        parameters=(QUERY, LIMIT, UNIQUE),
        result=Sequence[rendering.Meter],
        answer=answers.meters,
    ),
    Operation(
        name="meter_samples",
        method="GET",
        path="/v2/meters/{meter}",
        summary="The samples of a meter, newest first.",
        parameters=(QUERY, LIMIT),
        result=Sequence[rendering.OldSample],
        answer=answers.meter_samples,
    ),
    Operation(
        name="statistics",
        method="GET",
        path="/v2/meters/{meter}/statistics",
        summary="Statistics of the samples of a meter, by unit, group and window, oldest first.",
        parameters=(QUERY, GROUPBY, PERIOD, AGGREGATE),
        result=Sequence[rendering.StatisticsRow],
        answer=answers.statistics,
    ),
    Operation(
        name="samples",
        method="GET",
        path="/v2/samples",
        summary="Samples of any meter, newest first.",
        parameters=(QUERY, LIMIT),
        result=Sequence[rendering.Sample],
        answer=answers.samples,
    ),
    Operation(
        name="one_sample",
        method="GET",
        path="/v2/samples/{id}",
        summary="One sample.",
        result=rendering.Sample,
        answer=answers.one_sample,
    ),
    Operation(
        name="resources",
        method="GET",
        path="/v2/resources",
        summary="Resources that have samples, by id.",
        parameters=(QUERY, LIMIT, METER_LINKS),
        result=Sequence[rendering.Resource],
        answer=answers.resources,
    ),
    Operation(
        name="one_resource",
        method="GET",
        path="/v2/resources/{id}",
        summary="One resource.",
        result=rendering.Resource,
        answer=answers.one_resource,
    ),
)

GONE: dict[str, str] = dict.fromkeys(
    ("/v2/alarms", "/v2/query/alarms"), "alarms URLs is unavailable when Aodh is disabled or unavailable."
)
"""Paths that Ceilometer once served, with all that is below them, and what it says there now."""
