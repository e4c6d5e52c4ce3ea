"""The interfaces between the parts of Meter, and between Meter and its plugins.

The path of a sample: ``IPollster`` or ``IListener`` → ``IPublisher`` (the bus) → ``IStore`` → the API.
Methods written ``async def`` return awaitables; every other method returns at once.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any
from typing import Literal

from twisted.application.service import IService
from twisted.internet.interfaces import IReactorTime
from twisted.plugin import IPlugin
from zope.interface import Attribute
from zope.interface import Interface

from meter.batch_signature import BatchEntry
from meter.message import MeteringMessage
from meter.notification import Notification
from meter.query import AuditEntry
from meter.query import AuditFilter
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.query import WriteResult
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.skipped_samples import ISkippedSamples as ISkippedSamples
from meter.stored_batch import StoredProof


class Unavailable(Exception):
    """A dependency is unavailable; the same call may succeed later. The text names the dependency and the reason."""


class RequestError(ValueError):
    """A query that is invalid and fails however often it is repeated. The text is for the client, ``cause`` for the log."""

    def __init__(self, text: str, cause: str = "") -> None:
        super().__init__(text)
        self.cause = cause


class QueryTimeout(RequestError):
    """A query that took longer than it may: it can succeed if it selects less."""


# --- plugins -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enabled:
    """Returned by :meth:`IMeterPlugin.enabled`: the plugin is active. ``remark``, a clause, states what it cannot measure."""

    remark: str = ""


@dataclass(frozen=True, slots=True)
class Disabled:
    """Returned by :meth:`IMeterPlugin.enabled`: the plugin is not active. ``reason`` is a clause."""

    reason: str


class IPluginContext(Interface):
    """The environment of a plugin: the daemon, its configuration and clock, and collaborators."""

    daemon: str = Attribute(
        "Name of the daemon: ``meter-compute``, ``meter-central``, ``meter-collector`` or ``meter``."
    )
    config: Any = Attribute("The whole configuration, a :class:`meter.settings.config_file.Config`.")
    clock: IReactorTime = Attribute("The daemon's ``IReactorTime``.")

    def provider(interface: Any) -> Any:
        """Return the daemon's provider of ``interface`` (``IHypervisor``…). Raises ``LookupError`` if it has none."""

    def daemon_cache(key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the object that is cached under ``key`` in this daemon, created by ``make()`` on first use.

        It lives as long as the daemon, so its size must be bounded.
        """


class ICycle(IPluginContext):
    """One polling cycle, shared by all pollsters that run in it."""

    timestamp: datetime = Attribute(
        "Start of the cycle, an aware ``datetime``: the timestamp of samples that have no better one."
    )
    trial: bool = Attribute(
        "Whether the samples are only displayed and not published. A trial must not change any state."
    )

    async def cycle_cache(key: Hashable, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return the result of ``await make()``, which is called once per cycle and ``key``. Its exception is shared as well."""


class IMeterPlugin(IPlugin):
    """The common interface of pollsters and listeners. A frozen dataclass is a good provider."""

    name: str = Attribute(
        "Name, unique among plugins of the same kind: the section of its options, and what ``[plugins] disable`` matches."
    )
    meters: tuple[MeterDefinition, ...] = Attribute(
        "Tuple of :class:`meter.sample.MeterDefinition`: every meter that the plugin can yield samples of."
    )
    options: Any = Attribute(
        "Default options: an instance of a ``pydantic.BaseModel`` that the plugin defines, or ``None``."
    )

    def configured(options: Any) -> Any:
        """Return a provider with ``options``, an instance of the class of :attr:`options`. Called before all other methods."""

    async def enabled(context: IPluginContext) -> Enabled | Disabled:
        """Return :class:`Enabled` or :class:`Disabled`, called once at start; ``context`` is an :class:`IPluginContext`."""


class IPollster(IMeterPlugin):
    """Measures usage once per polling cycle. Plugins provide a subinterface, which determines the agent that runs them."""

    async def poll(cycle: ICycle) -> Iterable[Sample]:
        """Return the current samples, an iterable of :class:`meter.sample.Sample`; ``cycle`` is an :class:`ICycle`.

        For very many samples return a generator: it is consumed in slices, between which the reactor runs.
        Raise :class:`Unavailable` if the source of the measurements is unavailable. Never block: wait only with ``await``.
        """


class IComputePollster(IPollster):
    """A pollster of the compute agent: entry point group ``meter.poll.compute``."""


class IDomainPollster(IComputePollster):
    """A compute pollster of the domains that ``cycle.provider(IHypervisor).domains()`` returns, which may be one of many.

    It is also polled between cycles, with a single domain, whenever libvirt reports that the domain has started, stopped,
    paused….
    """


class ICentralPollster(IPollster):
    """A pollster of the central agent: entry point group ``meter.poll.central``."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of notifications: ``Topic("nova")`` is routing key ``notifications.info`` on exchange ``nova``."""

    exchange: str
    routing_key: str = "notifications.info"


class IListener(IMeterPlugin):
    """Makes samples from notifications: entry point group ``meter.collector``."""

    topics: tuple[Topic, ...] = Attribute("Tuple of :class:`Topic` to subscribe to.")
    event_types: tuple[str, ...] = Attribute(
        "Tuple of shell patterns of event types that the listener accepts: ``compute.instance.*``."
    )

    def samples(notification: Notification) -> Iterable[Sample]:
        """Return an iterable of samples made from a :class:`meter.notification.Notification`, possibly empty.

        Their ids are replaced by ids derived from the notification's. Raise ``ValueError`` for an invalid payload: the
        notification is dead-lettered with that text.
        """


# --- the hypervisor ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Domain:
    """A libvirt domain as polled: ``stats`` has libvirt's names (``cpu.time``, ``vcpu.0.time``, ``state.state``).

    ``run`` identifies the current run of the domain, at whose start its counters begin at zero; ``None`` while it is shut
    off. ``read_at`` is when libvirt returned the statistics, ``None`` for now. ``event`` is the lifecycle event that caused
    the poll: ``started (booted)``. If the process of the domain is visible, ``process`` identifies it, with the same text
    for every observer, ``started_at`` is its start, and ``processors`` changes when a virtual CPU is plugged in under the
    number of one that was unplugged.
    """

    uuid: str
    name: str
    xml: str
    stats: Mapping[str, int | float | str | bool]
    run: int | None = None
    read_at: datetime | None = None
    event: str | None = None
    process: str | None = None
    started_at: datetime | None = None
    processors: str = ""


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a domain is missing from the list of domains or shut off, and since when, if libvirt reported that.

    *gone*: it was undefined, or was transient and has ended. *migrated*: another host runs it. *unreadable*: unknown, it
    may still exist.
    """

    why: Literal["gone", "migrated", "unreadable"]
    since: datetime | None = None


class IHypervisor(Interface):
    """The libvirt of this host."""

    uri: str = Attribute("libvirt's connection URI, text.")
    unreadable: Mapping[str, str] = Attribute(
        "Why domains could not be read, or not completely, for the last list of domains, by UUID:"
        " ``domain hung`` or ``domain unreadable``."
    )

    async def domains() -> Sequence[Domain]:
        """Return every defined domain as a sequence of :class:`Domain`; raises :class:`Unavailable`."""

    def absence(uuid: str) -> Absence:
        """Return the :class:`Absence` of a domain that was missing in the last list of domains, or shut off.

        A domain whose statistics could not be read for the list before the last is *unreadable*, too.
        """

    def observe(receive: Callable[[Domain], object]) -> None:
        """Call ``receive`` with each :class:`Domain` whose state changes, as it is right after the change given in ``event``."""


# --- the bus -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A message to publish. Values of ``headers`` are text, integers and booleans."""

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, str | int | bool] = field(default_factory=dict)


