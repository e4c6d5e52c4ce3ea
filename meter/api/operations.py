"""Every operation of the API as data: where it is, what may be asked, what comes back and who answers.

Requests are routed from this list, and :mod:`meter.api.openapi` describes it to clients.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from meter.api import handlers
from meter.api import openapi
from meter.api import segments
from meter.api import v1
from meter.api.ingest import PostedSample
from meter.api.rendering import service as rendering_service
from meter.api.rendering import v1 as rendering_v1
from meter.api.rendering import v2 as rendering
from meter.api.request.arguments import Parameter
from meter.api.request.complex_query import ComplexQuery
from meter.api.request.context import RequestContext
from meter.api.request.statistics import statistics
from meter.api.streaming.export import MEDIA_TYPES
from meter.api.streaming.live import EVENT_STREAM

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path. Names in braces in ``path`` match anything, slashes too.

    ``result`` is the type that JSON is made from, ``body`` the type of the JSON that is sent. ``media_types`` are what
    it can answer in, the usual one first. ``open``: no one need say who they are. ``lasting``: it is answered for as
    long as the client stays.
    """

    name: str
    method: str = "GET"
    path: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    status: int = 200
    result: Any
    answer: Callable[[RequestContext], Awaitable[Any]]
    media_types: tuple[str, ...] = (JSON,)
    open: bool = False
    time_weighted: bool = False


QUERY = Parameter(
    "q",
    "text",
    "Terms that all must hold: a field, an operator (default eq), a value, and for metadata a type.",
    members=("field", "op", "value", "type"),
    mandatory=("field", "value"),
    narrows=True,
)
LIMIT = Parameter("limit", "integer", "The most entries to answer with.")
MARKER = Parameter("marker", "text", "Where the page before ended: from its Link header.", narrows=True)
AS_OF = Parameter("as_of", "text", "Leave out what was recorded later than this time.", narrows=True)
UNIQUE = Parameter("unique", "boolean", "List each meter once, not once per resource.")
METER_LINKS = Parameter("meter_links", "integer", "0 leaves the links to meters out.")
DIRECT = Parameter("direct", "boolean", "Write to the store at once, instead of sending over the bus.")
GROUPBY = Parameter(
    "groupby", "text", "Makes a row per value of user_id, project_id, resource_id, source or metadata.<key>.", many=True
)
PERIOD = Parameter("period", "integer", "Length of a window in seconds; without one there is one window.")
AGGREGATE = Parameter(
    "aggregate",
    "text",
    "Aggregates instead of the standard ones: max, min, sum, avg, count, stddev, cardinality (of resource_id, user_id or"
    " project_id), increase and rate of cumulative meters, integral of gauges, percentile (from 0 to 100).",
    members=("func", "param"),
    mandatory=("func",),
)
START = Parameter("start_timestamp", "text", "The first moment of the range.", narrows=True)
END = Parameter("end_timestamp", "text", "The first moment after the range.", narrows=True)
OFFSET = Parameter("search_offset", "integer", "Minutes by which the range is widened on both sides.")
METADATA = Parameter(
    "metadata.", "text", "A value that the metadata must have under the key that follows.", prefix=True, narrows=True
)

SAMPLES = (JSON, *MEDIA_TYPES)

