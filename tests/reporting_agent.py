"""An agent with a real spool on disk that makes cycle reports, on a clock of its own, and a bus that keeps what it is sent."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.agent.cycle import PluginContext
from meter.agent.cycle_reports import AgentIdentity
from meter.agent.cycle_reports import CycleReporter
from meter.agent.outbox import Outbox
from meter.agent.polling import Polling
from meter.agent.spool import Spool
from meter.cycle_report import CycleReport
from meter.cycle_report import InactivePollster
from meter.cycle_report import PollReport
from meter.cycle_report import SeriesGroup
from meter.cycle_report import cycle_report
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.metrics import metrics_registry
from meter.daemon.report_metrics import CycleReportMetrics
from meter.daemon.services import Backoff
from meter.interfaces import Enabled
from meter.interfaces import IComputePollster
from meter.interfaces import ICycle
from meter.interfaces import IDomainPollster
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.message import MeteringMessage
from meter.message import read_cast
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision
from meter.report import read_report
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import keyring

KEYS = keyring(["secret"])
NOON = 1_700_000_000
INTERVAL = 300.0

Series = tuple[str | None, str, str]
"""Project, resource and meter."""


@implementer(IDomainPollster, IComputePollster)
@dataclass
class ScriptedPollster:
    """Makes a sample of each of ``series``, and does ``also`` in each poll; raises ``failure`` after them if it is set."""

    name: str = "lamp"
    series: list[Series] = field(default_factory=list)
    also: Callable[[ICycle], Any] = lambda _: None
    failure: Exception | None = None
    meters: tuple[MeterDefinition, ...] = (MeterDefinition("lamp.*", "gauge", "W"),)
    options: None = None

    def configured(self, options: None) -> ScriptedPollster:
        return self

    async def enabled(self, context: Any) -> Enabled:
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        self.also(cycle)
        return self._samples(cycle)

    def _samples(self, cycle: ICycle) -> Iterable[Sample]:
        for project, resource, meter in self.series:
            yield sample_of(cycle, project, resource, meter)
        if self.failure is not None:
            raise self.failure


def sample_of(cycle: ICycle, project: str | None, resource: str, meter: str, **more: Any) -> Sample:
    fields: dict[str, Any] = {"timestamp": cycle.timestamp, "volume": 1} | more
    return Sample(name=meter, type="gauge", unit="W", resource_id=resource, project_id=project, **fields)


@implementer(IPublisher)
class RecordingBus:
    """Confirms everything, or nothing while ``away``, or no report while ``without_reports``; refuses routing keys in ``refuses``."""

    def __init__(self) -> None:
        self.published: list[Publication] = []
        self.away = False
        self.without_reports = False
        self.refuses: set[str] = set()

    async def publish(self, publication: Publication) -> None:
        if self.away or (self.without_reports and publication.routing_key.startswith("report.")):
            raise Unavailable("the broker is away")
        if publication.routing_key in self.refuses:
            raise ValueError("too large")
        self.published.append(publication)


class ReportingAgent:
    """One life of an agent; another one with the same ``directory`` is its next life."""

    def __init__(
        self,
        directory: Path,
        *pollsters: Any,
        providers: Mapping[Any, Any] | None = None,
        clock: Clock | None = None,
        bus: RecordingBus | None = None,
        boot: str = "boot-1",
        keys: Keyring = KEYS,
        inactive: Sequence[InactivePollster] = (),
        host: str = "host",
        interval: float = INTERVAL,
        config: Any = None,
        batch_samples: int = 2,
        **limits: Any,
    ) -> None:
        if clock is None:
            clock = Clock()
            clock.advance(NOON)
        self.clock = clock
        self.bus = bus or RecordingBus()
        self.registry = metrics_registry("test")
        limits = {"max_bytes": 10_000_000, "max_age_seconds": 1e6} | limits
        self.spool = Spool(directory / "agent.spool", clock=clock, run=maybeDeferred, **limits)
        report_metrics = CycleReportMetrics(self.registry)
        self.outbox = Outbox(
            self.spool,
            self.bus,
            clock,
            metrics=PublishingMetrics(self.registry),
            report_metrics=report_metrics,
            backoff=Backoff(1, 8, rng=lambda: 1.0),
        )
        self.reports = CycleReporter(
            AgentIdentity("meter-compute", host, boot),
            self.outbox,
            keys,
            clock,
            metrics=report_metrics,
            inactive=lambda: inactive,
        )
        metrics = PollingMetrics(self.registry)
        self.polling = Polling(
            PluginContext("meter-compute", config, clock, providers or {}),
            self.outbox.put,
            keys,
            source="here",
            timeout_seconds=10,
            batch_samples=batch_samples,
            metrics=metrics,
            interval_of=lambda _: interval,
            reports=self.reports,
        )
        self.polling.pollsters = tuple(
            Decision(kind=COMPUTE, name=each.name, origin="test", state="active", plugin=each) for each in pollsters
        )

    def run(self, work: Any) -> Any:
        """Return the result of a coroutine or Deferred that needs no more than turns of the clock."""
        done = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        for _ in range(1000):
            if done.called:
                break
            self.clock.advance(0)
        results: list[Any] = []
        done.addBoth(results.append)
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def cycle(self, seconds: float = INTERVAL) -> None:
        """Run a cycle; then let ``seconds`` pass."""
        self.run(self.polling.cycle())
        self.clock.advance(seconds)

    def send(self) -> None:
        """Send what is in the spool."""
        self.outbox.startService()
        self.run(self.outbox.when_empty())
        self.run(self.outbox.stopService())

    def reports_in_spool(self) -> list[CycleReport]:
        return [
            cycle_report(read_report(each.publication.body, KEYS).content)
            for each in self.run(self.spool.oldest_reports(10_000))
        ]

    def take(self) -> tuple[list[CycleReport], list[MeteringMessage]]:
        """Send everything; return the reports and the samples that the bus received since the last call."""
        self.send()
        published, self.bus.published = self.bus.published, []
        reports, messages = [], []
        for each in published:
            if each.routing_key == "report.cycle":
                reports.append(cycle_report(read_report(each.body, KEYS).content))
            else:
                messages += read_cast(each.body, KEYS)
        return reports, messages

    def close(self) -> None:
        self.run(self.spool.close())


def series_of(groups: Iterable[SeriesGroup]) -> set[Series]:
    return {(each.project, resource, meter) for each in groups for resource in each.resources for meter in each.meters}


def ended(poll: PollReport) -> set[Series]:
    """The series that are not expected any more after a poll."""
    return series_of(poll.removed) - series_of(poll.series)


def begun(poll: PollReport) -> set[Series]:
    """The series that are expected from a poll on, of one that is not whole."""
    return series_of(poll.series) - series_of(poll.removed)


class Reconstruction:
    """The series of each pollster as a reader of the reports knows them."""

    def __init__(self) -> None:
        self.series: dict[str, set[Series]] = {}

    def apply(self, poll: PollReport) -> None:
        known = self.series.setdefault(poll.pollster, set())
        if poll.whole:
            known.clear()
        if poll.listed_from is not None:
            listed, before = poll.listed_from, poll.listed_before
            known -= {each for each in known if listed <= each[1] and (not before or each[1] < before)}
        known -= series_of(poll.removed)
        known |= series_of(poll.series)
