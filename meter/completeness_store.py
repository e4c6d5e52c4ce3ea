"""The interface of the store for the completeness ledger: what daemons report about their own work, and who they are.

The rows that reports are made into, and the questions of the ledger, are described in docs/completeness-agents.rst.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from typing import Literal

import msgspec
from zope.interface import Interface

from meter.cycle_report import CycleReport
from meter.cycle_report import SucceededListing
from meter.heartbeat import Heartbeat
from meter.message import BadMessage
from meter.message import parse_timestamp

ReportOutcome = Literal["applied", "repeated", "waiting", "late", "conflict", "refused"]
"""What became of a report.

*repeated*: it was applied before. *waiting*: it is stored until one with a lower number comes. *late*: it came after its number
was given up; its cycle counts, but not its changes of series. *conflict*: another report has its number. *refused*: the database cannot store it. Neither has any effect.
"""

MAX_NAME_BYTES = 255
"""Maximum length of names of agents, daemons, hosts, pollsters and meters in a report, in bytes of UTF-8."""

MAX_RESOURCE_BYTES = 1000
"""Maximum length of the id of a resource or project in a report, in bytes of UTF-8."""

MAX_INTERVAL_SECONDS = 31 * 86400.0

MAX_COUNT = 10**12
"""Largest number of samples or cycles in a report."""

MAX_SEQUENCE = 2**62

MAX_EARLIER_BOOTS = 32
"""Boots of a daemon that are remembered after the one whose heartbeat is kept: their heartbeats are ignored."""

MAX_REJECTED_ROWS = 2_000
"""Numbers of dead-lettered samples of one hour that are kept apart by meter, resource and project; the others are lumped together.

There may be as many again of the kind ``unverified``: whoever publishes those cannot crowd out the numbers of others.
"""

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_OFFSET = re.compile(r"(?:[+-]\d\d:?\d\d|[+-]\d\d)$")


@dataclass(frozen=True, slots=True)
class ReportResult:
    """What became of a report, and why, where that is not plain."""

    outcome: ReportOutcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReceivedCycle:
    """A valid cycle report, its boot and time of the cycle, and the signature that identifies it."""

    report: CycleReport
    boot: uuid.UUID
    due: datetime
    mac: bytes

    @property
    def whole(self) -> bool:
        """Whether a poll in it lists all its series, or the last of them."""
        return any(poll.completes for poll in self.report.polls)

    @property
    def predecessors(self) -> Mapping[str, datetime]:
        """The other agents whose lists it succeeds, and the due time of the last poll of each."""
        found: dict[str, datetime] = {}
        for poll in self.report.polls:
            if poll.succeeds is not None and poll.succeeds.agent != self.report.agent:
                due = utc_time(poll.succeeds.due, "due")
                found[poll.succeeds.agent] = max(due, found.get(poll.succeeds.agent, due))
        return found


@dataclass(frozen=True, slots=True)
class ReceivedHeartbeat:
    """A valid heartbeat, its boot, and the time of its daemon's clock."""

    heartbeat: Heartbeat
    boot: uuid.UUID
    clock: datetime


