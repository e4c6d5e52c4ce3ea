"""The daemons' own metrics for Prometheus: one typed object per concern, in one registry per daemon.

Names are ``meter_<noun>_<unit>[_total]``. Labels hold names of plugins and dependencies and words from short lists,
never a resource, a project or anything else that a message could make up: the number of series is bounded.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
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
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

import meter
from meter.daemon.status import readiness_of
from meter.interfaces import Delivery
from meter.interfaces import IDependency
from meter.interfaces import ISkippedSamples
from meter.interfaces import Receiver
from meter.query import WriteResult

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what :func:`exposition` returns."""

OTHER = "other"
"""The label of whatever comes after the most names a label may have."""

SECONDS_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)


def metrics_registry(daemon: str) -> CollectorRegistry:
    """Return a new registry that says which daemon this is and of which version: ``meter_build_info``."""
    # A second series per counter with its time of birth is of no use here; the library only knows it as a global switch.
    disable_created_metrics()
    registry = CollectorRegistry()
    build = Info("meter_build", "The daemon and the versions it runs on.", registry=registry)
    build.info({"daemon": daemon, "version": meter.__version__, "python": platform.python_version()})
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """Return all metrics in Prometheus' text format, of type :data:`CONTENT_TYPE`."""
    return generate_latest(registry)


