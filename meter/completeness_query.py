"""Questions to the completeness ledger, and its answers: what was expected, what is stored, what is missing and why.

:class:`ICompletenessLedger` is what a store provides. docs/completeness.rst says what each number means.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Literal

from zope.interface import Interface

Resolution = Literal["hour", "day"]
GroupField = Literal["agent", "project_id", "meter", "resource_id"]

FOLLOWING_INTERVALS = 1.5
"""Two cycles less than this many intervals apart follow each other: none is missing between them."""

SILENT_INTERVALS = 2.5
"""An agent is silent if no cycle of it is reported for so many of its shortest polling intervals."""

NO_PROJECT = ""
"""The project of resources that have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletenessQuery:
    """The expected samples from ``start`` until before ``end``, of one project, resource, meter or agent, or of all.

    ``by``: a row for each hour or day, in UTC; without it, one row covers the period. ``group``: a row for each value of the
    field, or only for those in ``groups``. ``project_id`` is :data:`NO_PROJECT` for resources without a project, ``None`` for all
    resources.
    """

    start: datetime
    end: datetime
    project_id: str | None = None
    resource_id: str | None = None
    meter: str | None = None
    agent: str | None = None
    by: Resolution | None = None
    group: GroupField | None = None
    groups: tuple[str, ...] | None = None

    def has_row_of(self, group: str | None) -> bool:
        """Return whether the answer has rows of this value of the field ``group``."""
        return self.groups is None or group in self.groups


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletenessRow:
    """The numbers of samples from ``start`` until before ``end``; ``expected`` is ``received`` plus ``missing``.

    ``received`` are expected samples that are stored; ``late`` of all stored ones were recorded late. ``unexpected`` samples are stored
    beyond what was expected. ``causes`` has the missing samples by cause (:mod:`meter.completeness.ledger.causes`), ``skipped``
    those with the cause *skipped* by the reason that the agent stated.
    """

    start: datetime
    end: datetime
    group: str | None = None
    expected: int = 0
    received: int = 0
    unexpected: int = 0
    late: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """The number of expected samples that are not stored, whatever the cause."""
        return sum(self.causes.values())

    @property
    def percent(self) -> float | None:
        """The percentage of expected samples that are stored, rounded down to 4 decimals.

        It is ``None`` where nothing was expected, and 100 only if nothing is missing.
        """
        return self.received * 1_000_000 // self.expected / 10_000 if self.expected else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Consecutive samples that are missing for one cause, from ``start`` until before ``end``.

    ``end`` is ``None`` while it lasts. ``resources`` has the first ids in order, ``resource_count`` their number, ``samples`` the
    number of missing samples. ``exact``: the times are those of polls; else they are the limits of an hour or day.
    """

    start: datetime
    end: datetime | None
    cause: str
    reason: str
    agent: str | None
    pollster: str | None
    resources: tuple[str, ...]
    resource_count: int
    samples: int
    exact: bool


AgentCondition = Literal["running", "silent", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingAgent:
    """An agent that has sent cycle reports. ``last_due`` is the time of the last reported cycle, ``first_due`` that of the first.

    ``silent_since`` is when the first cycle was due that is not reported, ``None`` while the agent is running. ``resources`` is how many
    resources it measures, as far as it is known. ``waiting_reports`` have arrived before one with a lower number.
    """

    agent: str
    daemon: str
    host: str
    state: AgentCondition
    first_due: datetime
    last_due: datetime
    silent_since: datetime | None
    interval_seconds: float | None
    resources: int
    waiting_reports: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmetered:
    """What the last reconciliation of a kind of resource found: at ``at``, so many are listed and not metered, and metered and not listed."""

    kind: str
    at: datetime
    not_metered: int
    not_metered_ids: tuple[str, ...]
    not_listed: int
    not_listed_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedPeriod:
    """An audit period of Nova: the notifications that were sent as its log says, and those that have arrived.

    ``hosts_not_run`` of ``hosts`` sent none: what they should have sent is unknown.
    """

    start: datetime
    end: datetime
    hosts: int
    hosts_not_run: int
    errors: int
    sent: int
    arrived: int

    @property
    def missing(self) -> int:
        """How many notifications were sent and have not arrived."""
        return max(0, self.sent - self.arrived)


ReasonCode = Literal[
    "period not over",
    "hours not finalized",
    "samples missing",
    "agent silent",
    "reports outstanding",
    "nothing expected",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingReason:
    """A reason why a period may not be closed. ``cause`` and ``samples`` are those of missing samples."""

    code: ReasonCode
    text: str
    cause: str | None = None
    samples: int = 0
    agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closable:
    """Whether the period may be closed: only if there are no ``reasons`` against it."""

    start: datetime
    end: datetime
    reasons: Sequence[ClosingReason]

    @property
    def closable(self) -> bool:
        """Whether nothing speaks against closing the period."""
        return not self.reasons


class ICompletenessLedger(Interface):
    """The ledger of a store. Methods raise ``Unavailable`` and ``RequestError`` as those of ``IStore`` do."""

    async def completeness(query: CompletenessQuery, now: datetime, limit: int) -> Sequence[CompletenessRow]:
        """Return the first ``limit`` rows by start and group; nothing is expected after ``now``."""

    async def completeness_gaps(query: CompletenessQuery, now: datetime, limit: int) -> Sequence[Gap]:
        """Return the first ``limit`` gaps by start; ``by`` and ``group`` of the query do not matter."""

    async def agent_states(now: datetime) -> Sequence[ReportingAgent]:
        """Return all agents that have sent cycle reports, by name."""

    async def unmetered() -> Sequence[Unmetered]:
        """Return what the last reconciliation of each kind of resource found."""

    async def audited_periods(start: datetime, end: datetime) -> Sequence[AuditedPeriod]:
        """Return the audit periods of Nova that ended from ``start`` until before ``end``, the newest first, at most 100."""

    async def hours_not_final(start: datetime, end: datetime, now: datetime) -> Sequence[datetime]:
        """Return hours from ``start`` until before ``end`` that have samples and should be final and are not, the oldest ones."""

    async def closable(query: CompletenessQuery, now: datetime) -> Closable:
        """Return whether the period of ``query`` may be closed, for its project or for all."""
