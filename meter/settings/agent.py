"""The settings of the agents: when they poll, what they keep on disk, and the libvirt of a host."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from meter.settings.owners import OwnerSection
from meter.settings.section import Count
from meter.settings.section import Seconds
from meter.settings.section import Section


class PollingSection(Section):
    """When the agents poll."""

    interval_seconds: Seconds = Field(
        default=300.0,
        description="From one polling cycle to the next. The first is at the start, the others at its multiples by the clock.",
    )
    intervals: dict[str, Seconds] = Field(
        default_factory=dict,
        description='Pollsters that have another one, by name, with * and ?; the first that matches counts: { cpu = 60.0, "disk*" = 3600.0 }.',
    )
    jitter_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="All cycles are late by a random part of so many seconds, chosen at the start, to spread the load of many agents.",
    )
    timeout_seconds: Seconds = Field(
        default=60.0, description="A pollster that takes longer is given up for this cycle."
    )
    batch_samples: Count = Field(default=100, description="Samples in one message, at most.")

    def interval_of(self, pollster: str) -> float:
        """Return the interval of a pollster in seconds: the first whose pattern matches, else the one of all."""
        matching = (seconds for pattern, seconds in self.intervals.items() if fnmatchcase(pollster, pattern))
        return next(matching, self.interval_seconds)


class SpoolSection(Section):
    """The agents' outbox on disk, for samples that the bus has not confirmed."""

    largest_bytes: Count = Field(
        default=1024 * 1024 * 1024, description="When it is full the oldest samples go, counted and logged."
    )
    longest_age_seconds: Seconds = Field(
        default=14 * 86400.0, description="Samples that waited longer go, counted and logged."
    )
    send_to_new_destination: bool = Field(
        default=False,
        description="Send spooled samples although they were spooled for another broker, virtual host or signing key; otherwise the daemon refuses to start while there are any.",
    )


class ComputeSection(Section):
    """The compute agent."""

    libvirt_uri: str = Field(
        default="auto",
        min_length=1,
        description='libvirt\'s connection URI: "qemu:///system"; "auto" is that where libvirt is installed, else libvirt\'s own "test:///default".',
    )
    timeout_seconds: Seconds = Field(
        default=10.0,
        description="A call of libvirt that takes longer is abandoned, and asked again past the domain that hangs.",
    )
    host: str = Field(
        default="", description="What this host is called in the metadata of samples; its own name by default."
    )
    default_project_id: str = Field(
        default="", description="Whose the domains are that neither Nova nor a rule knows; nobody's by default."
    )
    default_user_id: str = Field(default="", description="Likewise.")
    owners: list[OwnerSection] = Field(
        default_factory=list,
        description="[[compute.owners]]: rules for domains that Nova does not know, the first that matches counts. name or element, project_id, user_id; see docs/compute.rst.",
    )
