"""Limits of a query in PromQL, and what labels series have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

DEFAULT_METADATA_LABELS: Mapping[str, str] = {
    "resource_name": "display_name",
    "flavor_name": "flavor.name",
    "vm_instance": "host",
    "server_group": "user_metadata.server_group",
}
"""Labels that have a value of the metadata of a sample, each with the key of that value: names of Ceilometer's exporter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromqlLimits:
    """Limits of one query, and the labels of series.

    ``max_points_per_series`` bounds the steps of a range query, ``max_series`` the series of a selector, ``max_points`` the
    points of all series of a selector, ``max_rows`` the rows of statistics or the samples of one question to the store, and
    ``max_metrics`` the metrics that a selector without a name may ask the store about. ``max_expression_bytes`` is the
    length of an expression. ``lookback_seconds`` is how old the newest sample of a series may be whose polling interval is
    unknown; of others it may be three polling intervals old, but no more than ``max_lookback_seconds``.
    ``metadata_labels`` are as :data:`DEFAULT_METADATA_LABELS`.
    """

    max_points_per_series: int = 11_000
    max_series: int = 10_000
    max_points: int = 1_000_000
    max_rows: int = 200_000
    max_metrics: int = 200
    max_expression_bytes: int = 4096
    lookback_seconds: float = 900.0
    max_lookback_seconds: float = 10_800.0
    metadata_labels: Mapping[str, str] = field(default_factory=lambda: DEFAULT_METADATA_LABELS)
