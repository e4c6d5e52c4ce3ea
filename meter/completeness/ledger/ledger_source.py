"""What the ledger reads from a store: what agents measure, which cycles they reported, why samples were not made, and which are stored.

Times are seconds since 1970. A *bucket* is a part of the period of a query: an hour, a day, or what of it lies in the period.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from typing import NamedTuple
from typing import Protocol

from meter.completeness.ledger.causes import Cause
from meter.completeness.ledger.timeline import Timeline
from meter.completeness_query import CompletenessQuery
from meter.cycle_report import REPORTS_LOST

HOUR_SECONDS = 3600.0
DAY_SECONDS = 86400.0


class TimeBucket(NamedTuple):
    """A part of the period of a query."""

    start: float
    end: float


class MeteredPeriod(NamedTuple):
    """One agent measures each of ``meters`` of a resource in each cycle, from ``since`` until before ``until``.

    Where ``until`` equals ``since``, it measured them once, at this time, between its cycles.
    """

    agent_id: int
    pollster: str
    interval: float
    resource: str
    project: str
    meters: tuple[str, ...]
    since: float
    until: float

    @property
    def is_off_schedule(self) -> bool:
        """Whether this is one measurement between cycles."""
        return self.since == self.until


class PollingException(NamedTuple):
    """Why samples were not made or were lost, from ``start`` until before ``end``. ``""`` stands for all, an interval of 0 for any.

    One that is not about ``expected`` samples explains none that is missing.
    """

    pollster: str
    interval: float
    resource: str
    cause: Cause
    reason: str
    start: float
    end: float
    expected: bool = True

    def covers(self, period: MeteredPeriod, at: float) -> bool:
        """Return whether this is why ``period`` has no sample of the cycle that was due ``at``.

        What is said of cycles lasts until one interval after the last of them; of a cycle that began a little early or late the
        nearest time is meant.
        """
        tolerance = 0.0 if self.pollster else self.interval / 2
        return self.concerns(period) and (self.start - tolerance <= at < self.end - tolerance or at == self.start)

    @property
    def is_skipped_cycle(self) -> bool:
        """Whether cycles did not take place, rather than polls of some pollster."""
        return self.cause == "skipped" and not self.pollster

    @property
    def is_drop(self) -> bool:
        """Whether the spool dropped samples, of whichever pollsters: only the times are known at which they were spooled."""
        return self.cause == "spool dropped" and not self.pollster and not self.reason.startswith(REPORTS_LOST)

    @property
    def may_concern_missed_cycles(self) -> bool:
        """Whether this may be about cycles without a report. Samples that were dropped have been made, by cycles with reports."""
        return not self.pollster and not self.is_drop

    def may_cover(self, period: MeteredPeriod, at: float) -> bool:
        """Return whether this may be why: samples are spooled, and dropped, some time after their cycle was due."""
        begins, ends = self.may_begin(period.interval), self.may_end(period.interval)
        return self.is_drop and begins < at < ends and self.concerns(period)

    def may_begin(self, interval: float) -> float:
        """Return a time before the first cycle of which samples may have been dropped: a busy agent spools them late."""
        return self.start - interval

    def may_end(self, interval: float) -> float:
        """Return a time after the last cycle of which samples may have been dropped: it is computed, not exact."""
        return self.end + interval / 2

    def concerns(self, period: MeteredPeriod) -> bool:
        """Return whether this is about the pollster, the interval and the resource of ``period``."""
        return (
            self.expected
            and self.pollster in ("", period.pollster)
            and self.resource in ("", period.resource)
            and self.interval in (0.0, period.interval)
        )


class InactivePollsterTime(NamedTuple):
    """A pollster was not active on an agent, for ``reason``."""

    pollster: str
    reason: str
    start: float
    end: float


class RejectedSamples(NamedTuple):
    """Samples of one hour that the collector rejected; texts may be empty where the message did not state them."""

    start: float
    meter: str
    resource: str
    project: str
    kind: str
    samples: int


@dataclass(slots=True)
class AgentReports:
    """What an agent named ``agent_name`` reported: a timeline for each interval, and what was not as usual."""

    agent_name: str
    timelines: dict[float, Timeline] = field(default_factory=dict)
    exceptions: list[PollingException] = field(default_factory=list)
    inactive: list[InactivePollsterTime] = field(default_factory=list)


SeriesBucket = tuple[str, str, str, int]
"""Resource, meter, project and the index of a bucket."""


@dataclass(slots=True)
class SampleCounts:
    """How many samples of some resources are stored, of polled series alone, how many of these were recorded late, and how many are voided."""

    received: Mapping[SeriesBucket, int] = field(default_factory=dict)
    times: Mapping[SeriesBucket, tuple[float, float]] = field(default_factory=dict)
    """The times of the first and the last sample."""
    late: Mapping[SeriesBucket, int] = field(default_factory=dict)
    voided: Mapping[SeriesBucket, int] = field(default_factory=dict)
    unreported: Mapping[tuple[str, str, str], Sequence[float]] | None = None
    """The times of samples by resource, meter and project, where processes that were killed may have measured without a report.

    ``None`` if they were not looked for.
    """
    near_drops: Mapping[tuple[str, str, str], Sequence[float]] = field(default_factory=dict)
    """The times of samples by resource, meter and project, about when samples were dropped: in ``drop_times``."""
    drop_times: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """About when samples of a resource may have been dropped, as far as it was looked up which are stored."""


@dataclass(slots=True)
class Finality:
    """Which hours are not final, so that samples may still arrive, and which have expired.

    ``open_from``: hours that begin at this time or later are not final, nor are ``open_hours``. Samples before ``expired_before``
    (by meter; '' is all meters) have been deleted, and their rollups too unless the hour is one of ``kept_hours``.
    """

    open_from: float
    open_hours: frozenset[float] = frozenset()
    expired_before: Mapping[str, float] = field(default_factory=dict)
    kept_hours: frozenset[float] = frozenset()

    @property
    def overdue(self) -> list[datetime]:
        """The hours that should be final and are not, oldest first."""
        return [datetime.fromtimestamp(hour, UTC) for hour in sorted(self.open_hours)]

    def is_open(self, at: float) -> bool:
        """Return whether the hour of ``at`` is not final."""
        hour = at - at % HOUR_SECONDS
        return hour >= self.open_from or hour in self.open_hours

    def is_expired(self, meter: str, at: float) -> bool:
        """Return whether neither samples nor rollups of the hour of ``at`` are retained."""
        return self.has_no_samples(meter, at) and at - at % HOUR_SECONDS not in self.kept_hours

    def has_no_samples(self, meter: str, at: float) -> bool:
        """Return whether samples of the time ``at`` are not retained, although their rollups may be."""
        return at < max(self.expired_before.get(meter, -1.0), self.expired_before.get("", -1.0))


class ILedgerSource(Protocol):
    """Reads the facts of the resources that a query selects, a page of resources at a time."""

    async def finality(self, start: float, end: float, now: float) -> Finality:
        """Return which hours from ``start`` until before ``end`` are final."""

    async def metered_periods(
        self, query: CompletenessQuery, start: float, end: float, after: str | None, limit: int
    ) -> Sequence[MeteredPeriod]:
        """Return what agents measure of at most ``limit`` resources with an id after ``after``, in their order."""

    async def stored_samples(
        self, query: CompletenessQuery, periods: Sequence[MeteredPeriod], buckets: Sequence[TimeBucket]
    ) -> SampleCounts:
        """Return what is stored of the resources of ``periods`` in the ``buckets``, which are in order and follow each other."""

    async def sample_times(
        self, wanted: Sequence[tuple[str, float, float]]
    ) -> Mapping[tuple[str, str, str], Sequence[float]]:
        """Return the times, in order, of the samples of polled series of resources, each from a time until before another.

        They are returned by resource, meter and project. Those of samples that have been deleted are not.
        """

    async def agents(self, ids: Collection[int], start: float, end: float) -> Mapping[int, AgentReports]:
        """Return what the agents reported, with the runs before and after the time from ``start`` to ``end``."""

    async def rejected(self, query: CompletenessQuery, start: float, end: float) -> Sequence[RejectedSamples]:
        """Return what the collector rejected."""


def at(seconds: float) -> datetime:
    """Return the time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def by_series(rejected: Iterable[RejectedSamples]) -> dict[tuple[str, str], list[RejectedSamples]]:
    """Return ``rejected`` by resource and meter."""
    found: dict[tuple[str, str], list[RejectedSamples]] = defaultdict(list)
    for each in rejected:
        found[each.resource, each.meter].append(each)
    return found
