"""Collects what the pollsters of one cycle skipped, for the metrics and the cycle report."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from dataclasses import field

from zope.interface import implementer

from meter.agent.measured_series import Changes
from meter.agent.measured_series import Missing
from meter.bus.masking import masked_text
from meter.cycle_report import MAX_ERROR
from meter.cycle_report import SkipReport
from meter.skipped_samples import ISkippedSamples

MAX_REASONS = 50
MAX_REASON = 200
"""Limits of the reasons in the report of one poll: their number, and characters of one."""

OTHER = "other"


def clean_text(text: str, most: int = MAX_ERROR) -> str:
    """Return a text for a report: masked, at most ``most`` characters, and without what UTF-8 does not have."""
    return masked_text(text)[:most].encode("utf-8", "replace").decode() if text else ""


@dataclass(slots=True)
class PollNotes:
    """What one pollster stated in one cycle: skipped samples by reason, and the reasons by resource or project."""

    samples: dict[str, int] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    projects: dict[str, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    unknown: str = ""

    @property
    def missing(self) -> Missing:
        """The reasons by resource and project."""
        return Missing(self.resources, self.projects, self.ended, self.unknown)

    def skip_reports(self, changes: Changes) -> tuple[SkipReport, ...]:
        """Return what was skipped by reason, with the resources that samples were expected of."""
        reasons = sorted(self.samples.keys() | changes.skipped.keys() | ({self.unknown} - {""}))
        return tuple(
            SkipReport(reason, self.samples.get(reason, 0), changes.skipped.get(reason, ())) for reason in reasons
        )


@implementer(ISkippedSamples)
class SkipNotes:
    """Keeps what the pollsters of one cycle say, and passes the counts on to ``metrics``."""

    def __init__(self, metrics: ISkippedSamples) -> None:
        self._metrics = metrics
        self._notes: dict[str, PollNotes] = {}

    def of(self, plugin: str) -> PollNotes:
        """Return the notes of a pollster."""
        return self._notes.setdefault(plugin, PollNotes())

    def samples_skipped(
        self, plugin: str, reason: str, count: int = 1, resources: Collection[str] = (), projects: Collection[str] = ()
    ) -> None:
        """See :meth:`meter.skipped_samples.ISkippedSamples.samples_skipped`."""
        if count:
            self._metrics.samples_skipped(plugin, reason, count)
        notes = self.of(plugin)
        reason = self._bounded(notes, reason)
        if count:
            notes.samples[reason] = notes.samples.get(reason, 0) + count
        for resource in resources:
            notes.resources.setdefault(resource, reason)
        for project in projects:
            notes.projects.setdefault(project, reason)

    def resources_ended(self, plugin: str, reason: str, resources: Collection[str]) -> None:
        """See :meth:`meter.skipped_samples.ISkippedSamples.resources_ended`."""
        self.of(plugin).ended.update(dict.fromkeys(resources, clean_text(reason, MAX_REASON)))

    def resources_unknown(self, plugin: str, reason: str) -> None:
        """See :meth:`meter.skipped_samples.ISkippedSamples.resources_unknown`."""
        notes = self.of(plugin)
        notes.unknown = notes.unknown or clean_text(reason, MAX_REASON)

    def _bounded(self, notes: PollNotes, reason: str) -> str:
        reason = clean_text(reason, MAX_REASON)
        return reason if reason in notes.samples or len(notes.samples) < MAX_REASONS else OTHER