V2: tuple[Operation, ...] = (
    Operation(
        name="versions",
        path="/",
        summary="The versions of the API.",
        result=rendering_service.Versions,
        answer=handlers.versions,
    ),
    Operation(
        name="capabilities",
        path="/v2/capabilities",
        summary="What the API and the store can do.",
        result=rendering_service.Capabilities,
        answer=handlers.capabilities,
    ),
    Operation(
        name="meters",
        path="/v2/meters",
        summary="The meters of each resource, or of any.",
        parameters=(QUERY, LIMIT, UNIQUE, MARKER, AS_OF),
        result=Sequence[rendering.Meter],
        answer=handlers.meters,
    ),
    Operation(
        name="meter_samples",
        path="/v2/meters/{meter}",
        summary="The samples of a meter, newest first.",
        parameters=(QUERY, LIMIT, MARKER, AS_OF),
        result=Sequence[rendering.OldSample],
        answer=handlers.meter_samples,
        media_types=SAMPLES,
    ),
    Operation(
        name="post_samples",
        method="POST",
        path="/v2/meters/{meter}",
        summary="Take samples of a meter.",
        parameters=(DIRECT,),
        body=Sequence[PostedSample],
        status=201,
        result=Sequence[rendering.OldSample],
        answer=handlers.post_samples,
    ),
    Operation(
        name="statistics",
        path="/v2/meters/{meter}/statistics",
        summary="Statistics of the samples of a meter, by unit, group and window, oldest first.",
        parameters=(QUERY, GROUPBY, PERIOD, AGGREGATE, AS_OF),
        result=Sequence[rendering.StatisticsRow],
        answer=statistics,
    ),
    Operation(
        name="samples",
        path="/v2/samples",
        summary="Samples of any meter, newest first.",
        parameters=(QUERY, LIMIT, MARKER, AS_OF),
        result=Sequence[rendering.Sample],
        answer=handlers.samples,
        media_types=SAMPLES,
    ),
    Operation(
        name="one_sample",
        path="/v2/samples/{id}",
        summary="One sample.",
        result=rendering.Sample,
        answer=handlers.one_sample,
    ),
    Operation(
        name="proof",
        path="/v2/samples/{id}/proof",
        summary="A sample's message exactly as it was signed, and the name of the key.",
        result=rendering.Proof,
        answer=handlers.proof,
    ),
    Operation(
        name="queried_samples",
        method="POST",
        path="/v2/query/samples",
        summary="Samples by an expression, in an order.",
        parameters=(MARKER, AS_OF),
        body=ComplexQuery,
        result=Sequence[rendering.Sample],
        answer=handlers.queried_samples,
        media_types=SAMPLES,
    ),
    Operation(
        name="resources",
        path="/v2/resources",
        summary="Resources that have samples, by id.",
        parameters=(QUERY, LIMIT, METER_LINKS, MARKER, AS_OF),
        result=Sequence[rendering.Resource],
        answer=handlers.resources,
    ),
    Operation(
        name="one_resource",
        path="/v2/resources/{id}",
        summary="One resource.",
        result=rendering.Resource,
        answer=handlers.one_resource,
    ),
    Operation(
        name="segments",
        path="/v2/segments",
        summary="How long instances, deleted ones too, were in which state with which flavor in a period, by id.",
        parameters=(*segments.PARAMETERS, LIMIT, MARKER, AS_OF),
        result=Sequence[segments.InstanceSegments],
        answer=segments.segments,
    ),
    Operation(
        name="live",
        path="/v2/live",
        summary="Samples as they are stored, as server-sent events.",
        parameters=(QUERY,),
        result=str,
        answer=handlers.live,
        media_types=(EVENT_STREAM,),
        time_weighted=True,
    ),
    Operation(
        name="openapi",
        path="/openapi.json",
        summary="This description.",
        result=dict[str, Any],
        answer=openapi.description,
        open=True,
    ),
    Operation(
        name="docs",
        path="/docs",
        summary="This description, for people.",
        result=str,
        answer=openapi.page,
        media_types=(openapi.HTML,),
        open=True,
    ),
)


def _v1(name: str, owners: str | None, rest: str, what: str, result: Any, answer: Any) -> Operation:
    path = f"/v1/{owners}/{{id}}{rest}" if owners else f"/v1{rest}"
    return Operation(
        name=f"v1_{owners or 'all'}_{name}",
        path=path,
        summary=f"{what}{f' of one of the {owners}' if owners else ''}, as v1 told it.",
        parameters=(START, END, OFFSET, METADATA),
        result=result,
        answer=v1.of(owners, answer),
    )


V1: tuple[Operation, ...] = (
    *(_v1("meters", o, "/meters", "Meters", rendering_v1.Meters, v1.meters) for o in (None, *v1.OWNERS)),
    *(
        _v1("resources", o, "/resources", "Resources", rendering_v1.Resources, v1.resources)
        for o in (None, "users", "projects", "sources")
    ),
    *(_v1("users", o, "/users", "Users", rendering_v1.Users, v1.users) for o in (None, "sources")),
    *(_v1("projects", o, "/projects", "Projects", rendering_v1.Projects, v1.projects) for o in (None, "sources")),
    _v1("itself", "sources", "", "What is known", rendering_v1.Source, v1.source),
    *(_v1("events", o, "/meters/{meter}", "Samples", rendering_v1.Events, v1.events) for o in v1.OWNERS),
    _v1("duration", "resources", "/meters/{meter}/duration", "Duration", rendering_v1.Duration, v1.duration),
    *(
        _v1(name, o, f"/meters/{{meter}}/volume/{name}", "Volume", rendering_v1.Volume, answer)
        for o in ("resources", "projects")
        for name, answer in (("max", v1.largest_volume), ("sum", v1.sum_of_volumes))
    ),
)

OPERATIONS = (*V2, *V1)

GONE: dict[str, str] = dict.fromkeys(
    ("/v2/alarms", "/v2/query/alarms"), "alarms URLs is unavailable when Aodh is disabled or unavailable."
)
"""Paths that Ceilometer once served, with all that is below them, and what it says there now."""
