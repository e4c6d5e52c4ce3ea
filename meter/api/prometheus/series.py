"""The series, labels and metrics that the store has, for clients that look for them."""

from __future__ import annotations

from collections.abc import Sequence

from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import MetricMetadata
from meter.api.prometheus.source import PromqlSource


async def matching_series(
    selectors: Sequence[str], start: float | None, end: float | None, source: PromqlSource, limit: int | None = None
) -> list[Labels]:
    """Return the label sets of all series that match one of ``selectors``, sorted, and have samples in [start, end).

    A selector is an instant vector selector (``ceilometer_cpu{project="p"}``). At most ``limit`` are returned. Raises
    :class:`~meter.api.prometheus.results.PromqlError`.
    """
    raise NotImplementedError


async def label_names(
    selectors: Sequence[str], start: float | None, end: float | None, source: PromqlSource
) -> list[str]:
    """Return the names of the labels of these series, sorted; of all series without ``selectors``."""
    raise NotImplementedError


async def label_values(
    name: str, selectors: Sequence[str], start: float | None, end: float | None, source: PromqlSource
) -> list[str]:
    """Return the values of the label ``name`` of these series, sorted; of all series without ``selectors``."""
    raise NotImplementedError


async def metric_metadata(source: PromqlSource, metric: str | None = None) -> list[MetricMetadata]:
    """Return the type, unit and help of each metric, or of ``metric``, sorted; several entries if it has several units."""
    raise NotImplementedError
