"""Handlers of the operations that describe the service: versions and capabilities."""

from __future__ import annotations

from meter.api.rendering import service as rendering
from meter.api.request.context import RequestContext
from meter.api.request.statistics import FUNCTIONS


async def versions(context: RequestContext) -> rendering.Versions:
    """Handle ``/``."""
    return rendering.versions(context.base_url)


async def capabilities(context: RequestContext) -> rendering.Capabilities:
    """Handle ``/v2/capabilities``."""
    features = [f"{kind}:query:{way}" for kind in ("meters", "resources", "samples") for way in ("simple", "metadata")]
    features += ["samples:query:complex", "statistics:groupby", "statistics:query:simple", "statistics:query:metadata"]
    features += ["statistics:aggregation:standard"]
    features += [f"statistics:aggregation:selectable:{function}" for function in FUNCTIONS]
    return rendering.Capabilities(
        api=dict.fromkeys(features, True),
        storage={"storage:production_ready": True},
    )
