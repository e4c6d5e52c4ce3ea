"""The operations of Prometheus' HTTP API, and the endpoints of Prometheus that Meter does not have."""

from __future__ import annotations

from typing import Any

from meter.api.handlers import prometheus
from meter.api.handlers import prometheus_status
from meter.api.operation import Operation
from meter.api.rendering import prometheus as rendering
from meter.api.rendering.prometheus_errors import PrometheusErrorBody
from meter.api.rendering.prometheus_errors import render_prometheus_failure
from meter.api.request.arguments import Parameter

PREFIX = "/api/v1"
TEXT = "text/plain"

_TIMES = (prometheus.START, prometheus.END)


def _operation(name: str, path: str, summary: str, result: Any, handler: Any, **options: Any) -> Operation:
    return Operation(
        name=f"prometheus_{name}",
        path=path,
        summary=f"{summary}, in the format of Prometheus.",
        result=result,
        handler=handler,
        failure=PrometheusErrorBody,
        render_failure=render_prometheus_failure,
        **options,
    )


def _both_methods(
    name: str,
    summary: str,
    result: Any,
    handler: Any,
    parameters: tuple[Parameter, ...],
    *,
    costly: bool = False,
) -> tuple[Operation, Operation]:
    """Return the operation by GET, and by POST with a form in the body, which is for long expressions."""
    options: dict[str, Any] = {"parameters": parameters, "costly": costly}
    path = f"{PREFIX}/{name}"
    return (
        _operation(name, path, summary, result, handler, **options),
        _operation(f"{name}_by_post", path, summary, result, handler, method="POST", **options),
    )


PROMETHEUS: tuple[Operation, ...] = (
    *_both_methods(
        "query",
        "The value of an expression at one time",
        rendering.QueryAnswer,
        prometheus.query,
        (prometheus.QUERY, prometheus.TIME, prometheus.TIMEOUT, prometheus.LIMIT, prometheus.STATS),
    ),
    *_both_methods(
        "query_range",
        "The values of an expression at every step of a range of time",
        rendering.QueryAnswer,
        prometheus.query_range,
        (
            prometheus.QUERY,
            *_TIMES,
            prometheus.STEP,
            prometheus.TIMEOUT,
            prometheus.LIMIT,
            prometheus.STATS,
        ),
        costly=True,
    ),
    *_both_methods(
        "series",
        "The labels of series",
        rendering.SeriesAnswer,
        prometheus.series,
        (prometheus.MATCH, *_TIMES, prometheus.LIMIT),
    ),
    *_both_methods(
        "labels",
        "Names of labels",
        rendering.NamesAnswer,
        prometheus.labels,
        (prometheus.MATCH, *_TIMES, prometheus.LIMIT),
    ),
    _operation(
        "label_values",
        f"{PREFIX}/label/{{name}}/values",
        "Values of a label",
        rendering.NamesAnswer,
        prometheus.values_of_label,
        parameters=(prometheus.MATCH, *_TIMES, prometheus.LIMIT),
    ),
    _operation(
        "metadata",
        f"{PREFIX}/metadata",
        "Type and unit of each metric",
        rendering.MetadataAnswer,
        prometheus.metadata,
        parameters=(prometheus.METRIC, prometheus.LIMIT, prometheus.LIMIT_PER_METRIC),
    ),
    _operation(
        "federate",
        "/federate",
        "The newest sample of each series",
        str,
        prometheus.federate,
        parameters=(prometheus.MATCH,),
        media_types=(TEXT,),
        costly=True,
    ),
    _operation(
        "buildinfo",
        f"{PREFIX}/status/buildinfo",
        "The version of Prometheus whose HTTP API this is",
        rendering.BuildInfoAnswer,
        prometheus_status.buildinfo,
    ),
    _operation(
        "runtimeinfo",
        f"{PREFIX}/status/runtimeinfo",
        "Since when the API runs",
        rendering.RuntimeInfoAnswer,
        prometheus_status.runtimeinfo,
    ),
    _operation(
        "targets",
        f"{PREFIX}/targets",
        "The targets that are scraped, which are none",
        rendering.TargetsAnswer,
        prometheus_status.targets,
        parameters=(prometheus_status.STATE, prometheus_status.SCRAPE_POOL),
    ),
    _operation(
        "rules",
        f"{PREFIX}/rules",
        "Rules, of which there are none",
        rendering.RulesAnswer,
        prometheus_status.rules,
        parameters=(prometheus_status.TYPE,),
    ),
    _operation(
        "alerts",
        f"{PREFIX}/alerts",
        "Alerts, of which there are none",
        rendering.AlertsAnswer,
        prometheus_status.alerts,
    ),
    *(
        _operation(
            f"exemplars{suffix}",
            f"{PREFIX}/query_exemplars",
            "Exemplars, of which there are none",
            rendering.SeriesAnswer,
            prometheus_status.exemplars,
            method=method,
            parameters=(prometheus.QUERY, *_TIMES),
        )
        for method, suffix in (("GET", ""), ("POST", "_by_post"))
    ),
)

REFUSED: dict[str, str] = {
    "read": "Meter does not serve remote read: ask query_range.",
    "write": "Meter does not accept remote write: samples come from agents, or by POST /v2/meters/{meter}.",
    "otlp": "Meter does not accept OpenTelemetry: samples come from agents, or by POST /v2/meters/{meter}.",
    "admin": "Meter does not serve the administration of Prometheus: meter-db voids and deletes samples.",
}
"""What Prometheus has below :data:`PREFIX` and Meter refuses on purpose, by the first part of the path, with the reason."""


def missing_endpoint(method: str, path: str) -> str:
    """Return the text of the 404 for what is below :data:`PREFIX` and not one of :data:`PROMETHEUS`."""
    return REFUSED.get(path.partition("/")[0], f"Meter does not serve {method[:20]} {PREFIX}/{path[:80]}.")
