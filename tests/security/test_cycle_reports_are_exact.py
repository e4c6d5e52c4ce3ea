"""What cycle reports state is what was measured, sample by sample, whatever happens to the agent, its disk and the bus.

Random lives of an agent: its pollster measures other series from cycle to cycle, fails, and skips resources; domains have events;
the bus is away, so that the spool drops samples; the disk is full; the agent is killed and started again, and stands by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import note
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meter.agent import polling
from meter.cycle_report import CycleReport
from meter.interfaces import IDomainPollster
from meter.interfaces import Unavailable
from meter.message import MeteringMessage
from meter.sample import utc_text
from meter.skipped_samples import ISkippedSamples
from tests.hygiene import LoggedErrors
from tests.reporting_agent import INTERVAL
from tests.reporting_agent import NOON
from tests.reporting_agent import Reconstruction
from tests.reporting_agent import RecordingBus
from tests.reporting_agent import ReportingAgent
from tests.reporting_agent import ScriptedPollster
from tests.reporting_agent import Series
from tests.reporting_agent import series_of

RESOURCES = ("hall", "attic", "loft", "shed")
UNIVERSE: list[Series] = [
    (project, resource, meter)
    for project, resource in (("acme", "hall"), ("acme", "attic"), ("other", "loft"), (None, "shed"))
    for meter in ("lamp.power", "lamp.heat")
]

CYCLE = st.tuples(
    st.just("cycle"),
    st.sets(st.sampled_from(UNIVERSE)),
    st.booleans(),  # fails after these samples
    st.sets(st.sampled_from(RESOURCES), max_size=2),  # skipped
)
OTHERS = st.sampled_from(
    [("event",), ("bus away",), ("bus back",), ("disk full",), ("disk free",), ("killed",), ("stands by",), ("sends",)]
)


@dataclass
class Truth:
    """What happened: the samples made in cycles and between them, and the series expected in each cycle, by its time."""

    made: Counter[tuple[str, Series]] = field(default_factory=Counter)
    between: Counter[tuple[str, Series]] = field(default_factory=Counter)
    expected: dict[str, set[Series]] = field(default_factory=dict)
    known: set[Series] = field(default_factory=set)

    def cycle(self, due: str, measured: set[Series], *, fails: bool, skipped: set[str]) -> None:
        self.made.update((due, each) for each in measured)
        kept = {each for each in self.known if fails or each[1] in skipped}
        self.known = self.expected[due] = measured | kept


class Lives:
    """An agent and its next lives, with one bus, one clock and one disk."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.clock.advance(NOON)
        self.bus = RecordingBus()
        self.truth = Truth()
        self.reports: list[CycleReport] = []
        self.messages: list[MeteringMessage] = []
        self._directory = directory
        self._boots = 0
        self._disk_is_full = False
        self._lamp = ScriptedPollster()
        self._start()

    def _start(self) -> None:
        self._boots += 1
        self.agent = ReportingAgent(
            self._directory,
            self._lamp,
            clock=self.clock,
            bus=self.bus,
            boot=f"boot-{self._boots}",
            max_age_seconds=3.5 * INTERVAL,
        )
        for name in ("put", "put_report"):
            self._watch(name)

    def _watch(self, name: str) -> None:
        real = getattr(self.agent.spool, name)

        async def put(*arguments: Any) -> Any:
            if self._disk_is_full:
                raise Unavailable("the disk is full")
            return await real(*arguments)

        setattr(self.agent.spool, name, put)

    def do(self, what: str, *more: Any) -> None:
        getattr(self, what.replace(" ", "_"))(*more)

    def cycle(self, measured: set[Series], fails: bool, skipped: set[str]) -> None:
        self._lamp.series = sorted(measured, key=str)
        self._lamp.failure = RuntimeError("broken") if fails else None
        self._lamp.also = lambda cycle: cycle.provider(ISkippedSamples).samples_skipped("lamp", "hung", 0, skipped)
        self.truth.cycle(self._now(), measured, fails=fails, skipped=skipped)
        self.agent.cycle(INTERVAL / 2)
        self.clock.advance(INTERVAL / 2)

    def event(self) -> None:
        self._lamp.failure = None
        self._lamp.also = lambda _: None
        self.clock.advance(1)
        self.truth.between.update((self._now(), each) for each in self._lamp.series)
        self.agent.run(self.agent.polling.poll_off_schedule(IDomainPollster, {}))
        self.clock.advance(1)

    def bus_away(self) -> None:
        self.bus.away = True

    def bus_back(self) -> None:
        self.bus.away = False

    def disk_full(self) -> None:
        self._disk_is_full = True

    def disk_free(self) -> None:
        self._disk_is_full = False

    def killed(self) -> None:
        """Kill the agent; what waits in its memory is written before, as nothing could tell it afterwards."""
        self._flush()
        self.agent.close()
        self._start()

    def stands_by(self) -> None:
        self.agent.run(self.agent.reports.tell(standby=True))
        self.truth.known = set()
        self.clock.advance(1)

    def sends(self) -> None:
        if self.bus.away:
            self.agent.run(self.agent.spool.oldest(1))  # what is too old is dropped
            return
        reports, messages = self.agent.take()
        self.reports += reports
        self.messages += messages

    def end(self) -> None:
        self._flush()
        self.bus.away = False
        self.sends()
        self._flush()  # what was dropped while sending
        self.sends()
        self.agent.close()

    def _flush(self) -> None:
        self._disk_is_full = False
        self.agent.run(self.agent.reports.tell())

    def _now(self) -> str:
        return utc_text(datetime.fromtimestamp(self.clock.seconds(), UTC))


