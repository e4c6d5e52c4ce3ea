"""Handlers of Prometheus' HTTP API: queries, names and series, and the newest samples for ``/federate``."""

from __future__ import annotations

from collections.abc import Coroutine
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

from twisted.internet.defer import TimeoutError as DeferredTimeout

from meter.api.errors import ApiError
from meter.api.prometheus.evaluation import evaluate_instant
from meter.api.prometheus.evaluation import evaluate_range
from meter.api.prometheus.federation import newest_samples
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.series import label_names
from meter.api.prometheus.series import label_values
from meter.api.prometheus.series import matching_series
from meter.api.prometheus.series import metric_metadata
from meter.api.prometheus.source import PromqlSource
from meter.api.rendering import prometheus as rendering
from meter.api.rendering.exposition import CONTENT_TYPE
from meter.api.rendering.exposition import exposition
from meter.api.rendering.prometheus_errors import PrometheusError
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.api.request.prometheus import invalid_parameter
from meter.api.request.prometheus import parse_bound
from meter.api.request.prometheus import parse_duration
from meter.api.request.prometheus import parse_limit
from meter.api.request.prometheus import parse_time
from meter.api.responses import ListResponse
from meter.api.responses import StreamingResponse
from meter.daemon.services import within
from meter.query import SampleFilter

MAX_TIMEOUT_SECONDS = 120.0
"""How long a query may take, as in Prometheus; a client can ask for less."""

MAX_SELECTORS = 100
"""Selectors of one request."""

QUERY = Parameter("query", "string", "An expression in PromQL.")
TIME = Parameter(
    "time", "string", "Time of the evaluation, in seconds since 1970 or as RFC 3339. Default: now.", narrows=True
)
TIMEOUT = Parameter("timeout", "string", "Longest time that the evaluation may take. Default and maximum: 2m.")
LIMIT = Parameter("limit", "string", "Maximum number of series or names in the response; 0 means all.")
STATS = Parameter("stats", "string", "Accepted for Grafana and without effect: there are no statistics of queries.")
START = Parameter("start", "string", "First time, in seconds since 1970 or as RFC 3339.", narrows=True)
END = Parameter("end", "string", "Last time, in seconds since 1970 or as RFC 3339.", narrows=True)
STEP = Parameter("step", "string", "Time between two values, in seconds or as a duration such as 5m.", narrows=True)
MATCH = Parameter("match[]", "string", 'A selector such as ceilometer_cpu{project="p"}; repeatable.', many=True)
METRIC = Parameter("metric", "string", "Only this metric.", narrows=True)
LIMIT_PER_METRIC = Parameter("limit_per_metric", "string", "Maximum number of entries per metric; 0 means all.")

T = TypeVar("T")


async def query(context: RequestContext) -> rendering.QueryAnswer | ListResponse:
    """Handle ``/api/v1/query``."""
    arguments = context.arguments
    expression, limit = _expression(context), parse_limit(arguments["limit"])
    time = context.now if arguments["time"] is None else parse_time("time", arguments["time"])
    return rendering.answer(await _evaluated(context, evaluate_instant(expression, time, _source(context))), limit)


async def query_range(context: RequestContext) -> rendering.QueryAnswer | ListResponse:
    """Handle ``/api/v1/query_range``."""
    arguments = context.arguments
    expression, limit = _expression(context), parse_limit(arguments["limit"])
    for name in ("start", "end"):
        if arguments[name] is None:
            raise invalid_parameter(name, 'cannot parse "" to a valid timestamp')
    start, end = parse_time("start", arguments["start"]), parse_time("end", arguments["end"])
    if end < start:
        raise invalid_parameter("end", "end timestamp must not be before start time")
    if arguments["step"] is None:
        raise invalid_parameter("step", 'cannot parse "" to a valid duration')
    step = parse_duration("step", arguments["step"])
    if step <= 0:
        raise invalid_parameter(
            "step", "zero or negative query resolution step widths are not accepted. Try a positive integer"
        )
    source = _source(context)
    if (end - start) / step > source.limits.max_points_per_series:
        raise PrometheusError(
            "bad_data",
            f"exceeded maximum resolution of {source.limits.max_points_per_series:,} points per timeseries. Try decreasing"
            " the query resolution (?step=XX)",
        )
    return rendering.answer(await _evaluated(context, evaluate_range(expression, start, end, step, source)), limit)


