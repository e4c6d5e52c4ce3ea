"""Settings of the completeness ledger."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from meter.settings.section import Seconds
from meter.settings.section import Section


class CompletenessSection(Section):
    """The completeness ledger: what agents and daemons report, and what arrives late."""

    max_clock_ahead_seconds: Seconds = Field(
        default=3600.0,
        description="How far in the future the times of a cycle report may be; a report with later times is dead-lettered.",
    )
    wait_seconds: Seconds = Field(
        default=600.0,
        description="How long the cycle reports of an agent wait at least for an earlier one that has not arrived, until it is recorded as missing.",
    )
    late_after_seconds: Seconds = Field(
        default=3600.0,
        description="Samples that are recorded longer than this after their timestamp are counted as late.",
    )
    late_samples: Literal["polled", "all"] = Field(
        default="polled",
        description='Which samples are counted as late: "polled", those of pollsters, or "all", also those made from notifications.',
    )