def stated(reports: list[CycleReport]) -> Iterator[tuple[CycleReport, set[Series]]]:
    """Yield each report and the series that are expected after it."""
    known = Reconstruction()
    for report in reports:
        if report.standby:
            known = Reconstruction()
        for poll in report.polls:
            known.apply(poll)
        yield report, set(known.series.get("lamp", set()))


@given(st.lists(st.one_of(CYCLE, CYCLE, OTHERS), max_size=25))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reports_state_exactly_what_was_measured_and_what_was_lost(
    monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors, steps: list[tuple[Any, ...]]
) -> None:
    monkeypatch.setattr(polling, "SPOOL_CHUNK_SAMPLES", 1)
    with TemporaryDirectory() as directory:
        note(f"steps = {steps}")
        lives = Lives(Path(directory))
        for step in steps:
            lives.do(*step)
        lives.end()
    logged_errors.flush()
    reports, truth = lives.reports, lives.truth

    # Every number of every life is there, once, in order.
    by_boot: dict[str, list[int]] = {}
    for report in reports:
        by_boot.setdefault(report.boot, []).append(report.sequence)
    assert all(sequences == list(range(1, len(sequences) + 1)) for sequences in by_boot.values())

    # The expected series of each cycle are those that were measured, or could not be measured.
    expected: Counter[tuple[str, Series]] = Counter()
    polled: Counter[tuple[str, Series]] = Counter()
    for report, series in stated(reports):
        if report.polls:
            assert series == truth.expected[report.due]
            expected.update((report.due, each) for each in series)
        for poll in report.off_schedule:
            polled.update((poll.at, each) for each in series_of(poll.series))
    assert {report.due for report in reports if report.polls} == truth.expected.keys()
    assert polled == truth.between

    # What is expected and was not made belongs to a poll that failed, or a resource that was skipped.
    for report, series in stated(reports):
        for poll in report.polls:
            skipped = {resource for each in poll.skipped for resource in each.resources}
            for each in series:
                assert truth.made[report.due, each] or poll.outcome != "ok" or each[1] in skipped

    # What was made and did not arrive was dropped: the numbers agree.
    received = Counter(
        (utc_text(each.timestamp), (each.project_id, each.resource_id, each.name)) for each in lives.messages
    )
    made = truth.made + truth.between
    assert not received - made
    dropped = sum(each.samples for report in reports for each in report.dropped)
    assert (made - received).total() == dropped
    assert not received - (expected + polled)
