"""The operations of the API: path, parameters, handler and response type of each.

:mod:`meter.api.application` routes requests by this list, and :mod:`meter.api.openapi` describes it to clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from meter.api import openapi
from meter.api.handlers import audit
from meter.api.handlers import budgets
from meter.api.handlers import completeness
from meter.api.handlers import identities
from meter.api.handlers import prices
from meter.api.handlers import segments
from meter.api.handlers import service
from meter.api.handlers import v1
from meter.api.handlers import v2
from meter.api.handlers.statistics import statistics
from meter.api.ingest import PostedSample
from meter.api.operation import JSON
from meter.api.operation import LIMIT
from meter.api.operation import MARKER
from meter.api.operation import Operation
from meter.api.prometheus_operations import PROMETHEUS
from meter.api.rating_operations import CLOUDKITTY
from meter.api.rating_operations import STATEMENTS
from meter.api.rendering import completeness as rendering_completeness
from meter.api.rendering import service as rendering_service
from meter.api.rendering import v1 as rendering_v1
from meter.api.rendering import v2 as rendering
from meter.api.rendering.audit import AuditLogEntry
from meter.api.rendering.budgets import Budget
from meter.api.rendering.identities import Identity
from meter.api.rendering.prices import PriceList
from meter.api.rendering.segments import ResourceSegments
from meter.api.request.arguments import Parameter
from meter.api.request.complex_query import ComplexQuery
from meter.api.request.context import RequestContext
from meter.api.responses import RawResponse
from meter.api.streaming.export import MEDIA_TYPES
from meter.api.streaming.live import EVENT_STREAM

QUERY = Parameter(
    "q",
    "string",
    "Filter terms, joined by AND. Each has a field, an operator (default eq), a value and, for metadata, a type.",
    members=("field", "op", "value", "type"),
    mandatory=("field", "value"),
    narrows=True,
)
AS_OF = Parameter("as_of", "string", "Exclude samples recorded after this time.", narrows=True)
UNIQUE = Parameter("unique", "boolean", "List each meter once instead of once per resource.")
METER_LINKS = Parameter("meter_links", "integer", "0 omits the links to meters.")
DIRECT = Parameter(
    "direct", "boolean", "Write the samples directly to the store instead of publishing them on the bus."
)
GROUPBY = Parameter(
    "groupby", "string", "Group by user_id, project_id, resource_id, source or metadata.<key>; repeatable.", many=True
)
PERIOD = Parameter("period", "integer", "Length of a window in seconds. Default: one window over the whole range.")
AGGREGATE = Parameter(
    "aggregate",
    "string",
    "Aggregates to compute instead of the standard ones: max, min, sum, avg, count, stddev, cardinality (of resource_id,"
    " user_id or project_id), increase and rate (cumulative meters), integral (gauges), percentile (0 to 100), first, last and polling_interval.",
    members=("func", "param"),
    mandatory=("func",),
)
START = Parameter("start_timestamp", "string", "Start of the time range (inclusive).", narrows=True)
END = Parameter("end_timestamp", "string", "End of the time range (exclusive).", narrows=True)
OFFSET = Parameter("search_offset", "integer", "Minutes by which the time range is extended on both sides.")
METADATA = Parameter(
    "metadata.", "string", "Required value of the metadata key that follows the prefix.", prefix=True, narrows=True
)

ACTION = Parameter("action", "string", "Only entries with this action, such as void.", narrows=True)
WHO = Parameter("who", "string", "Only what this user did.", narrows=True)
SINCE = Parameter("start", "string", "Only entries of this time or of a later one.", narrows=True)
UNTIL = Parameter("end", "string", "Only entries of an earlier time.", narrows=True)

SAMPLES = (JSON, *MEDIA_TYPES)


async def _openapi(context: RequestContext) -> msgspec.Raw:
    """Handle ``/openapi.json``."""
    return _encoded_document(context.base_url or "/")


@lru_cache(maxsize=16)
def _encoded_document(base_url: str) -> msgspec.Raw:
    """Return the OpenAPI document, encoded: anyone can request it, and making it takes milliseconds."""
    return msgspec.Raw(msgspec.json.encode(openapi.document(OPERATIONS, base_url)))


async def _docs(context: RequestContext) -> RawResponse:
    """Handle ``/docs``."""
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
    return RawResponse(openapi.HTML, openapi.page(OPERATIONS).encode(), policy)


COMPLETENESS: tuple[Operation, ...] = (
    Operation(
        name="completeness",
        path="/v2/completeness",
        summary="How many samples were expected, received and missing, by cause; as a whole, by hour or by day.",
        parameters=(*completeness.PERIOD, *completeness.SCOPE, completeness.BY, completeness.GROUP, LIMIT, MARKER),
        result=Sequence[rendering_completeness.Completeness],
        handler=completeness.completeness,
        costly=True,
    ),
    Operation(
        name="completeness_gaps",
        path="/v2/completeness/gaps",
        summary="Times for which samples are missing, each with its cause, ordered by start.",
        parameters=(*completeness.PERIOD, *completeness.SCOPE, LIMIT, MARKER),
        result=Sequence[rendering_completeness.CompletenessGap],
        handler=completeness.gaps,
        costly=True,
    ),
    Operation(
        name="completeness_agents",
        path="/v2/completeness/agents",
        summary="Agents: running, silent or stopped, and since when. For administrators.",
        result=Sequence[rendering_completeness.Agent],
        handler=completeness.agents,
    ),
    Operation(
        name="completeness_unmetered",
        path="/v2/completeness/unmetered",
        summary="Resources that services list and that are not metered, and the reverse. For administrators.",
        result=Sequence[rendering_completeness.UnmeteredResources],
        handler=completeness.unmetered,
    ),
    Operation(
        name="completeness_audits",
        path="/v2/completeness/audits",
        summary="Usage audits of Nova: how many notifications were sent, and how many have arrived. For administrators.",
        parameters=completeness.PERIOD,
        result=Sequence[rendering_completeness.AuditPeriod],
        handler=completeness.audits,
        costly=True,
    ),
    Operation(
        name="completeness_closable",
        path="/v2/completeness/closable",
        summary="Whether a period may be closed, and the reasons why not.",
        parameters=(*completeness.PERIOD, completeness.PROJECT),
        result=rendering_completeness.ClosablePeriod,
        handler=completeness.closable,
        costly=True,
    ),
)

VERSIONS = Operation(
    name="versions",
    path="/",
    summary="Versions of the API.",
    result=rendering_service.Versions,
    handler=service.versions,
)

V2: tuple[Operation, ...] = (
    VERSIONS,
    Operation(
        name="capabilities",
        path="/v2/capabilities",
        summary="Features that the API and the store support.",
        result=rendering_service.Capabilities,
        handler=service.capabilities,
    ),
    Operation(
        name="meters",
        path="/v2/meters",
        summary="Meters, per resource or unique.",
        parameters=(QUERY, LIMIT, UNIQUE, MARKER, AS_OF),
        result=Sequence[rendering.Meter],
        handler=v2.meters,
    ),
    Operation(
        name="meter_samples",
        path="/v2/meters/{meter}",
        summary="Samples of a meter, newest first.",
        parameters=(QUERY, LIMIT, MARKER, AS_OF),
        result=Sequence[rendering.OldSample],
        handler=v2.meter_samples,
        media_types=SAMPLES,
    ),
    Operation(
        name="post_samples",
        method="POST",
        path="/v2/meters/{meter}",
        summary="Submit samples of a meter.",
        parameters=(DIRECT,),
        body=Sequence[PostedSample],
        lists=True,
        costly=True,
        status=201,
        result=Sequence[rendering.OldSample],
        handler=v2.post_samples,
    ),
    Operation(
        name="statistics",
        path="/v2/meters/{meter}/statistics",
        summary="Statistics of a meter, one row per unit, group and window, oldest first.",
        parameters=(QUERY, GROUPBY, PERIOD, AGGREGATE, AS_OF),
        result=Sequence[rendering.StatisticsRow],
        costly=True,
        handler=statistics,
    ),
    Operation(
        name="samples",
        path="/v2/samples",
        summary="Samples of all meters, newest first.",
        parameters=(QUERY, LIMIT, MARKER, AS_OF),
        result=Sequence[rendering.Sample],
        handler=v2.samples,
        media_types=SAMPLES,
    ),
    Operation(
        name="sample",
        path="/v2/samples/{id}",
        summary="One sample.",
        result=rendering.Sample,
        handler=v2.sample,
    ),
    Operation(
        name="proof",
        path="/v2/samples/{id}/proof",
        summary="The metering message of a sample exactly as it was signed, and the id of the signing key.",
        result=rendering.Proof,
        handler=v2.proof,
    ),
    Operation(
        name="query_samples",
        method="POST",
        path="/v2/query/samples",
        summary="Samples that match an expression, in a given order.",
        parameters=(MARKER, AS_OF),
        body=ComplexQuery,
        costly=True,
        result=Sequence[rendering.Sample],
        handler=v2.query_samples,
        media_types=SAMPLES,
    ),
    Operation(
        name="resources",
        path="/v2/resources",
        summary="Resources that have samples, ordered by id.",
        parameters=(QUERY, LIMIT, METER_LINKS, MARKER, AS_OF),
        result=Sequence[rendering.Resource],
        handler=v2.resources,
    ),
    Operation(
        name="resource",
        path="/v2/resources/{id}",
        summary="One resource.",
        result=rendering.Resource,
        handler=v2.resource,
    ),
    Operation(
        name="segments",
        path="/v2/segments",
        summary="Time that resources, including deleted ones, spent in each state with each flavor or size and owner, ordered by id.",
        parameters=(*segments.PARAMETERS, LIMIT, MARKER, AS_OF),
        result=Sequence[ResourceSegments],
        handler=segments.segments,
        costly=True,
    ),
    *COMPLETENESS,
    *STATEMENTS,
    *CLOUDKITTY,
    Operation(
        name="identities",
        path="/v2/identities",
        summary="Projects, domains and users with their present and former names, ordered by kind and id.",
        parameters=(*identities.PARAMETERS, LIMIT, MARKER),
        result=Sequence[Identity],
        handler=identities.identities,
    ),
    Operation(
        name="prices",
        path="/v2/prices",
        summary="List prices, and the prices that were agreed with the requester's project, its account or its domain.",
        parameters=(prices.DAY,),
        result=Sequence[PriceList],
        handler=prices.prices,
    ),
    Operation(
        name="budgets",
        path="/v2/budgets",
        summary="Budgets with what was used, is forecast and is left, as they were evaluated last, ordered by id.",
        parameters=(*budgets.PARAMETERS, LIMIT, MARKER),
        result=Sequence[Budget],
        handler=budgets.budgets,
    ),
    Operation(
        name="audit_log",
        path="/v2/audit-log",
        summary="What administrators did, newest first. For administrators.",
        parameters=(ACTION, WHO, SINCE, UNTIL, LIMIT, MARKER),
        result=Sequence[AuditLogEntry],
        handler=audit.audit_log,
    ),
    Operation(
        name="live",
        path="/v2/live",
        summary="Samples as they are stored, as server-sent events.",
        parameters=(QUERY,),
        result=str,
        handler=v2.live,
        media_types=(EVENT_STREAM,),
        streaming=True,
    ),
    Operation(
        name="openapi",
        path="/openapi.json",
        summary="OpenAPI description of this API.",
        result=dict[str, Any],
        handler=_openapi,
        public=True,
    ),
    Operation(
        name="docs",
        path="/docs",
        summary="Documentation of this API as a web page.",
        result=str,
        handler=_docs,
        media_types=(openapi.HTML,),
        public=True,
    ),
)


def _v1(name: str, owners: str | None, rest: str, what: str, result: Any, handler: Any) -> Operation:
    path = f"/v1/{owners}/{{id}}{rest}" if owners else f"/v1{rest}"
    return Operation(
        name=f"v1_{owners or 'all'}_{name}",
        path=path,
        summary=f"{what}{f' of one {owners[:-1]}' if owners else ''}, in the format of the v1 API.",
        parameters=(START, END, OFFSET, METADATA),
        result=result,
        handler=v1.handler_for(owners, handler),
        costly=True,
    )


V1: tuple[Operation, ...] = (
    *(_v1("meters", o, "/meters", "Meters", rendering_v1.Meters, v1.meters) for o in (None, *v1.OWNER_FIELDS)),
    *(
        _v1("resources", o, "/resources", "Resources", rendering_v1.Resources, v1.resources)
        for o in (None, "users", "projects", "sources")
    ),
    *(_v1("users", o, "/users", "Users", rendering_v1.Users, v1.users) for o in (None, "sources")),
    *(_v1("projects", o, "/projects", "Projects", rendering_v1.Projects, v1.projects) for o in (None, "sources")),
    _v1("source", "sources", "", "Details", rendering_v1.Source, v1.source),
    *(_v1("events", o, "/meters/{meter}", "Samples", rendering_v1.Events, v1.events) for o in v1.OWNER_FIELDS),
    _v1("duration", "resources", "/meters/{meter}/duration", "Duration", rendering_v1.Duration, v1.duration),
    *(
        _v1(f"volume_{name}", o, f"/meters/{{meter}}/volume/{name}", what, rendering_v1.Volume, handler)
        for o in ("resources", "projects")
        for name, what, handler in (
            ("max", "Maximum volume", v1.max_volume),
            ("sum", "Sum of volumes", v1.sum_of_volumes),
        )
    ),
)

OPERATIONS = (*V2, *V1, *PROMETHEUS)

GONE: dict[str, str] = dict.fromkeys(
    ("/v2/alarms", "/v2/query/alarms"), "alarms URLs is unavailable when Aodh is disabled or unavailable."
)
"""Paths that Ceilometer once served, with everything below them, and the text of its 410 response."""
