"""Settings of Prometheus' HTTP API: the labels of series, and the limits of queries in PromQL."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic import field_validator

from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section
from meter.settings.section import matching

LabelName = Annotated[
    str, matching(r"[a-zA-Z_][a-zA-Z0-9_]*", "a label of letters, digits and underscores that begins with no digit")
]
MetadataKey = Annotated[str, Field(min_length=1, max_length=255)]

RESERVED_LABELS = frozenset({"resource", "project", "user", "unit", "meter"})
"""Labels that series have anyway."""


class ApiPrometheusSection(Section):
    """Labels and limits of Prometheus' HTTP API."""

    metadata_labels: Annotated[dict[LabelName, MetadataKey], Field(max_length=10)] = Field(
        default_factory=lambda: {
            "resource_name": "display_name",
            "flavor_name": "flavor.name",
            "vm_instance": "host",
            "server_group": "user_metadata.server_group",
        },
        description="Labels of series besides resource, project, user and unit, at most ten, each with the key of the metadata whose value it has.",
    )
    lookback_seconds: Seconds = Field(
        default=900.0,
        description="How old the newest sample of a series may be to be its value, if the samples do not state their polling interval.",
    )
    max_lookback_seconds: Seconds = Field(
        default=10_800.0,
        description="How old it may be at most if they do: otherwise three polling intervals.",
    )
    max_points_per_series: Count = Field(
        default=11_000, description="Maximum number of points of each series of a range query."
    )
    max_series: Count = Field(default=10_000, description="Maximum number of series of a selector.")
    max_points: Count = Field(
        default=1_000_000,
        description="Maximum number of points of a selector or other vector, over all series; an expression can hold four times as many at one time.",
    )
    max_rows: Count = Field(
        default=200_000,
        description="Maximum number of rows of statistics, or of samples, that one question to the store may have.",
    )
    max_metrics: Count = Field(
        default=200, description="Maximum number of metrics that a selector without a name may match."
    )
    max_expression_bytes: Annotated[int, Field(gt=0, le=65_536)] = Field(
        default=4096, description="Maximum length of an expression in PromQL."
    )

    @field_validator("metadata_labels")
    @classmethod
    def _are_not_reserved(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name in RESERVED_LABELS or name.startswith("__"):
                raise ValueError(f"the label {name} is reserved")
        return value