class Names:
    """Keeps a label to its first ``most`` distinct names; the rest are :data:`OTHER`."""

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
    """What an agent's pollsters do."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._polls = Counter(
            "meter_polls", "Polls by pollster and outcome.", ["pollster", "outcome"], registry=registry
        )
        self._seconds = Histogram(
            "meter_poll_seconds", "Length of a poll.", ["pollster"], registry=registry, buckets=SECONDS_BUCKETS
        )
        self._samples = Counter("meter_polled_samples", "Samples made by polling.", ["pollster"], registry=registry)
        self._cycles = Counter("meter_polling_cycles", "Polling cycles that have ended.", registry=registry)
        self._skipped = Counter(
            "meter_polling_cycles_skipped", "Polling cycles left out because one took too long.", registry=registry
        )

        self._omitted = Counter(
            "meter_omitted_samples",
            "Samples that a pollster left out, by its reason.",
            ["pollster", "reason"],
            registry=registry,
        )
        self._reasons = Names(50)

    def samples_skipped(self, plugin: str, reason: str, count: int = 1) -> None:
        """Count samples that a pollster left out, for a ``reason`` from a short list."""
        self._omitted.labels(plugin, self._reasons.bounded(reason)).inc(count)

    def polled(self, pollster: str, outcome: str, seconds: float, samples: int = 0) -> None:
        """Count a poll; ``outcome`` is one of a few words: ``ok``, ``unavailable``, ``timeout``, ``error``"""
        self._polls.labels(pollster, outcome).inc()
        self._seconds.labels(pollster).observe(seconds)
        self._samples.labels(pollster).inc(samples)

    def cycle_ended(self) -> None:
        """Count a cycle."""
        self._cycles.inc()

    def cycles_skipped(self, count: int) -> None:
        """Count cycles that were left out."""
        self._skipped.inc(count)


class PublishingMetrics:
    """What goes to the bus, and what waits in the spool."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._samples = Counter("meter_published_samples", "Samples that the bus has confirmed.", registry=registry)
        self._messages = Counter("meter_publications", "Messages by outcome.", ["outcome"], registry=registry)
        self._registry = registry
        self._dropped = Counter(
            "meter_spool_dropped_samples",
            "Samples lost because the spool was full, they waited too long, or the disk did not take them.",
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
        """Show the state of the spool, asked whenever the metrics are read."""
        shown: list[tuple[str, str, Callable[[], float]]] = [
            ("messages", "Messages waiting in the spool.", messages),
            ("bytes", "Size of the messages in the spool.", size_bytes),
            ("oldest_seconds", "Age of the oldest message in the spool.", oldest_seconds),
        ]
        for unit, meaning, now in shown:
            Gauge(f"meter_spool_{unit}", meaning, registry=self._registry).set_function(now)

    def dropped(self, samples: int) -> None:
        """Count samples that the spool had no room for."""
        self._dropped.inc(samples)


class CollectingMetrics:
    """What the collector takes in, stores and sets aside."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._deliveries = Counter(
            "meter_deliveries", "Deliveries by queue, those that came again included.", ["queue"], registry=registry
        )
        self._notifications = Counter(
            "meter_notifications",
            "Notifications by event type and outcome.",
            ["event_type", "outcome"],
            registry=registry,
        )
        self._event_types = Names(500)  # the services know some 310
        self._samples = Counter(
            "meter_collected_samples",
            "Samples by outcome: stored, duplicate, conflict (the id of another sample), refused.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("stored", "duplicate", "conflict", "refused"):
            self._samples.labels(outcome)
        self._dead = Counter(
            "meter_dead_letters", "Messages set aside, by class of reason.", ["reason"], registry=registry
        )
        self._archived = Counter(
            "meter_archived_notifications",
            "Unwanted notifications by what became of them: kept, dropped_length, dropped_age, refused.",
            ["outcome"],
            registry=registry,
        )
        self._reasons = Names(50)
        self._write_seconds = Histogram(
            "meter_store_write_seconds", "Length of writing a batch.", registry=registry, buckets=SECONDS_BUCKETS
        )
        self._write_samples = Histogram(
            "meter_store_write_samples",
            "Samples in a batch.",
            registry=registry,
            buckets=(1, 10, 50, 100, 200, 500, 1000, 2000, 5000),
        )

    def counting(self, queue: str, receive: Receiver) -> Receiver:
        """Return ``receive``, which counts each delivery of ``queue`` when it comes, and again when it comes again."""
        deliveries = self._deliveries.labels(queue)

        async def counted(delivery: Delivery) -> None:
            deliveries.inc()
            await receive(delivery)

        return counted

    def notified(self, event_type: str, outcome: str) -> None:
        """Count a notification: ``sampled``, ``unwanted`` or ``dead``; any number of event types may come."""
        self._notifications.labels(self._event_types.bounded(event_type), outcome).inc()

    def archived(self, outcome: str) -> None:
        """Count an unwanted notification that was kept in the archive, or that fell out of it."""
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
        """Count a message set aside; ``reason`` is a class of reasons (``undecodable``, ``bad signature``), not a text."""
        self._dead.labels(self._reasons.bounded(reason)).inc()


class HealthMetrics:
    """The state of the process and of what it depends on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ready = Gauge(
            "meter_dependency_ready", "1 while the dependency can be used, else 0.", ["dependency"], registry=registry
        )
        self._lag = Histogram(
            "meter_reactor_lag_seconds",
            "How late the reactor calls what is due.",
            registry=registry,
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
        )
        self._registry = registry
        self._given_up = Gauge(
            "meter_given_up_services",
            "Parts of the daemon that did not stop in time, or not cleanly.",
            registry=registry,
        )

    def watch(self, dependencies: Iterable[IDependency]) -> None:
        """Show the readiness of each dependency, asked whenever the metrics are read."""
        for dependency in dependencies:
            gauge = self._ready.labels(readiness_of(dependency).name)
            gauge.set_function(functools.partial(_is_ready, dependency))

    def count_abandoned_calls(self, hanging: Callable[[], int], ever: Callable[[], int]) -> None:
        """Show how many calls that were given up hang still, and how many there were, asked whenever the metrics are read."""
        gauge = Gauge(
            "meter_abandoned_threads", "Threads that hang in a call that was given up.", registry=self._registry
        )
        gauge.set_function(hanging)
        self._registry.register(_Count("meter_abandoned_calls", "Calls that were given up.", ever))

    def count_hanging_domains(self, count: Callable[[], int]) -> None:
        """Show how many domains do not answer libvirt, asked whenever the metrics are read."""
        documentation = "Domains whose emulator does not answer libvirt; the log and /readyz name them."
        Gauge("meter_hanging_domains", documentation, registry=self._registry).set_function(count)

    def count_unpolled_changes(self, count: Callable[[], int]) -> None:
        """Show how many changes of domains were let go, asked whenever the metrics are read."""
        documentation = "Changes of domains that were not polled when they happened: too many waited."
        self._registry.register(_Count("meter_unpolled_domain_changes", documentation, count))

    def count_given_up(self, count: Callable[[], int]) -> None:
        """Show ``count()`` parts that were given up while stopping, asked whenever the metrics are read."""
        self._given_up.set_function(count)

    def lagged(self, seconds: float) -> None:
        """Take one measurement of the reactor's lag."""
        self._lag.observe(seconds)


class _Count(Collector):
    """A counter that somebody else keeps, asked whenever the metrics are read."""

    def __init__(self, name: str, documentation: str, count: Callable[[], int]) -> None:
        self._name = name
        self._documentation = documentation
        self._count = count

    def collect(self) -> Iterable[Metric]:
        """Return it as it is now."""
        return [CounterMetricFamily(self._name, self._documentation, self._count())]


def _is_ready(dependency: IDependency) -> float:
    return float(readiness_of(dependency).ready)


class ReactorLag(Service):
    """Measures every ``interval`` seconds how late ``clock`` calls, and tells ``observe`` in seconds.

    A reactor that is late is busy: with code that blocks, or with more work than the processor can do.
    """

    def __init__(self, clock: IReactorTime, observe: Callable[[float], None], interval: float = 1.0) -> None:
        self.setName("reactor lag")
        self._clock = clock
        self._observe = observe
        self._interval = interval
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin measuring."""
        super().startService()
        self._expect()

    def stopService(self) -> None:
        """End measuring."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _expect(self) -> None:
        self._call = self._clock.callLater(self._interval, self._measure, self._clock.seconds() + self._interval)

    def _measure(self, due: float) -> None:
        self._observe(max(0.0, self._clock.seconds() - due))
        self._expect()


class RequestMetrics:
    """What is asked of other services over HTTP; a service is one of the catalogue, or a pollster's own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._services = Names()
        self._requests = Counter(
            "meter_requests",
            "Requests by service and outcome: ok, refused, failed, timeout, held.",
            ["service", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "meter_request_seconds",
            "From sending a request to its whole answer.",
            ["service"],
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._waited = Counter(
            "meter_request_waited_seconds",
            "Time that requests waited for their budget.",
            ["service"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "meter_requests_in_flight", "Requests without an answer.", ["service"], registry=registry
        )
        self._open = Gauge(
            "meter_request_circuit_open", "1 while the service is left alone, else 0.", ["service"], registry=registry
        )

    def waited(self, service: str, seconds: float) -> None:
        """Add the time that one request waited."""
        self._waited.labels(self._services.bounded(service)).inc(seconds)

    def sent(self, service: str) -> None:
        """Count a request that is on its way."""
        self._in_flight.labels(self._services.bounded(service)).inc()

    def ended(self, service: str, outcome: str, seconds: float) -> None:
        """Count the end of a request that was sent."""
        name = self._services.bounded(service)
        self._in_flight.labels(name).dec()
        self._requests.labels(name, outcome).inc()
        self._seconds.labels(name).observe(seconds)

    def held(self, service: str) -> None:
        """Count a request that was not even sent."""
        self._requests.labels(self._services.bounded(service), "held").inc()

    def opened(self, service: str, open_: bool) -> None:
        """Show whether the service is left alone."""
        self._open.labels(self._services.bounded(service)).set(open_)