class IPublisher(Interface):
    """Publishes messages on the bus."""

    async def publish(publication: Publication) -> None:
        """Return once the bus has confirmed the :class:`Publication`. Raises :class:`Unavailable` without a confirmation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message delivered by the bus."""

    body: bytes
    exchange: str
    routing_key: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """Routes messages of ``exchange`` whose routing key matches ``routing_key`` to the queue.

    ``ours``: the exchange belongs to Meter and is declared durable. Other exchanges are used as they are. One that does
    not exist is declared as OpenStack's services do, or waited for, as ``[collector] create_exchanges`` says.
    """

    exchange: str
    routing_key: str
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A durable queue of Meter and its bindings; ``prefetch`` is the maximum number of unacknowledged deliveries.

    ``single_active``: one of the queue's consumers receives all deliveries, and another takes over when it disconnects.
    ``observe_queue`` makes the queue an exclusive, auto-deleted one of bounded length, which receives copies while the named
    queue exists, and is no consumer: a message routed to it alone is unroutable. ``waiting_queue``: for a full dead letter queue.
    """

    queue: str
    bindings: tuple[Binding, ...] = ()
    prefetch: int = 200
    single_active: bool = False
    observe_queue: str = ""
    waiting_queue: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedQueue:
    """A durable queue of limited length and message age. The oldest messages are moved to the queue ``dropped`` first."""

    name: str
    max_messages: int
    max_seconds: float
    dropped: str


Receiver = Callable[[Delivery], Awaitable[None]]
"""Processes one delivery. Returning acknowledges it. Raising :class:`Unavailable` requeues it after a pause. Any other
exception is a defect: the delivery is dead-lettered to ``metering.dead`` with the text of the exception."""


class ISubscription(IService):
    """A service that consumes a queue."""

    ready: bool = Attribute("Whether the broker delivers to it now.")


class IBus(IPublisher):
    """A message bus: RabbitMQ (:mod:`meter.bus.amqp`) or, within one process, :mod:`meter.bus.local`."""

    def subscribe(subscription: Subscription, receive: Receiver) -> ISubscription:
        """Return a service that calls ``receive`` for each delivery. When it stops, it waits for the deliveries in progress."""


# --- the store -----------------------------------------------------------------------------------------------------


class IStore(Interface):
    """The data store. Queries and results are the records of :mod:`meter.query`.

    Every method raises :class:`Unavailable` while the database is unavailable, and :class:`RequestError` for an invalid
    query. Cancelling the Deferred of a query cancels the statement in the database.
    """

    async def write(messages: Sequence[MeteringMessage], refused_entries: Sequence[BatchEntry] = ()) -> WriteResult:
        """Commit a batch of :class:`meter.message.MeteringMessage`; return a :class:`meter.query.WriteResult`.

        A message whose id is already stored, in the week of its timestamp or an adjacent week, is a duplicate if it states
        the same fact. Otherwise it is a conflict and refused (see :mod:`meter.sample_identity`). ``refused_entries`` are
        entries of the signed batches of ``messages`` that were refused before; the store remembers that it does not have them.
        """

    async def samples(
        filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return at most ``limit`` matching :class:`~meter.query.StoredSample`.

        They are sorted by descending timestamp and message id, or by ``order``. ``after``, without ``order``, continues a page.
        """

    async def sample(message_id: str, filter: SampleFilter) -> StoredSample | None:
        """Return the :class:`~meter.query.StoredSample` with this id that matches ``filter``, else ``None``.

        Of several matching samples with the same id, the newest is returned.
        """

    async def meters(filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """Return at most ``limit`` :class:`~meter.query.StoredMeter`, by name and resource."""

    async def resources(filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return at most ``limit`` :class:`~meter.query.StoredResource`, by id."""

    async def statistics(query: StatisticsQuery) -> Sequence[Statistics]:
        """Return the :class:`~meter.query.Statistics` of a :class:`~meter.query.StatisticsQuery`, oldest first."""

    async def names_of_others(
        project_id: str, meters: Collection[str], resources: Collection[str]
    ) -> tuple[Collection[str], Collection[str]]:
        """Return the ``meters`` with samples that the project did not submit, and the ``resources`` of other projects."""

    async def proof(message_id: str, filter: SampleFilter = SampleFilter()) -> StoredProof | None:  # noqa: B008 (frozen)
        """Return the signed message with this id, and its batch, if its sample matches ``filter``; the newest of several."""

    async def voided_proof(message_id: str) -> StoredProof | None:
        """Return the metering message of the voided sample with this id, whoever owns it, as :meth:`proof` does."""

    async def audit_entries(filter: AuditFilter, limit: int, before: int | None = None) -> Sequence[AuditEntry]:
        """Return at most ``limit`` matching :class:`~meter.query.AuditEntry`, newest first, with a ``seq`` below ``before``."""

    def subscribe_to_commits(callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback``, without data, soon after any process commits samples; return a function that ends that."""


# --- health --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of a dependency. ``reason`` says why it is not ready, or what it is connected to.

    The daemon is ready without a dependency that is not ``needed``; ``reason`` then also says what does not work.
    """

    name: str
    ready: bool
    reason: str
    needed: bool = True


class IDependency(Interface):
    """An external service that a daemon depends on, or one that it provides, and its state."""

    def readiness() -> Readiness:
        """Return the current :class:`Readiness`."""


class IHealth(Interface):
    """The states of all dependencies of a daemon."""

    def readinesses() -> Sequence[Readiness]:
        """Return the current state of each dependency."""
