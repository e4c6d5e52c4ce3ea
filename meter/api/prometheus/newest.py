"""The newest sample of each series, at its own time."""

from __future__ import annotations

from collections.abc import Sequence

from meter.api.prometheus.results import VectorSample
from meter.api.prometheus.source import PromqlSource


async def newest_samples(
    selectors: Sequence[str], time: float, source: PromqlSource
) -> tuple[list[VectorSample], tuple[str, ...]]:
    """Return the newest sample, at ``time``, of each series that matches one of ``selectors``, and warnings."""
    raise NotImplementedError