async def labels(context: RequestContext) -> ListResponse:
    """Handle ``/api/v1/labels``."""
    limit = parse_limit(context.arguments["limit"])
    start, end = _range(context)
    return rendering.names(
        await _evaluated(context, label_names(_selectors(context), start, end, _source(context))), limit
    )


async def values_of_label(context: RequestContext) -> ListResponse:
    """Handle ``/api/v1/label/{name}/values``."""
    limit = parse_limit(context.arguments["limit"])
    start, end = _range(context)
    values = label_values(context.path["name"], _selectors(context), start, end, _source(context))
    return rendering.names(await _evaluated(context, values), limit)


async def series(context: RequestContext) -> ListResponse:
    """Handle ``/api/v1/series``."""
    limit = parse_limit(context.arguments["limit"])
    start, end = _range(context)
    selectors = _selectors(context)
    if not selectors:
        raise PrometheusError("bad_data", "no match[] parameter provided")
    # One more than wanted, to see whether there are more.
    most = None if limit is None else limit + 1
    found = await _evaluated(context, matching_series(selectors, start, end, _source(context), most))
    return rendering.series(found, limit)


async def metadata(context: RequestContext) -> rendering.MetadataAnswer:
    """Handle ``/api/v1/metadata``."""
    arguments = context.arguments
    limit = parse_limit(arguments["limit"])
    per_metric = parse_limit(arguments["limit_per_metric"], "limit_per_metric")
    found = await _evaluated(context, metric_metadata(_source(context), arguments["metric"]))
    return rendering.metadata(found, limit, per_metric)


async def federate(context: RequestContext) -> StreamingResponse:
    """Handle ``/federate``: the newest sample of each series that matches one of the selectors, at its own time."""
    selectors = _selectors(context)
    if not selectors:
        raise PrometheusError("bad_data", "no match[] parameter provided")
    source = _source(context)
    found, warnings = await _evaluated(context, newest_samples(selectors, context.now, source))
    types: dict[str, str] = {}
    for each in await _evaluated(context, metric_metadata(source)):
        types[each.metric] = each.type if types.setdefault(each.metric, each.type) == each.type else "untyped"
    return StreamingResponse(CONTENT_TYPE, exposition(found, types, warnings, context.slices))


def _expression(context: RequestContext) -> str:
    """Return the expression; :class:`PrometheusError` if there is none."""
    expression = context.arguments["query"]
    if not expression:
        raise invalid_parameter("query", "parse error: no expression found in input")
    return str(expression)


def _selectors(context: RequestContext) -> Sequence[str]:
    selectors: Sequence[str] = context.arguments["match[]"]
    if len(selectors) > MAX_SELECTORS:
        raise invalid_parameter("match[]", f"a request can have at most {MAX_SELECTORS} selectors")
    return selectors


def _range(context: RequestContext) -> tuple[float | None, float | None]:
    start, end = (parse_bound(name, context.arguments[name]) for name in ("start", "end"))
    if start is not None and end is not None and end < start:
        raise invalid_parameter("end", "end timestamp must not be before start time")
    return start, end


def _source(context: RequestContext) -> PromqlSource:
    """Return what the requester may see. Raises :class:`HttpError` 403 for a requester without a project."""
    context.store.check(SampleFilter())
    requester = context.requester
    return PromqlSource(
        store=context.store,
        slices=context.slices,
        visible_project=None if requester.is_admin else requester.project_id,
        limits=context.limits.promql,
    )


async def _evaluated(context: RequestContext, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``; :class:`PrometheusError` for what it refuses, and if it takes too long."""
    try:
        seconds = _timeout_seconds(context)
    except ApiError:
        work.close()
        raise
    try:
        return await within(context.clock, seconds, work)
    except PromqlError as error:
        raise PrometheusError(error.kind, error.text) from error
    except DeferredTimeout as error:
        raise PrometheusError("timeout", f"query timed out in expression evaluation after {seconds:g} s") from error


def _timeout_seconds(context: RequestContext) -> float:
    text = context.arguments.get("timeout")
    if text is None:
        return MAX_TIMEOUT_SECONDS
    seconds = parse_duration("timeout", text)
    if seconds <= 0:
        raise invalid_parameter("timeout", "it must be positive")
    return min(seconds, MAX_TIMEOUT_SECONDS)
