"""The whole contract between Meter's rooms, and between Meter and its plugins.

One sample's road: ``IPollster`` or ``IListener`` → ``IPublisher`` (the bus) → ``IStore`` → the API.
Methods written ``async def`` return awaitables; every other method returns at once.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
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

from meter.message import MeteringMessage
from meter.notification import Notification
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


class Unavailable(Exception):
    """Something that Meter depends on cannot be used now; the same call may work later. The text names it and says why."""


class RequestError(ValueError):
    """A question that can never be answered as asked; the text is for whoever asked."""


# --- plugins -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enabled:
    """A plugin's answer to "are you enabled here?": yes; ``remark`` (a clause for people) says what will be missing."""

    remark: str = ""


@dataclass(frozen=True, slots=True)
class Disabled:
    """A plugin's answer to "are you enabled here?": no, because of ``reason`` (a clause for people)."""

    reason: str


class IPluginContext(Interface):
    """Where a plugin finds itself: what it may look at to decide, and collaborators to work with."""

    daemon: str = Attribute(
        "Name of the daemon: ``meter-compute``, ``meter-central``, ``meter-collector`` or ``meter``."
    )
    config: Any = Attribute("The whole configuration, a :class:`meter.settings.config_file.Config`.")
    clock: IReactorTime = Attribute("The daemon's ``IReactorTime``.")

    def provider(interface: Any) -> Any:
        """Return the daemon's provider of ``interface`` (``IHypervisor``…); ``LookupError`` when it has none."""

    def daemon_cache(key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what ``make()`` returned when ``key`` was first asked for in this daemon: what plugins remember.

        It lives as long as the daemon, so it must not grow with what comes and goes.
        """


class ICycle(IPluginContext):
    """One polling cycle, shared by all pollsters that run in it."""

    timestamp: datetime = Attribute(
        "Start of the cycle, an aware ``datetime``: the time of samples that know no better."
    )
    trial: bool = Attribute("Whether the samples are only shown, not kept: a trial may leave no trace.")

    async def cycle_cache(key: Hashable, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return ``await make()``, called once per cycle for each ``key`` whoever asks first; its failure is shared too."""


class IMeterPlugin(IPlugin):
    """What pollsters and listeners have in common. A frozen dataclass makes a good provider."""

    name: str = Attribute(
        "Text that is unique among plugins of its kind: section of its options, and what ``disable`` matches."
    )
    meters: tuple[MeterDefinition, ...] = Attribute(
        "Tuple of :class:`meter.sample.MeterDefinition`: all that this plugin may ever yield."
    )
    options: Any = Attribute(
        "Default options: an instance of a ``pydantic.BaseModel`` of the plugin's own, or ``None``."
    )

    def configured(options: Any) -> Any:
        """Return a provider that works with ``options``, an instance of the same class. Called before any work."""

    async def enabled(context: IPluginContext) -> Enabled | Disabled:
        """Return :class:`Enabled` or :class:`Disabled`, asked once at start; ``here`` is an :class:`IPluginContext`."""


class IPollster(IMeterPlugin):
    """Asks something for its usage when told to. Provide a subinterface, which says in which agent."""

    async def poll(cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of now, an iterable of :class:`meter.sample.Sample`; ``cycle`` is an :class:`ICycle`.

        Where they are very many, a generator: it makes them as they are kept, and the reactor turns in between.
        Raise :class:`Unavailable` when what you ask is not there now. Never block: no waiting call outside ``await``.
        """


class IComputePollster(IPollster):
    """A pollster of the compute agent: entry point group ``meter.poll.compute``."""


class IDomainPollster(IComputePollster):
    """A compute pollster that takes all it says from ``cycle.provider(IHypervisor).domains()``.

    Between the cycles it is also polled with one domain alone, whenever libvirt tells that one started, stopped,
    paused….
    """


class ICentralPollster(IPollster):
    """A pollster of the central agent: entry point group ``meter.poll.central``."""


@dataclass(frozen=True, slots=True)
class Topic:
    """Where notifications are published: ``Topic("nova")`` is routing key ``notifications.info`` on exchange ``nova``."""

    exchange: str
    routing_key: str = "notifications.info"


class IListener(IMeterPlugin):
    """Makes samples from notifications: entry point group ``meter.collector``."""

    topics: tuple[Topic, ...] = Attribute("Tuple of :class:`Topic` to hear.")
    event_types: tuple[str, ...] = Attribute("Tuple of shell patterns of event types wanted: ``compute.instance.*``.")

    def samples(notification: Notification) -> Iterable[Sample]:
        """Return an iterable of samples made from a :class:`meter.notification.Notification`, possibly empty.

        Their ids are replaced by ones derived from the notification's. Raise ``ValueError`` for a payload that cannot
        be understood: the notification is put aside with that text.
        """


# --- the hypervisor ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Domain:
    """A libvirt domain as polled: ``stats`` has libvirt's names (``cpu.time``, ``vcpu.0.time``, ``state.state``).

    ``run`` tells its runs apart, ``None`` while it is off: counters start again with each. ``read_at`` is when libvirt
    told its statistics, ``None`` for just now. ``event`` is what has just happened to it, where that is why it is
    polled: ``started (booted)``. Where the process that runs it can be seen, ``process`` names it, with the same text as
    long as it runs and to whoever looks, ``started_at`` is its start, and ``processors`` changes when another virtual
    processor takes the number of one that was unplugged.
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
    """Why a domain is missing from the domains, or is off, and since when, if libvirt reported that.

    *gone*: it is undefined, or has ended and was never defined. *migrated*: another host runs it. *unreadable*: it may
    still be there.
    """

    why: Literal["gone", "migrated", "unreadable"]
    since: datetime | None = None


class IHypervisor(Interface):
    """The libvirt of this host."""

    uri: str = Attribute("libvirt's connection URI, text.")

    async def domains() -> Sequence[Domain]:
        """Return every defined domain as a sequence of :class:`Domain`; raises :class:`Unavailable`."""

    def absence(uuid: str) -> Absence:
        """Return the :class:`Absence` of a domain that was missing in the last answer, or shut off.

        One that the answer before the last could not give is *unreadable* as well: whether it was there, nobody knows.
        """

    def observe(receive: Callable[[Domain], object]) -> None:
        """Call ``receive`` with each :class:`Domain` whose state has changed, as it was then; ``event`` says how."""


class ISkippedSamples(Interface):
    """Counts what plugins could not measure. A daemon that polls provides one."""

    def samples_skipped(plugin: str, reason: str, count: int = 1) -> None:
        """Count ``count`` samples that ``plugin`` left out; ``reason`` is a word from a short list of the plugin's."""


# --- the bus -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One message for the bus. ``headers`` hold text, whole numbers and booleans only."""

    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, str | int | bool] = field(default_factory=dict)


class IPublisher(Interface):
    """Hands messages to the bus."""

    async def publish(publication: Publication) -> None:
        """Return once the bus has made the :class:`Publication` safe; :class:`Unavailable` when that is not certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message from the bus."""

    body: bytes
    exchange: str
    routing_key: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """Messages of ``exchange`` whose routing key matches ``routing_key`` go to the queue.

    ``ours``: the exchange is Meter's, declared durable. Others are taken as they are; where one does not exist yet it
    is made the way OpenStack's services make theirs, and where that is not wanted it is looked for again.
    """

    exchange: str
    routing_key: str
    ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A durable queue of ours and what flows into it; ``prefetch`` bounds the deliveries that are out unanswered.

    ``single_active``: of all that subscribe to the queue one alone is delivered to, and another as soon as it is gone.
    ``beside`` names a queue and makes this one listen in: it is the subscriber's alone, is gone with it, and may lose
    what is too much. It begins where the other queue exists, and is nobody a publication could be meant for alone.
    """

    queue: str
    bindings: tuple[Binding, ...] = ()
    prefetch: int = 200
    single_active: bool = False
    observe_queue: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedQueue:
    """A durable queue limited in length and age. The oldest messages are dropped first, into the queue ``dropped``."""

    name: str
    most_messages: int
    most_seconds: float
    dropped: str


Receiver = Callable[[Delivery], Awaitable[None]]
"""Takes one delivery. Returning acknowledges it. Raising :class:`Unavailable` hands it back, to be delivered again
after a pause. Anything else raised is a defect: the delivery is handed to ``metering.dead`` with the error's text."""


class ISubscription(IService):
    """A service that delivers what flows into a queue."""

    ready: bool = Attribute("Whether it is being delivered to now.")


class IBus(IPublisher):
    """A message bus: RabbitMQ (:mod:`meter.bus.amqp`) or, within one process, :mod:`meter.bus.local`."""

    def subscribe(subscription: Subscription, receive: Receiver) -> ISubscription:
        """Return a service: started, it delivers to ``receive``; stopping, it takes no more and waits for what is out."""


# --- the store -----------------------------------------------------------------------------------------------------


class IStore(Interface):
    """Where samples are kept. Queries and answers are the records of :mod:`meter.query`.

    Every method raises :class:`Unavailable` while the database cannot be reached, and :class:`RequestError` for a
    question it cannot answer. Cancelling a question ends the looking for its answer.
    """

    async def write(messages: Sequence[MeteringMessage]) -> WriteResult:
        """Commit a batch of :class:`meter.message.MeteringMessage`; return a :class:`meter.query.WriteResult`.

        One fact is one row: a message whose id is stored already in the week of its time or in a week beside it is a
        duplicate if it states the same fact, and otherwise refused as a conflict (see :mod:`meter.identity`).
        """

    async def samples(
        filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return at most ``limit`` matching :class:`~meter.query.StoredSample`.

        Newest first, and of one moment by descending id, unless ``order`` says otherwise. ``after`` continues a page
        in the former order, and excludes ``order``.
        """

    async def sample(message_id: str, filter: SampleFilter) -> StoredSample | None:
        """Return the :class:`~meter.query.StoredSample` with this id if ``filter`` lets it through, else ``None``.

        Of several samples with one id, the newest that it lets through.
        """

    async def meters(filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """Return at most ``limit`` :class:`~meter.query.StoredMeter`, by name and resource."""

    async def resources(filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return at most ``limit`` :class:`~meter.query.StoredResource`, by id."""

    async def statistics(query: StatisticsQuery) -> Sequence[Statistics]:
        """Return the :class:`~meter.query.Statistics` of a :class:`~meter.query.StatisticsQuery`, oldest first."""

    async def message(message_id: str, filter: SampleFilter = SampleFilter()) -> Mapping[str, Any] | None:  # noqa: B008 (frozen)
        """Return the metering message with this id exactly as it was signed, if ``filter`` lets its sample through.

        Two samples can share an id if their times lie further apart than one is compared with: the newest is returned.
        """

    def follow(heard: Callable[[], object]) -> Callable[[], None]:
        """Call ``heard`` soon after samples were committed, by whichever process; return what ends that.

        It says that there is something new, not what: ask for samples recorded since.
        """


# --- health --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of one dependency. ``reason`` says why it is not ready, or what it is connected to.

    Without one that is not ``needed`` the daemon goes on with all but what ``reason`` says.
    """

    name: str
    ready: bool
    reason: str
    needed: bool = True


class IDependency(Interface):
    """Something outside the process that a daemon needs, or that it offers to others, and its state."""

    def readiness() -> Readiness:
        """Return the present :class:`Readiness`."""


class IHealth(Interface):
    """The states of all that a daemon depends on."""

    def readinesses() -> Sequence[Readiness]:
        """Return the present state of each dependency."""
