"""The completeness ledger in memory: the rows of its tables as lists, and the same answers as from PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import datetime

from meter.completeness.agent_states import AgentRow
from meter.completeness.agent_states import agent_state
from meter.completeness.answers import LedgerAnswers
from meter.completeness.answers import pieces_between
from meter.completeness.answers import rows_of
from meter.completeness.answers import seconds_of
from meter.completeness.closing import closable
from meter.completeness.facts import HOUR_SECONDS
from meter.completeness.facts import AgentFacts
from meter.completeness.facts import Finality
from meter.completeness.facts import InactivePollsterTime
from meter.completeness.facts import MeteredPart
from meter.completeness.facts import Piece
from meter.completeness.facts import PollingException
from meter.completeness.facts import RejectedSamples
from meter.completeness.facts import ResourceFacts
from meter.completeness.gaps import GapCollector
from meter.completeness.timeline import CycleRun
from meter.completeness.timeline import Timeline
from meter.completeness_query import AgentState
from meter.completeness_query import Closable
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import Gap
from meter.counter_runs import interval_of
from meter.query import StoredSample

FINALIZE_AFTER_SECONDS = 900.0


@dataclass(slots=True)
class ReportedAgent:
    """What an agent reported. ``runs`` are by interval; the last boot ``stopped`` in an orderly way, or not."""

    name: str
    daemon: str
    host: str
    runs: dict[float, list[CycleRun]] = field(default_factory=dict)
    exceptions: list[PollingException] = field(default_factory=list)
    inactive: list[InactivePollsterTime] = field(default_factory=list)
    stopped: bool = False
    waiting_reports: int = 0


class MemoryLedger:
    """Facts as lists, which tests fill; an id of an agent is the place in ``agents_by_id``. ``stored`` returns all samples."""

    def __init__(self, stored: Callable[[], Iterable[StoredSample]]) -> None:
        self._stored = stored
        self.agents_by_id: dict[int, ReportedAgent] = {}
        self.metered: list[MeteredPart] = []
        self.rejections: list[RejectedSamples] = []
        self.late: list[tuple[float, str, str, str, int]] = []
        """Start of the hour, resource, meter, project and number."""

    async def finality(self, start: float, end: float, now: float) -> Finality:
        """Return that hours are final some time after their end."""
        due = now - FINALIZE_AFTER_SECONDS
        return Finality(due - due % HOUR_SECONDS)

    async def parts(
        self, query: CompletenessQuery, start: float, end: float, after: str | None, limit: int
    ) -> Sequence[MeteredPart]:
        """Return what agents measure of the next resources."""
        alive = [
            part
            for part in self.metered
            if (start <= part.since < end if part.is_off_schedule else part.since < end and part.until > start)
        ]
        page = sorted(
            {
                part.resource
                for part in alive
                if (after is None or part.resource > after)
                and query.resource_id in (None, part.resource)
                and query.project_id in (None, part.project)
                and query.agent in (None, self.agents_by_id[part.agent_id].name)
                and (query.meter is None or query.meter in part.meters)
            }
        )[:limit]
        found = [part for part in alive if part.resource in page]
        if query.meter is not None:
            found = [part._replace(meters=(query.meter,) if query.meter in part.meters else ()) for part in found]
        return sorted(found, key=lambda part: (part.resource, part.since, part.agent_id, part.pollster))

    async def resource_facts(
        self, query: CompletenessQuery, parts: Sequence[MeteredPart], pieces: Sequence[Piece]
    ) -> ResourceFacts:
        """Return how many samples there are."""
        received: dict[tuple[str, str, str, int], int] = defaultdict(int)
        late: dict[tuple[str, str, str, int], int] = defaultdict(int)
        for sample in self._stored():
            if interval_of(sample.metadata):
                for n, piece in enumerate(pieces):
                    if piece.start <= sample.timestamp.timestamp() < piece.end:
                        received[sample.resource_id, sample.name, sample.project_id or "", n] += 1
        for start, resource, meter, project, count in self.late:
            for n, piece in enumerate(pieces):
                if piece.start <= start < piece.end:
                    late[resource, meter, project, n] += count
        return ResourceFacts(received, late)

    async def agents(self, ids: Collection[int], start: float, end: float) -> Mapping[int, AgentFacts]:
        """Return what the agents reported."""
        return {
            id_: AgentFacts(
                agent.name,
                {interval: Timeline(interval, runs) for interval, runs in agent.runs.items()},
                sorted(agent.exceptions, key=lambda each: each.start),
                sorted(agent.inactive, key=lambda each: each.start),
            )
            for id_, agent in self.agents_by_id.items()
            if id_ in ids
        }

    async def rejected(self, query: CompletenessQuery, start: float, end: float) -> Sequence[RejectedSamples]:
        """Return what was rejected."""
        return [each for each in self.rejections if start - HOUR_SECONDS < each.start < end]

    async def completeness(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[CompletenessRow]:
        """See ``ICompletenessLedger``."""
        pieces = self._pieces(query, now)
        tallies = await LedgerAnswers(self, _no_pause).tallies(query, pieces, now.timestamp()) if pieces else {}
        return rows_of(query, ((pieces[n], group, tally) for (n, group), tally in tallies.items()), limit)

    async def gaps(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[Gap]:
        """See ``ICompletenessLedger``."""
        collector = GapCollector(limit)
        if pieces := self._pieces(query, now):
            await LedgerAnswers(self, _no_pause).collect_gaps(query, pieces, now.timestamp(), collector)
        return collector.gaps(now.timestamp())

    def _pieces(self, query: CompletenessQuery, now: datetime) -> list[Piece]:
        end = min(query.end, now).timestamp()
        return pieces_between(query.start.timestamp(), end, seconds_of(query))

    def agent_states(self, now: datetime) -> list[AgentState]:
        """See ``ICompletenessLedger``."""
        states = []
        for id_, agent in sorted(self.agents_by_id.items(), key=lambda item: item[1].name):
            runs = [run for of_interval in agent.runs.values() for run in of_interval]
            last = max(run.last for run in runs)
            recent = [interval for interval, some in agent.runs.items() if max(some).last > last - 86400]
            row = AgentRow(
                agent=agent.name,
                daemon=agent.daemon,
                host=agent.host,
                first_due=min(run.first for run in runs),
                last_due=last,
                stopped=agent.stopped,
                interval=min(recent),
                resources=len(
                    {part.resource for part in self.metered if part.agent_id == id_ and part.until == float("inf")}
                ),
                waiting_reports=agent.waiting_reports,
            )
            states.append(agent_state(row, now.timestamp()))
        return states

    async def closable(self, query: CompletenessQuery, now: datetime) -> Closable:
        """See ``ICompletenessLedger``."""
        rows = await self.completeness(replace(query, by=None, group="agent"), now, 1_000_000)
        finality = await self.finality(query.start.timestamp(), query.end.timestamp(), now.timestamp())
        return closable(query, now, rows, self.agent_states(now), finality)


async def _no_pause() -> None:
    """Go on at once."""
