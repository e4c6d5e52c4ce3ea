"""What the ledger says of samples that a spool dropped, from the reports of an agent with a real schedule and spool.

Its machine is so busy that cycles begin late, take long, and are skipped; it is killed, and it stops, with samples in its spool.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.agent import spool
from meter.agent.scheduler import AlignedSchedule
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import Gap
from meter.completeness_store import ReceivedCycle
from meter.daemon.services import sleep
from meter.interfaces import ICycle
from meter.interfaces import IDomainPollster
from meter.interfaces import Publication
from meter.message import parse_timestamp
from meter.sample import Sample
from meter.testing import MemoryStore
from tests.reporting_agent import NOON
from tests.reporting_agent import RecordingBus
from tests.reporting_agent import ReportingAgent
from tests.reporting_agent import ScriptedPollster
from tests.reporting_agent import Series
from tests.reporting_agent import sample_of

INTERVALS = {"often": 15.0, "steady": 60.0}
STEADY: list[Series] = [("p1", f"steady-{number}", "lamp.power") for number in range(3)]
SEEDS = (2, 4, 6, 9, 17)
"""Histories in which the times of dropped samples were told wrong, by counting alone."""

MESSAGE_BYTES = 2_000
"""More than a message of three samples has."""


def of(work: Any) -> Any:
    """Return the result of a coroutine that waits for nothing."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


@implementer(IDomainPollster)
@dataclass
class SlowPollster(ScriptedPollster):
    """Takes its time."""

    seconds: Any = float

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        self.also(cycle)
        await sleep(cycle.clock, min(self.seconds(), 9.0))
        return [sample_of(cycle, *each) for each in self.series]


@dataclass
class Machine:
    """Where the agent runs, life after life: ``load`` is the share of an interval by which everything may be late."""

    directory: Path
    random: Random
    load: float
    spool_messages: int = 4
    often: bool = True
    made: list[float] = field(default_factory=list)
    now: float = NOON
    bus: RecordingBus = field(default_factory=RecordingBus)
    busy: bool = False

    def __post_init__(self) -> None:
        self.start()

    def _late(self) -> float:
        return self.random.random() ** 2 * self.load * INTERVALS["steady"]

    def start(self) -> None:
        """Begin another life."""
        clock = Clock()
        clock.advance(self.now)
        steady = SlowPollster("steady", STEADY, also=self._note, seconds=self._late)
        often = SlowPollster("often", [("p1", "often", "lamp.heat")] if self.often else [], seconds=self._late)
        self.agent = ReportingAgent(
            self.directory,
            steady,
            often,
            clock=clock,
            bus=self.bus,
            boot=str(uuid.UUID(int=self.random.getrandbits(128), version=4)),
            batch_samples=100,
            max_bytes=self.spool_messages * MESSAGE_BYTES,
        )
        polling = self.agent.polling
        polling._interval_of = INTERVALS.get
        polling._put = self._put
        self.schedule = AlignedSchedule(
            self._cycle,
            INTERVALS.values(),
            clock,
            name="polling",
            on_skipped=self.agent.reports.cycles_skipped,
        )
        self.schedule.startService()
        self.agent.outbox.startService()

    async def _put(self, publications: Sequence[Publication]) -> None:
        await sleep(self.agent.clock, self._late())
        await self.agent.outbox.put(publications)

    def _note(self, cycle: ICycle) -> None:
        self.made.append(round(cycle.timestamp.timestamp(), 6))

    async def _cycle(self, due: frozenset[float]) -> None:
        self.busy = True
        await self.agent.polling.cycle([each for each in self.agent.polling.pollsters if INTERVALS[each.name] in due])
        self.busy = False

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self.now < until or self.busy:
            step = min(1.0 + self._late(), max(until - self.now, 1.0))
            self.agent.clock.advance(step)
            self.now += step

    def hang(self, seconds: float) -> None:
        """Let time pass in which the process does nothing."""
        self.agent.clock.advance(seconds)
        self.now += seconds
        self.run(1)

    def end(self, *, in_order: bool) -> None:
        """Stop, or be killed."""
        if in_order:
            of(self.agent.reports.tell(stopping=True))
        of(self.agent.spool.close())


