"""The consumer of the collector for reports of agents and daemons: into the tables of the completeness ledger."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from meter.bus.dead_letters import DeadLetterPublisher
from meter.collector.rejected_counts import RejectedSampleCounts
from meter.collector.reports import REPORTS_QUEUE
from meter.collector.reports import ReportConsumer
from meter.completeness_store import ICompletenessStore
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.report_metrics import ReportMetrics
from meter.daemon.services import Periodic
from meter.identity_names import IIdentityNames
from meter.interfaces import Binding
from meter.interfaces import IBus
from meter.interfaces import IStore
from meter.interfaces import Subscription
from meter.interfaces import Unavailable
from meter.report import REPORT_EXCHANGE
from meter.store import retained_days
from meter.taps.daemon import Daemon
from meter.taps.parts.subscriptions import subscribed

APPLY_WAITING_SECONDS = 60.0

FLUSH_SECONDS = 5.0

_log = Logger()


def add_reports(daemon: Daemon, bus: IBus, store: IStore, metrics: CollectingMetrics) -> None:
    """Add the consumer of reports, and what gives up waiting for reports that do not come."""
    settings = daemon.config.completeness
    ledger = ICompletenessStore(store)
    reports = ReportConsumer(
        ledger,
        IIdentityNames(store),
        daemon.keys,
        DeadLetterPublisher(
            bus,
            daemon.reactor,
            source_queue=REPORTS_QUEUE,
            count=daemon.count_dead_letter,
            off_reactor=daemon.off_reactor,
        ),
        daemon.reactor,
        metrics=ReportMetrics(daemon.registry),
        max_ahead_seconds=settings.max_clock_ahead_seconds,
        retention_days=retained_days(daemon.config.store.retention_days, daemon.config.store.rollup_retention_days),
        batch_seconds=daemon.config.collector.batch_seconds,
        off_reactor=daemon.off_reactor,
    )
    subscription = Subscription(
        queue=REPORTS_QUEUE,
        bindings=(Binding(REPORT_EXCHANGE, "report.#", ours=True),),
        prefetch=daemon.config.bus.prefetch,
    )
    daemon.add(subscribed(daemon, bus, subscription, metrics.counting(REPORTS_QUEUE, reports.receive)))

    async def apply_waiting() -> None:
        try:
            await ledger.apply_waiting_reports()
        except Unavailable as error:
            _log.debug("waiting reports cannot be applied now: {reason}", reason=str(error))

    daemon.add(Periodic(apply_waiting, APPLY_WAITING_SECONDS, daemon.reactor, name="waiting reports"))


class RejectedCountsFlush(Periodic):
    """Stores the counts of rejected samples at intervals, and when the daemon stops."""

    def __init__(self, counts: RejectedSampleCounts, clock: Any) -> None:
        super().__init__(counts.flush, FLUSH_SECONDS, clock, name="rejected samples", first_after=FLUSH_SECONDS)
        self._counts = counts

    def stopService(self) -> Deferred[Any]:
        """Fire when the last counts are stored."""
        stopped = maybeDeferred(super().stopService)
        return stopped.addCallback(lambda _: Deferred.fromCoroutine(self._counts.flush()))


def add_rejected_counts(daemon: Daemon, store: IStore) -> RejectedSampleCounts:
    """Add what stores the counts of rejected samples; it stops after the consumer that counts them."""
    counts = RejectedSampleCounts(ICompletenessStore(store), daemon.reactor)
    daemon.add(RejectedCountsFlush(counts, daemon.reactor))
    return counts
