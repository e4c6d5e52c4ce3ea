"""Prometheus metrics of the daemons: one typed object per concern, one registry per daemon.

Names are ``meter_<noun>_<unit>[_total]``. Label values are names of plugins and dependencies and words from short lists,
never a resource, a project or another value from a message: the number of series is bounded.
"""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge
from prometheus_client import Histogram
from prometheus_client import Info
from prometheus_client import disable_created_metrics
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from zope.interface import implementer

import meter
from meter.daemon.status import readiness_of
from meter.interfaces import Delivery
from meter.interfaces import IDependency
from meter.interfaces import Receiver
from meter.query import WriteResult
from meter.skipped_samples import ISkippedSamples

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of :func:`exposition`."""

OTHER = "other"
"""The label value of all names beyond the limit of a label."""

SECONDS_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)


def metrics_registry(daemon: str) -> CollectorRegistry:
    """Return a new registry with ``meter_build_info``: the daemon and its versions."""
    # No second series per counter with its creation time. The library has only a global switch for it.
    disable_created_metrics()
    registry = CollectorRegistry()
    build = Info("meter_build", "Name of the daemon, version of Meter and version of Python.", registry=registry)
    build.info({"daemon": daemon, "version": meter.__version__, "python": platform.python_version()})
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(registry)


class BoundedLabel:
    """Limits a label to its first ``most`` distinct values; the others become :data:`OTHER`."""

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._known: set[str] = set()

    def bounded(self, name: str) -> str:
        """Return ``name`` if it is among the first, else :data:`OTHER`."""
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name


@implementer(ISkippedSamples)
class PollingMetrics:
    """Polling by an agent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._polls = Counter(
            "meter_polls",
            "Polls, by pollster and outcome (ok, unavailable, timeout, error).",
            ["pollster", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "meter_poll_seconds",
            "Duration of polls in seconds.",
            ["pollster"],
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._samples = Counter(
            "meter_polled_samples", "Samples that polling has produced, by pollster.", ["pollster"], registry=registry
        )
        self._cycles = Counter("meter_polling_cycles", "Polling cycles completed.", registry=registry)
        self._skipped = Counter(
            "meter_polling_cycles_skipped",
            "Polling cycles skipped because the previous cycle took longer than the interval.",
            registry=registry,
        )
        self._omitted = Counter(
            "meter_omitted_samples",
            "Samples that a pollster could not measure, by pollster and reason.",
            ["pollster", "reason"],
            registry=registry,
        )
        self._reasons = BoundedLabel(50)

    def samples_skipped(
        self, plugin: str, reason: str, count: int = 1, resources: Collection[str] = (), projects: Collection[str] = ()
    ) -> None:
        """Count samples that a pollster could not measure; ``reason`` is one of a short list."""
        if count:
            self._omitted.labels(plugin, self._reasons.bounded(reason)).inc(count)

    def resources_ended(self, plugin: str, reason: str, resources: Collection[str]) -> None:
        """Do nothing: that is told in cycle reports."""

    def resources_unknown(self, plugin: str, reason: str) -> None:
        """Do nothing: that is told in cycle reports."""

    def polled(self, pollster: str, outcome: str, seconds: float, samples: int = 0) -> None:
        """Count a poll; ``outcome`` is ``ok``, ``unavailable``, ``timeout`` or ``error``."""
        self._polls.labels(pollster, outcome).inc()
        self._seconds.labels(pollster).observe(seconds)
        self._samples.labels(pollster).inc(samples)

    def cycle_ended(self) -> None:
        """Count a completed cycle."""
        self._cycles.inc()

    def cycles_skipped(self, count: int) -> None:
        """Count skipped cycles."""
        self._skipped.inc(count)


class PublishingMetrics:
    """Publishing to the bus, and the spool."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._samples = Counter(
            "meter_published_samples", "Samples that the message bus has confirmed.", registry=registry
        )
        self._messages = Counter(
            "meter_publications",
            "Publications to the message bus, by outcome (confirmed, unavailable, refused).",
            ["outcome"],
            registry=registry,
        )
        self._registry = registry
        self._dropped = Counter(
            "meter_spool_dropped_samples",
            "Samples lost because the spool was full, they exceeded its maximum age, or writing to disk failed.",
            registry=registry,
        )

    def published(self, outcome: str, samples: int = 0) -> None:
        """Count a publication: ``confirmed`` with its samples, ``unavailable`` or ``refused``."""
        self._messages.labels(outcome).inc()
        if outcome == "confirmed":
            self._samples.inc(samples)

    def watch_spool(
        self,
        messages: Callable[[], int],
        size_bytes: Callable[[], int],
        oldest_seconds: Callable[[], float],
    ) -> None:
        """Export the state of the spool; the functions are called at each scrape."""
        shown: list[tuple[str, str, Callable[[], float]]] = [
            ("messages", "Messages in the spool that the bus has not confirmed yet.", messages),
            ("bytes", "Size of the messages in the spool in bytes.", size_bytes),
            ("oldest_seconds", "Age of the oldest message in the spool in seconds.", oldest_seconds),
        ]
        for unit, meaning, now in shown:
            Gauge(f"meter_spool_{unit}", meaning, registry=self._registry).set_function(now)

    def dropped(self, samples: int) -> None:
        """Count samples that were lost in the spool or before it."""
        self._dropped.inc(samples)


class CollectingMetrics:
    """Deliveries, notifications, samples and dead letters of a collector."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._deliveries = Counter(
            "meter_deliveries",
            "Messages delivered to this daemon, redeliveries included, by queue.",
            ["queue"],
            registry=registry,
        )
        self._notifications = Counter(
            "meter_notifications",
            "Notifications, by event type and outcome (sampled, empty, unwanted, ignored, dead).",
            ["event_type", "outcome"],
            registry=registry,
        )
        self._event_types = BoundedLabel(500)  # OpenStack services have some 310
        self._samples = Counter(
            "meter_collected_samples",
            "Samples, by outcome (stored, duplicate, conflict: the id belongs to another sample, refused).",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("stored", "duplicate", "conflict", "refused"):
            self._samples.labels(outcome)
        self._dead = Counter(
            "meter_dead_letters",
            "Messages published to the dead letter queue, by kind, in the label reason.",
            ["reason"],
            registry=registry,
        )
        self._registry = registry
        self._archived = Counter(
            "meter_archived_notifications",
            "Unwanted notifications, by outcome in the archive (kept, dropped_length, dropped_age, refused).",
            ["outcome"],
            registry=registry,
        )
        self._reasons = BoundedLabel(50)
        self._write_seconds = Histogram(
            "meter_store_write_seconds",
            "Duration of writing a batch of samples to the store in seconds.",
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._write_samples = Histogram(
            "meter_store_write_samples",
            "Samples per batch written to the store.",
            registry=registry,
            buckets=(1, 10, 50, 100, 200, 500, 1000, 2000, 5000),
        )

    def counting(self, queue: str, receive: Receiver) -> Receiver:
        """Return ``receive`` wrapped to count each delivery of ``queue``, redeliveries included."""
        deliveries = self._deliveries.labels(queue)

        async def counted(delivery: Delivery) -> None:
            deliveries.inc()
            await receive(delivery)

        return counted

    def notified(self, event_type: str, outcome: str) -> None:
        """Count a notification; ``outcome`` is ``sampled``, ``unwanted`` or ``dead``. The event types are bounded."""
        self._notifications.labels(self._event_types.bounded(event_type), outcome).inc()

    def archived(self, outcome: str) -> None:
        """Count an unwanted notification that the archive has stored, dropped or refused."""
        self._archived.labels(outcome).inc()

    def written(self, result: WriteResult, seconds: float) -> None:
        """Count a committed batch."""
        conflicts = sum(refusal.kind == "conflict" for refusal in result.refused)
        self._samples.labels("stored").inc(result.stored)
        self._samples.labels("duplicate").inc(result.duplicates)
        self._samples.labels("conflict").inc(conflicts)
        self._samples.labels("refused").inc(len(result.refused) - conflicts)
        self._write_seconds.observe(seconds)
        self._write_samples.observe(result.stored + result.duplicates + len(result.refused))

    def dead(self, reason: str) -> None:
        """Count a dead letter; ``reason`` is a kind (``undecodable``, ``bad signature``), not a text."""
        self._dead.labels(self._reasons.bounded(reason)).inc()

    def export_dead_letters(self, count: Callable[[], int | None]) -> None:
        """Export how many dead letters are in their queue; ``None`` while that is unknown is exported as NaN."""

        def known() -> float:
            number = count()
            return math.nan if number is None else number

        documentation = "Dead letters in the queue metering.dead."
        Gauge("meter_queued_dead_letters", documentation, registry=self._registry).set_function(known)


class HealthMetrics:
    """The process and its dependencies."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ready = Gauge(
            "meter_dependency_ready", "1 while the dependency is ready, else 0.", ["dependency"], registry=registry
        )
        self._lag = Histogram(
            "meter_reactor_lag_seconds",
            "Delay between the due time of a reactor timer and its call in seconds.",
            registry=registry,
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
        )
        self._rejections = Counter(
            "meter_http_rejections",
            "Connections and requests that an HTTP server of this daemon rejected, by server (api, status) and reason (connections: too many from one address; head, body: took too long to arrive).",
            ["server", "reason"],
            registry=registry,
        )
        self._registry = registry

    def http_rejected(self, server: str, reason: str) -> None:
        """Count a rejection by a server (``api``, ``status``): ``connections``, ``head`` or ``body``."""
        self._rejections.labels(server, reason).inc()

    def watch(self, dependencies: Iterable[IDependency]) -> None:
        """Export the readiness of each dependency; it is read at each scrape."""
        for dependency in dependencies:
            gauge = self._ready.labels(readiness_of(dependency).name)
            gauge.set_function(functools.partial(_is_ready, dependency))

    def count_abandoned_calls(self, hung: Callable[[], int], total: Callable[[], int]) -> None:
        """Export how many abandoned calls still hang, and how many were abandoned in total."""
        gauge = Gauge(
            "meter_abandoned_threads",
            "Threads that still hang in an abandoned call to libvirt.",
            registry=self._registry,
        )
        gauge.set_function(hung)
        self._registry.register(
            _Count("meter_abandoned_calls", "Calls to libvirt that were abandoned after the timeout.", total)
        )

    def count_hanging_domains(self, count: Callable[[], int]) -> None:
        """Export how many domains have an emulator that does not respond to libvirt."""
        documentation = "Domains whose emulator does not respond to libvirt. The log and /readyz name them."
        Gauge("meter_hanging_domains", documentation, registry=self._registry).set_function(count)

    def count_unpolled_changes(self, count: Callable[[], int]) -> None:
        """Export how many lifecycle events were dropped."""
        documentation = "Lifecycle events of domains dropped without a poll because too many were pending."
        self._registry.register(_Count("meter_unpolled_domain_changes", documentation, count))

    def count_stop_timeouts(self, count: Callable[[], int]) -> None:
        """Export how many services did not stop in time, or raised an exception while stopping."""
        documentation = "Services that did not stop in time, or raised an exception while stopping."
        self._registry.register(_Count("meter_service_stop_timeouts", documentation, count))

    def count_voided_samples(self, count: Callable[[], int]) -> None:
        """Export how many samples are voided."""
        documentation = "Samples that administrators have voided. Counted once a minute."
        Gauge("meter_voided_samples", documentation, registry=self._registry).set_function(count)

    def lagged(self, seconds: float) -> None:
        """Record one measurement of the reactor's lag."""
        self._lag.observe(seconds)


class _Count(Collector):
    """A counter whose value ``count`` returns at each scrape."""

    def __init__(self, name: str, documentation: str, count: Callable[[], int]) -> None:
        self._name = name
        self._documentation = documentation
        self._count = count

    def collect(self) -> Iterable[Metric]:
        """Return the current value."""
        return [CounterMetricFamily(self._name, self._documentation, self._count())]


def _is_ready(dependency: IDependency) -> float:
    return float(readiness_of(dependency).ready)
