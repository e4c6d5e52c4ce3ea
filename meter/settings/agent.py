"""Settings of the agents: polling, the spool on disk, and libvirt."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from meter.settings.owners import OwnerSection
from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section


class PollingSection(Section):
    """Schedule and limits of polling."""

    interval_seconds: Seconds = Field(
        default=300.0,
        description="Seconds between polling cycles. The first cycle runs at start, the others at multiples of the interval by the wall clock.",
    )
    intervals: dict[str, Seconds] = Field(
        default_factory=dict,
        description='Other intervals for single pollsters, by name pattern (* and ?); the first match applies: { cpu = 60.0, "disk*" = 3600.0 }.',
    )
    jitter_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Upper bound of a random delay of all cycles, chosen at start, which spreads the load of many agents.",
    )
    timeout_seconds: Seconds = Field(
        default=60.0, description="How long one pollster may take in a cycle before it is cancelled."
    )
    batch_samples: Count = Field(default=100, description="Maximum number of samples in one message.")
    cycle_reports: bool = Field(
        default=True,
        description="Send a report of each polling cycle: what was polled, and what could not be measured. Without these reports it is unknown whether samples are missing (see docs/completeness.rst).",
    )

    def interval_of(self, pollster: str) -> float:
        """Return the interval of a pollster in seconds."""
        matching = (seconds for pattern, seconds in self.intervals.items() if fnmatchcase(pollster, pattern))
        return next(matching, self.interval_seconds)


class SpoolSection(Section):
    """Samples on disk that the bus has not confirmed yet."""

    max_bytes: Count = Field(
        default=1024 * 1024 * 1024,
        description="Maximum size of the spool. When it is full, the oldest samples are dropped, counted and logged. Cycle reports are kept, and may have up to a tenth of this size in addition.",
    )
    max_age_seconds: Seconds = Field(
        default=14 * 86400.0, description="Samples that have waited longer are dropped, counted and logged."
    )
    send_to_new_destination: bool = Field(
        default=False,
        description="Send spooled samples even though they were spooled for another broker, virtual host or signing key. If false, the daemon refuses to start while such samples are in the spool.",
    )


class ComputeSection(Section):
    """The compute agent."""

    libvirt_uri: str = Field(
        default="auto",
        min_length=1,
        description='libvirt connection URI. "auto" is "qemu:///system" where libvirt is installed, else libvirt\'s own "test:///default".',
    )
    timeout_seconds: Seconds = Field(
        default=10.0,
        description="How long a libvirt call may take before it is abandoned. The call is then repeated without the domain that hangs.",
    )
    host: str = Field(default="", description="Name of this host in the metadata of samples; its host name by default.")
    default_project_id: str = Field(
        default="", description="Project of domains that neither Nova nor a rule in owners assigns; none by default."
    )
    default_user_id: str = Field(
        default="", description="User of domains that neither Nova nor a rule in owners assigns; none by default."
    )
    owners: list[OwnerSection] = Field(
        default_factory=list,
        description="[[compute.owners]]: rules that assign an owner to domains not created by Nova; the first match applies. name or element, project_id, user_id; see docs/compute.rst.",
    )