@dataclass(frozen=True, slots=True)
class StoredBoot:
    """A life of an agent's process: the times of its first and last reported cycle, and the number of its last report.

    ``missing`` are the first and last numbers of reports that never came. ``waiting`` is the number of reports that wait for
    one with a lower number.
    """

    boot: uuid.UUID
    first_due: datetime
    last_due: datetime
    applied: int
    stopped: bool
    missing: tuple[tuple[int, int], ...] = ()
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class StoredAgent:
    """An agent and its boots, by the time of their first cycles; ``last_due`` is ``None`` before its first report is applied."""

    name: str
    daemon: str
    host: str
    last_due: datetime | None
    newest_boot: uuid.UUID | None
    boots: tuple[StoredBoot, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredHeartbeat:
    """The last heartbeat of a daemon, and the time of the store when it arrived."""

    heartbeat: Heartbeat
    clock: datetime
    received_at: datetime

    @property
    def ahead_seconds(self) -> float:
        """How far the clock of the daemon is ahead of that of the store; negative, also by what the message took, if behind."""
        return (self.clock - self.received_at).total_seconds()


@dataclass(frozen=True, slots=True)
class RejectedCount:
    """Samples of one meter, resource and project that were dead-lettered: how many, in the hour that begins at ``start``."""

    start: datetime
    kind: str
    meter: str = ""
    resource: str = ""
    project: str = ""
    samples: int = 1


@dataclass(frozen=True, slots=True)
class WaitingRules:
    """How long a report waits for one with a lower number.

    After ``seconds`` the lower numbers are given up if a waiting report lists all series, after ``max_seconds`` in any case, and
    at once if ``max_reports`` of a boot wait, or reports with ``max_bytes``.
    """

    seconds: float = 600.0
    max_seconds: float = 7200.0
    max_reports: int = 1000
    max_bytes: int = 64 * 1024 * 1024


def waiting_rules(seconds: float) -> WaitingRules:
    """Return the rules with ``seconds``, which may be longer than the default of the longest wait."""
    return WaitingRules(seconds=seconds, max_seconds=max(seconds, WaitingRules().max_seconds))


class ICompletenessStore(Interface):
    """The part of the data store that keeps what daemons report. :class:`~meter.interfaces.IStore` says what all methods raise."""

    async def record_cycle_reports(reports: Sequence[ReceivedCycle]) -> Sequence[ReportResult]:
        """Commit cycle reports; return what became of each.

        The reports of a boot are applied in the order of their numbers, in whatever order they come; one that is repeated
        has no effect. Not more than some hundred at once.
        """

    async def record_heartbeats(heartbeats: Sequence[ReceivedHeartbeat]) -> Sequence[ReportResult]:
        """Keep each heartbeat as the last one of its daemon, unless it has a lower number than the one of the same boot that is kept."""

    async def record_rejected_samples(counts: Sequence[RejectedCount]) -> None:
        """Add to the numbers of dead-lettered samples."""

    async def apply_waiting_reports() -> int:
        """Apply reports that have waited long enough for others that did not come; return how many were applied."""

    async def agents(names: Collection[str] | None = None) -> Sequence[StoredAgent]:
        """Return all agents, or those with these names, by name."""

    async def heartbeats() -> Sequence[StoredHeartbeat]:
        """Return the last heartbeat of each daemon, by name."""


# --- validation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReportLimits:
    """Times that a report may have: at most ``max_ahead_seconds`` in the future, and not before ``oldest``."""

    now: datetime
    max_ahead_seconds: float = 3600.0
    oldest: datetime = field(default=datetime.min.replace(tzinfo=UTC))

    def check(self, time: datetime, label: str) -> None:
        """Raise :class:`~meter.message.BadMessage` for a time beyond the limits."""
        ahead = (time - self.now).total_seconds()
        if ahead > self.max_ahead_seconds:
            raise BadMessage(f"{label} is {ahead:.0f} s in the future; the limit is {self.max_ahead_seconds:g} s")
        if time < self.oldest:
            raise BadMessage(f"{label} is before {self.oldest.isoformat()}: what is older has been deleted")


def received_cycle(report: CycleReport, mac: bytes, limits: ReportLimits) -> ReceivedCycle:
    """Return a cycle report after checks of all its values; raises :class:`~meter.message.BadMessage`."""
    _check_texts(report)
    _check_agent(report.agent, report.daemon, report.host)
    due = utc_time(report.due, "due")
    limits.check(due, "due")
    _check_range(report.sequence, "sequence", 1, MAX_SEQUENCE)
    names = [poll.pollster for poll in report.polls]
    if len(names) != len(set(names)):
        raise BadMessage("a pollster is reported twice")
    for poll in report.polls:
        _check_name(poll.pollster, "pollster")
        _check_range(poll.interval_seconds, "interval_seconds", 0.001, MAX_INTERVAL_SECONDS)
        _check_range(poll.samples, "samples", 0, MAX_COUNT)
        _check_groups(poll.series)
        _check_groups(poll.removed)
        if poll.succeeds is not None:
            _check_succeeded(report, poll.succeeds)
        for skip in poll.skipped:
            _check_range(skip.samples, "samples", 0, MAX_COUNT)
            _check_resources(skip.resources)
    for off in report.off_schedule:
        _check_name(off.pollster, "pollster")
        limits.check(utc_time(off.at, "at"), "at")
        _check_groups(off.series)
    for dropped in report.dropped:
        _check_range(dropped.samples, "samples", 0, MAX_COUNT)
        _check_period(dropped.first, dropped.last, limits)
    for skipped in report.skipped_cycles:
        _check_range(skipped.interval_seconds, "interval_seconds", 0.001, MAX_INTERVAL_SECONDS)
        _check_range(skipped.cycles, "cycles", 1, MAX_COUNT)
        _check_period(skipped.first, skipped.last, limits)
    for inactive in report.inactive:
        _check_name(inactive.pollster, "pollster")
    if report.confirmed is not None:
        _boot(report.confirmed.boot)
        _check_range(report.confirmed.sequence, "sequence", 0, MAX_SEQUENCE)
    return ReceivedCycle(report, _boot(report.boot), due, mac)


def received_heartbeat(heartbeat: Heartbeat, limits: ReportLimits) -> ReceivedHeartbeat:
    """Return a heartbeat after checks of its values; raises :class:`~meter.message.BadMessage`.

    Its clock may be wrong: that it differs is what a heartbeat shows.
    """
    _check_texts(heartbeat)
    _check_agent(heartbeat.name, heartbeat.daemon, heartbeat.host)
    _check_range(heartbeat.sequence, "sequence", 1, MAX_SEQUENCE)
    return ReceivedHeartbeat(heartbeat, _boot(heartbeat.boot), utc_time(heartbeat.clock, "clock"))


def utc_time(text: str, label: str) -> datetime:
    """Return a time in UTC; raises :class:`~meter.message.BadMessage` for a time with an offset other than ``Z`` or zero."""
    time = parse_timestamp(text, label)
    offset = _OFFSET.search(text[10:])
    if offset is not None and set(offset[0]) - set("+-:0"):
        raise BadMessage(f"{label} must be in UTC, not {text!r}")
    return time


def _check_texts(report: msgspec.Struct) -> None:
    """Refuse what no text of PostgreSQL can have."""
    try:
        if _NUL.search(msgspec.json.encode(report)):
            raise BadMessage("a text has a NUL character")
    except UnicodeEncodeError as error:
        raise BadMessage(f"a text has half of a surrogate pair: {error.reason}") from error


def _check_agent(name: str, daemon: str, host: str) -> None:
    _check_name(daemon, "daemon")
    _check_name(host, "host")
    if name != f"{daemon}@{host}":
        raise BadMessage(f"the name must be daemon@host, {daemon}@{host}, not {name!r:.300}")


def _check_succeeded(report: CycleReport, succeeds: SucceededListing) -> None:
    daemon, _, host = succeeds.agent.partition("@")
    _check_agent(succeeds.agent, daemon, host)
    if daemon != report.daemon:
        raise BadMessage(f"{report.agent} cannot succeed {succeeds.agent}, which is another daemon")
    utc_time(succeeds.due, "due")


def _check_groups(groups: Sequence[object]) -> None:
    for group in groups:
        meters, resources = getattr(group, "meters", ()), getattr(group, "resources", ())
        project = getattr(group, "project", None)
        for meter in meters:
            _check_name(meter, "meter")
        _check_resources(resources)
        if project is not None:
            _check_resources([project])


def _check_resources(ids: Sequence[str]) -> None:
    for id in ids:
        if len(id) * 4 > MAX_RESOURCE_BYTES and len(id.encode()) > MAX_RESOURCE_BYTES:
            raise BadMessage(f"the id {id:.80} is longer than {MAX_RESOURCE_BYTES} bytes")


def _check_name(name: str, label: str) -> None:
    if not name or (len(name) * 4 > MAX_NAME_BYTES and len(name.encode()) > MAX_NAME_BYTES):
        raise BadMessage(f"{label} must have from 1 to {MAX_NAME_BYTES} bytes, not {name!r:.80}")


def _check_range(value: float, label: str, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BadMessage(f"{label} must be from {least:g} to {most:g}, not {value!r:.40}")


def _check_period(first: str, last: str, limits: ReportLimits) -> None:
    from_time, until_time = utc_time(first, "first"), utc_time(last, "last")
    limits.check(until_time, "last")
    if until_time < from_time:
        raise BadMessage(f"last must not be before first: {last} and {first}")


def _boot(text: str) -> uuid.UUID:
    try:
        boot = uuid.UUID(text)
    except ValueError:
        raise BadMessage(f"boot must be a UUID, not {text!r:.80}") from None
    if str(boot) != text.lower():
        raise BadMessage(f"boot must be a UUID like {boot}, not {text!r:.80}")
    return boot
