"""The rows of the completeness ledger that cycle reports change, and the changes of several reports, for every store."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta

from meter.completeness.ledger.causes import Cause
from meter.completeness_query import FOLLOWING_INTERVALS
from meter.cycle_report import InactivePollster
from meter.cycle_report import SeriesGroup

MAC_BYTES, KEPT_MACS = 8, 64
"""How much of the signatures of a boot's last reports is kept, to tell a repeated report from another one with its number."""


@dataclass(slots=True)
class AgentState:
    """An agent; ``last_due`` is ``None`` before its first applied report."""

    id: int
    newest_boot: uuid.UUID | None
    last_due: datetime | None


@dataclass(slots=True)
class BootState:
    """A boot of an agent. A number from :attr:`missing` was given up; ``applied`` is 0 before the first report is applied."""

    boot: uuid.UUID
    first_due: datetime
    last_due: datetime
    applied: int = 0
    stopped: bool = False
    missing: list[tuple[int, int]] = field(default_factory=list)
    macs: bytes = b""

    def mac(self, sequence: int) -> bytes | None:
        """Return the beginning of the signature of an applied report, ``None`` if it is not kept."""
        begin = len(self.macs) - (self.applied - sequence + 1) * MAC_BYTES
        return self.macs[begin : begin + MAC_BYTES] if begin >= 0 else None

    def keep_mac(self, sequence: int, mac: bytes) -> None:
        """Keep the beginning of the signature of a report that came late, if those of its time are still kept."""
        begin = len(self.macs) - (self.applied - sequence + 1) * MAC_BYTES
        if begin >= 0:
            self.macs = self.macs[:begin] + mac[:MAC_BYTES] + self.macs[begin + MAC_BYTES :]


@dataclass(slots=True)
class CycleRunRow:
    """A row of ``cycle_run``: cycles that followed each other."""

    agent_id: int
    boot: uuid.UUID
    interval: float
    first_sequence: int
    first_due: datetime
    last_due: datetime
    cycles: int
    pollsters: tuple[str, ...]

    def continues(self, due: datetime, pollsters: tuple[str, ...]) -> bool:
        """Return whether a cycle at ``due`` is the next one: no cycle between them was missed, and it is the same day."""
        return (
            pollsters == self.pollsters
            and self.last_due <= due < self.last_due + timedelta(seconds=FOLLOWING_INTERVALS * self.interval)
            and due.date() == self.first_due.date()
        )


ExceptionKey = tuple[int, str, float, str, Cause, str, bool]
"""What exceptions that can be one row have in common: agent, pollster, interval, resource, cause, reason, and ``expected``."""


@dataclass(slots=True)
class PollingExceptionRow:
    """A row of ``polling_exception``; ``id`` is ``None`` until it is stored.

    ``expected``: whether samples were expected of what it is about; otherwise it explains none that is missing.
    """

    agent_id: int
    pollster: str
    interval: float
    resource: str
    cause: Cause
    reason: str
    from_time: datetime
    until_time: datetime
    cycles: int = 1
    samples: int = 0
    id: int | None = None
    expected: bool = True

    @property
    def key(self) -> ExceptionKey:
        """What an exception that continues this one has in common with it."""
        return self.agent_id, self.pollster, self.interval, self.resource, self.cause, self.reason, self.expected

    def continues(self, before: PollingExceptionRow) -> bool:
        """Return whether this is about the next cycle of the same day after ``before``, with the same :attr:`key`."""
        tolerance = timedelta(seconds=self.interval / 2)
        return abs(self.from_time - before.until_time) <= tolerance and self.from_time.date() == before.from_time.date()


@dataclass(frozen=True, slots=True)
class Succession:
    """All that the agent ``agent_id`` measured with a pollster ends at ``at``, as another agent has listed the same after it.

    ``gone``: what that list does not have was not told of later than it, and has ceased to exist.
    """

    agent_id: int
    at: datetime
    gone: bool


@dataclass(frozen=True, slots=True)
class SeriesEdit:
    """A change of what a pollster measures, from the time ``at``; ``complete``: what ``series`` does not list has ended.

    Then ``series`` has all resources from ``listed_from`` on, and before ``listed_before`` unless that is empty.
    """

    agent_id: int
    pollster: str
    interval: float
    at: datetime
    complete: bool
    series: tuple[SeriesGroup, ...]
    removed: tuple[SeriesGroup, ...]
    listed_from: str = ""
    listed_before: str = ""
    succeeds: Succession | None = None

    @property
    def agents(self) -> set[int]:
        """The ids of the agents whose series it changes."""
        return {self.agent_id} if self.succeeds is None else {self.agent_id, self.succeeds.agent_id}

    def covers(self, resource: str) -> bool:
        """Return whether a complete list would have the series of ``resource``; texts are compared by code point."""
        return self.listed_from <= resource and (not self.listed_before or resource < self.listed_before)


@dataclass(frozen=True, slots=True)
class OffScheduleGroup:
    """Samples between cycles."""

    agent_id: int
    pollster: str
    at: datetime
    series: tuple[SeriesGroup, ...]


@dataclass(frozen=True, slots=True)
class InactiveEdit:
    """All inactive pollsters of an agent from the time ``at``."""

    agent_id: int
    at: datetime
    pollsters: tuple[InactivePollster, ...]


@dataclass(slots=True)
class CycleEffects:
    """The changes of several reports.

    ``runs`` and ``exceptions`` are loaded by the store before: the last run of each (agent, boot, interval), and the
    exceptions that may continue, by key. Those that were changed or added are in ``changed_runs`` and ``changed_exceptions``.
    ``series`` are the edits of each report. One without a pollster ends all series of its agent.
    """

    runs: dict[tuple[int, uuid.UUID, float], CycleRunRow] = field(default_factory=dict)
    exceptions: dict[ExceptionKey, PollingExceptionRow] = field(default_factory=dict)
    changed_runs: dict[tuple[int, uuid.UUID, float, int], CycleRunRow] = field(default_factory=dict)
    changed_exceptions: dict[int, PollingExceptionRow] = field(default_factory=dict)
    series: list[list[SeriesEdit]] = field(default_factory=list)
    off_schedule: list[OffScheduleGroup] = field(default_factory=list)
    inactive: list[InactiveEdit] = field(default_factory=list)

    def add_exception(self, added: PollingExceptionRow) -> None:
        """Add an exception, or extend the one that it continues."""
        before = self.exceptions.get(added.key) if added.interval else None
        if before is not None and added.continues(before):
            before.until_time = max(before.until_time, added.until_time)
            before.cycles += added.cycles
            before.samples += added.samples
        else:
            self.exceptions[added.key] = before = added
        self.changed_exceptions[id(before)] = before


@dataclass(frozen=True, slots=True)
class WaitingReport:
    """A report of a boot that waits for one with a lower number: since when, its size, and whether it lists all series."""

    sequence: int
    seconds: float
    bytes: int
    whole: bool
