"""Handlers of what clients of Prometheus ask besides queries: what serves the API, and what Meter does not have."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

from meter.api.rendering import prometheus as rendering
from meter.api.request.arguments import Parameter
from meter.api.request.context import RequestContext
from meter.query import SampleFilter

COMPATIBLE_VERSION = "2.42.0"
"""The version of Prometheus whose HTTP API is served, and which the tests compare it with."""

STATE = Parameter("state", "string", "active, dropped or any: Meter scrapes no targets.")
SCRAPE_POOL = Parameter("scrapePool", "string", "Accepted and without effect: Meter scrapes no targets.")
TYPE = Parameter("type", "string", "alert or record: Meter evaluates no rules.")


async def buildinfo(context: RequestContext) -> rendering.BuildInfoAnswer:
    """Handle ``/api/v1/status/buildinfo``."""
    context.store.check(SampleFilter())
    return rendering.BuildInfoAnswer("success", rendering.BuildInfo(application="Meter", version=COMPATIBLE_VERSION))


async def runtimeinfo(context: RequestContext) -> rendering.RuntimeInfoAnswer:
    """Handle ``/api/v1/status/runtimeinfo``."""
    context.store.check(SampleFilter())
    started = datetime.fromtimestamp(context.started_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    info = rendering.RuntimeInfo(start_time=started, last_config_time=started)
    return rendering.RuntimeInfoAnswer("success", info)


async def targets(context: RequestContext) -> rendering.TargetsAnswer:
    """Handle ``/api/v1/targets``."""
    context.store.check(SampleFilter())
    return rendering.TargetsAnswer("success", rendering.Targets())


async def rules(context: RequestContext) -> rendering.RulesAnswer:
    """Handle ``/api/v1/rules``, which Grafana asks for rules of the data source."""
    context.store.check(SampleFilter())
    return rendering.RulesAnswer("success", rendering.RuleGroups())


async def alerts(context: RequestContext) -> rendering.AlertsAnswer:
    """Handle ``/api/v1/alerts``."""
    context.store.check(SampleFilter())
    return rendering.AlertsAnswer("success", rendering.Alerts())


async def exemplars(context: RequestContext) -> rendering.SeriesAnswer:
    """Handle ``/api/v1/query_exemplars``: samples have no exemplars."""
    context.store.check(SampleFilter())
    return rendering.SeriesAnswer(status="success", data=[])