def told(machine: Machine) -> tuple[set[float], list[Gap], Mapping[str, int]]:
    """Return the times of the stored samples of one steady resource, its gaps, and its missing samples by cause."""
    machine.bus.away = False
    machine.run(120)
    reports, messages = machine.agent.take()
    machine.end(in_order=True)
    store = MemoryStore(Clock())
    of(store.write(messages))
    received = [
        ReceivedCycle(
            each,
            uuid.UUID(each.boot),
            parse_timestamp(each.due, "due"),
            hashlib.sha256(msgspec.json.encode(each)).digest(),
        )
        for each in reports
    ]
    while received:  # in batches, of which the reports are in no order
        batch, received = received[:5], received[5:]
        machine.random.shuffle(batch)
        of(store.record_cycle_reports(batch))
    last = max(machine.made)
    query = CompletenessQuery(
        start=moment(min(machine.made)), end=moment(last + 1), meter="lamp.power", resource_id=STEADY[0][1]
    )
    stored = {each.fields["timestamp"] for each in messages if each.fields["resource_id"] == query.resource_id}
    [row] = of(store.completeness(query, moment(last + 1e6), 10))
    gaps = of(store.completeness_gaps(query, moment(last + 1e6), 1000))
    return {round(parse_timestamp(each, "timestamp").timestamp(), 6) for each in stored}, gaps, row.causes


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def differences(machine: Machine) -> list[str]:
    """Return how what is told differs from what has happened."""
    stored, gaps, causes = told(machine)
    dropped = [at for at in machine.made if at not in stored]
    half = INTERVALS["steady"] / 2
    found = []
    counted = causes.get("spool dropped", 0)
    if counted != len(dropped):
        found.append(f"{counted} dropped, in truth {len(dropped)}: {causes}")
    found += [f"{samples} {cause}" for cause, samples in causes.items() if cause in ("unknown", "poll failed")]
    for gap in gaps:
        begins, ends = gap.start.timestamp(), gap.end.timestamp() if gap.end else 1e12
        there = [at for at in dropped if begins - half <= at < ends - half]
        late = [at for at in dropped if begins - 0.001 <= at < ends - 0.001]
        if gap.cause == "spool dropped" and gap.samples not in (len(there), len(late)):
            found.append(f"{gap.start} to {gap.end} {gap.reason}: {gap.samples}, in truth {len(there)}")
        if gap.cause != "spool dropped" and there and late:
            found.append(f"{gap.start} to {gap.end} {gap.cause}: {len(there)} were dropped")
    return found


def simulate(directory: Path, seed: int) -> Machine:
    """Random outages of the bus, stops and kills."""
    random = Random(seed)
    machine = Machine(
        directory,
        random,
        load=random.choice([0.0, 0.02, 0.1, 0.2]),
        spool_messages=random.randint(2, 6),
        often=random.random() < 0.5,
    )
    machine.run(300)
    for _ in range(random.randint(1, 3)):
        machine.bus.away = True
        machine.run(random.randint(100, 900))
        if random.random() < 0.3:
            machine.hang(random.randint(70, 300))
        if random.random() < 0.6:
            machine.end(in_order=random.random() < 0.5)
            machine.now += random.choice([0.0, 40.0, 400.0])
            machine.start()
            machine.run(random.randint(10, 400))
        machine.bus.away = random.random() < 0.3
        machine.run(random.randint(100, 600))
    return machine


@pytest.mark.parametrize("seed", SEEDS)
def test_dropped_samples_are_missing_at_their_times(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: Any
) -> None:
    monkeypatch.setattr(spool, "SHARE_OF_REPORTS", 100.0)  # reports are not dropped
    assert differences(simulate(tmp_path, seed)) == []
    assert logged_errors.flush()
