"""The completeness ledger in memory: the same answers as from PostgreSQL, from the rows of the store in memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from datetime import timedelta

from meter.completeness.ledger.agent_states import AgentRow
from meter.completeness.ledger.agent_states import agent_state
from meter.completeness.ledger.answers import LedgerAnswers
from meter.completeness.ledger.answers import buckets_between
from meter.completeness.ledger.answers import for_gaps
from meter.completeness.ledger.answers import rows_of
from meter.completeness.ledger.answers import seconds_of
from meter.completeness.ledger.closing import closable
from meter.completeness.ledger.gaps import GapCollector
from meter.completeness.ledger.ledger_source import HOUR_SECONDS
from meter.completeness.ledger.ledger_source import AgentReports
from meter.completeness.ledger.ledger_source import Finality
from meter.completeness.ledger.ledger_source import InactivePollsterTime
from meter.completeness.ledger.ledger_source import MeteredPeriod
from meter.completeness.ledger.ledger_source import PollingException
from meter.completeness.ledger.ledger_source import RejectedSamples
from meter.completeness.ledger.ledger_source import SampleCounts
from meter.completeness.ledger.ledger_source import TimeBucket
from meter.completeness.ledger.timeline import CycleRun
from meter.completeness.ledger.timeline import Timeline
from meter.completeness.ledger.unmetered import unmetered
from meter.completeness.ledger.usage_audits import audited_periods
from meter.completeness_query import AuditedPeriod
from meter.completeness_query import Closable
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import Gap
from meter.completeness_query import ReportingAgent
from meter.completeness_query import Unmetered
from meter.counter_runs import interval_of
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredSample
from meter.testing.memory_completeness import FOREVER
from meter.testing.memory_completeness import MemoryCompletenessStore

FINALIZE_AFTER_SECONDS = 900.0


class MemoryLedger:
    """Answers from the rows of ``store``, and from all samples, which ``stored`` returns."""

    def __init__(self, store: MemoryCompletenessStore, stored: Callable[[], Iterable[StoredSample]]) -> None:
        self._store = store
        self._stored = stored

    async def finality(self, start: float, end: float, now: float) -> Finality:
        """Return that hours are final some time after their end."""
        due = now - FINALIZE_AFTER_SECONDS
        return Finality(due - due % HOUR_SECONDS)

    async def metered_periods(
        self, query: CompletenessQuery, start: float, end: float, after: str | None, limit: int
    ) -> Sequence[MeteredPeriod]:
        """Return what agents measure of the next resources."""
        names = self._store.agent_names
        alive = [
            period
            for period in self._metered_periods()
            if (start <= period.since < end if period.is_off_schedule else period.since < end and period.until > start)
        ]
        page = sorted(
            {
                period.resource
                for period in alive
                if (after is None or period.resource > after)
                and query.resource_id in (None, period.resource)
                and query.project_id in (None, period.project)
                and query.agent in (None, names[period.agent_id])
                and (query.meter is None or query.meter in period.meters)
            }
        )[:limit]
        found = [period for period in alive if period.resource in page]
        if query.meter is not None:
            found = [period._replace(meters=(query.meter,) if query.meter in period.meters else ()) for period in found]
        return sorted(found, key=lambda period: (period.resource, period.since, period.agent_id, period.pollster))

    def _metered_periods(self) -> Iterator[MeteredPeriod]:
        ids = {name: id_ for id_, name in self._store.agent_names.items()}
        for row in self._store.metered_resources:
            yield MeteredPeriod(
                ids[row.agent],
                row.pollster,
                row.interval,
                row.resource,
                row.project,
                row.meters,
                row.first_due.timestamp(),
                _end(row.until_due),
            )
        for off in self._store.off_schedule_polls:
            at = off.at.timestamp()
            yield MeteredPeriod(ids[off.agent], off.pollster, 0.0, off.resource, off.project, off.meters, at, at)

    async def stored_samples(
        self, query: CompletenessQuery, periods: Sequence[MeteredPeriod], buckets: Sequence[TimeBucket]
    ) -> SampleCounts:
        """Return how many samples there are; which were late is not kept in memory."""
        received = _times_by_bucket(self._stored(), buckets)
        voided = _times_by_bucket(self._store.voided_samples, buckets)
        return SampleCounts(
            received={key: len(times) for key, times in received.items()},
            times={key: (times[0], times[-1]) for key, times in received.items()},
            voided={key: len(times) for key, times in voided.items()},
        )

    async def sample_times(
        self, wanted: Sequence[tuple[str, float, float]]
    ) -> Mapping[tuple[str, str, str], Sequence[float]]:
        """Return the times of samples of polled series."""
        found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for sample in sorted(self._stored(), key=lambda sample: sample.timestamp):
            at = sample.timestamp.timestamp()
            if interval_of(sample.metadata) and any(
                resource == sample.resource_id and since <= at < until for resource, since, until in wanted
            ):
                found[sample.resource_id, sample.name, sample.project_id or ""].append(at)
        return found

    async def agents(self, ids: Collection[int], start: float, end: float) -> Mapping[int, AgentReports]:
        """Return what the agents reported."""
        found: dict[int, AgentReports] = {}
        for agent in await self._store.agents():
            id_ = next(each for each, name in self._store.agent_names.items() if name == agent.name)
            if id_ not in ids:
                continue
            stopped = {boot.boot: boot.last_due for boot in agent.boots if boot.stopped}
            runs: dict[float, list[CycleRun]] = defaultdict(list)
            for row in self._store.cycle_runs:
                if row.agent_id == id_:
                    last = row.last_due + timedelta(seconds=2 * row.interval)
                    runs[row.interval].append(
                        CycleRun(
                            row.first_due.timestamp(),
                            row.last_due.timestamp(),
                            row.cycles,
                            frozenset(row.pollsters),
                            str(row.boot),
                            row.boot in stopped and stopped[row.boot] <= last,
                        )
                    )
            found[id_] = AgentReports(
                agent.name,
                {interval: Timeline(interval, of_interval) for interval, of_interval in runs.items()},
                [
                    PollingException(
                        row.pollster,
                        row.interval,
                        row.resource,
                        row.cause,
                        row.reason,
                        row.from_time.timestamp(),
                        row.until_time.timestamp(),
                        row.expected,
                    )
                    for row in sorted(self._store.polling_exceptions, key=lambda row: row.from_time)
                    if row.agent_id == id_
                ],
                [
                    InactivePollsterTime(row.pollster, row.reason, row.since.timestamp(), _end(row.until))
                    for row in self._store.inactive_pollsters
                    if row.agent == agent.name
                ],
            )
        return found

    async def rejected(self, query: CompletenessQuery, start: float, end: float) -> Sequence[RejectedSamples]:
        """Return what was rejected."""
        return [
            RejectedSamples(hour.timestamp(), meter, resource, project, kind, samples)
            for (hour, meter, resource, project, kind), samples in sorted(self._store.rejected_samples.items())
            if start - HOUR_SECONDS < hour.timestamp() < end
        ]

    async def completeness(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[CompletenessRow]:
        """See ``ICompletenessLedger``."""
        buckets = self._buckets(query, now)
        tallies = await LedgerAnswers(self, _no_pause).tallies(query, buckets, now.timestamp()) if buckets else {}
        return rows_of(query, ((buckets[n], group, tally) for (n, group), tally in tallies.items()), limit)

    async def gaps(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[Gap]:
        """See ``ICompletenessLedger``."""
        collector, query = GapCollector(limit), for_gaps(query)
        if buckets := self._buckets(query, now):
            await LedgerAnswers(self, _no_pause).collect_gaps(query, buckets, now.timestamp(), collector)
        return collector.gaps(now.timestamp())

    def _buckets(self, query: CompletenessQuery, now: datetime) -> list[TimeBucket]:
        end = min(query.end, now).timestamp()
        return buckets_between(query.start.timestamp(), end, seconds_of(query))

    async def agent_states(self, now: datetime) -> list[ReportingAgent]:
        """See ``ICompletenessLedger``."""
        states = []
        for agent in await self._store.agents():
            if not agent.boots:
                continue
            newest = max(agent.boots, key=lambda boot: (boot.last_due, boot.first_due))
            ids = {name: id_ for id_, name in self._store.agent_names.items()}
            recent = [
                row.interval
                for row in self._store.cycle_runs
                if row.agent_id == ids[agent.name] and row.last_due > newest.last_due - timedelta(days=1)
            ]
            row = AgentRow(
                agent=agent.name,
                daemon=agent.daemon,
                host=agent.host,
                first_due=min(boot.first_due for boot in agent.boots).timestamp(),
                last_due=newest.last_due.timestamp(),
                stopped=next((boot.stopped for boot in agent.boots if boot.boot == agent.newest_boot), newest.stopped),
                interval=min(recent, default=None),
                resources=len(
                    {
                        period.resource
                        for period in self._store.metered_resources
                        if period.agent == agent.name and period.until_due == FOREVER
                    }
                ),
                waiting_reports=sum(boot.waiting for boot in agent.boots),
            )
            states.append(agent_state(row, now.timestamp()))
        return states

    async def closable(self, query: CompletenessQuery, now: datetime) -> Closable:
        """See ``ICompletenessLedger``."""
        rows = await self.completeness(replace(query, by=None, group="agent"), now, 1_000_000)
        finality = await self.finality(query.start.timestamp(), query.end.timestamp(), now.timestamp())
        return closable(query, now, rows, await self.agent_states(now), finality)


class MemoryLedgerStore(MemoryCompletenessStore):
    """A store in memory that answers questions to the ledger. Subclasses have the samples."""

    def _all_samples(self) -> Sequence[StoredSample]:
        raise NotImplementedError

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return the newest samples first."""
        raise NotImplementedError

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """Return statistics."""
        raise NotImplementedError

    @property
    def ledger(self) -> MemoryLedger:
        """The ledger of what is stored now."""
        self._check()
        return MemoryLedger(self, self._all_samples)

    async def completeness(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[CompletenessRow]:
        """Return numbers of expected and missing samples."""
        return await self.ledger.completeness(query, now, limit)

    async def completeness_gaps(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[Gap]:
        """Return gaps."""
        return await self.ledger.gaps(query, now, limit)

    async def agent_states(self, now: datetime) -> Sequence[ReportingAgent]:
        """Return all agents."""
        return await self.ledger.agent_states(now)

    async def unmetered(self) -> Sequence[Unmetered]:
        """Return what reconciliation found."""
        return await unmetered(self)

    async def audited_periods(self, start: datetime, end: datetime) -> Sequence[AuditedPeriod]:
        """Return the audit periods of Nova; see ``ICompletenessLedger.audited_periods``."""
        return await audited_periods(self, start, end)

    async def hours_not_final(self, start: datetime, end: datetime, now: datetime) -> Sequence[datetime]:
        """Return hours that should be final and are not."""
        finality = await self.ledger.finality(start.timestamp(), end.timestamp(), now.timestamp())
        return finality.overdue

    async def closable(self, query: CompletenessQuery, now: datetime) -> Closable:
        """Return whether a period may be closed."""
        return await self.ledger.closable(query, now)


def _times_by_bucket(
    samples: Iterable[StoredSample], buckets: Sequence[TimeBucket]
) -> dict[tuple[str, str, str, int], list[float]]:
    """Return the times of samples of polled series, in order, by series and bucket."""
    found: dict[tuple[str, str, str, int], list[float]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.timestamp):
        at = sample.timestamp.timestamp()
        for n, bucket in enumerate(buckets):
            if interval_of(sample.metadata) and bucket.start <= at < bucket.end:
                found[sample.resource_id, sample.name, sample.project_id or "", n].append(at)
    return found


async def _no_pause() -> None:
    """Go on at once."""


def _end(time: datetime) -> float:
    return math.inf if time == FOREVER else time.timestamp()
