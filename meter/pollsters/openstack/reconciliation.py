"""Reconciliation: compares the resources whose samples are on the bus with those that the services list.

The services are listed at the beginning and at the end of a window, between which samples on the bus are observed. A
*miss* is in both lists and has no sample; a *ghost* has samples and is in neither list. So resources that are created or
deleted within the window are neither.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.bus.batches import METERING_EXCHANGE
from meter.bus.batches import routing_key
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IBus
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.interfaces import Subscription
from meter.message import BadMessage
from meter.message import metering_messages
from meter.message import open_envelope
from meter.openstack import IDependsOnIntervals
from meter.openstack import IOpenStack
from meter.openstack import Listing
from meter.openstack import NoService
from meter.pollsters.openstack.instances import SERVERS
from meter.pollsters.openstack.services import IMAGE
from meter.pollsters.openstack.services import VOLUME
from meter.pollsters.openstack.table import gauge
from meter.sample import MeterDefinition
from meter.sample import Sample

GHOSTS = gauge("meter.reconciliation.ghosts", "resource")
MISSES = gauge("meter.reconciliation.misses", "resource")
METERING_QUEUE = "meter.metering"
"""The collectors' queue: without it no sample is stored, and none is observed."""

IGNORED_SECONDS = 60.0
"""Samples at the beginning of a window are ignored: they may have been measured before the first list."""

Kind = Literal["instance", "volume", "image"]
LISTINGS: Mapping[Kind, Listing] = {"instance": SERVERS, "volume": VOLUME.listing, "image": IMAGE.listing}
"""Kinds of resources; a kind is also the name of the meter that every such resource has."""


class ReconciliationOptions(BaseModel):
    """Options of the reconciliation."""

    model_config = ConfigDict(frozen=True, strict=True)

    every_seconds: float = Field(default=86400.0, gt=0)
    """Seconds from the beginning of one window to that of the next."""
    window_seconds: float | None = Field(default=None, gt=0)
    """Length of the window: at least a minute longer than the longest interval of the compared meters. By default twice
    that interval, and at least half an hour."""
    kinds: tuple[Kind, ...] = Field(default=("instance", "volume", "image"), strict=False)
    """The kinds of resources to compare."""
    max_ids: int = Field(default=20, ge=0)
    """How many ids the metadata and the log have at most."""
    max_resources: int = Field(default=1_000_000, gt=0)
    """How many resources are kept in memory at most; if more have samples, nothing is compared."""


class MeteredResources:
    """The ids of resources whose samples are on the bus, while observing it; at most ``max_resources``.

    Observing stops by itself after a time limit: the agent may no longer be the leader that would stop it.
    """

    _log = Logger()

    def __init__(self, bus: Any, clock: IReactorTime, kinds: tuple[Kind, ...], max_resources: int) -> None:
        self._clock = clock
        self._max_resources = max_resources
        self._kinds = kinds
        self._since = 0.0
        self._time_limit: IDelayedCall | None = None
        self.ids: dict[str, set[str]] = {kind: set() for kind in kinds}
        self.overflowed = False
        self._subscription = bus.subscribe(
            Subscription(
                queue=f"meter.reconciliation.{uuid.uuid4().hex}",
                bindings=tuple(Binding(METERING_EXCHANGE, routing_key(kind), ours=True) for kind in kinds),
                observe_queue=METERING_QUEUE,
            ),
            self._receive,
        )

    def start(self, ignored_seconds: float, time_limit_seconds: float) -> None:
        """Observe the bus from now on; samples in the first ``ignored_seconds`` are ignored."""
        self.stop()
        self._since = self._clock.seconds() + ignored_seconds
        self._time_limit = self._clock.callLater(time_limit_seconds, self.stop)
        self._subscription.startService()

    def stop(self) -> None:
        """Stop observing and clear the ids."""
        if self._time_limit is not None and self._time_limit.active():
            self._time_limit.cancel()
        self._time_limit = None
        self.ids = {kind: set() for kind in self._kinds}
        self.overflowed = False
        if self._subscription.running:
            maybeDeferred(self._subscription.stopService).addErrback(
                lambda failure: self._log.failure("reconciliation: cannot stop observing the bus", failure)
            )

    @property
    def observing(self) -> bool:
        """Whether the bus is observed: started, and the time limit not reached."""
        return self._time_limit is not None and self._time_limit.active()

    async def _receive(self, delivery: Delivery) -> None:
        if self._clock.seconds() < self._since:
            return
        try:
            messages = metering_messages(open_envelope(delivery.body))
        except BadMessage:
            return  # the collector reports it
        for message in messages:
            self._add(message)

    def _add(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        kind, resource = message.get("counter_name"), message.get("resource_id")
        known = self.ids.get(kind) if isinstance(kind, str) else None
        if known is None or not isinstance(resource, str) or resource in known:
            return
        if sum(map(len, self.ids.values())) < self._max_resources:
            known.add(resource)
        else:
            self.overflowed = True


MIN_DEFAULT_WINDOW_SECONDS = 1800.0
"""The shortest default of ``window_seconds``."""


def _ignored_seconds(window_seconds: float) -> float:
    return min(IGNORED_SECONDS, window_seconds / 2)


@dataclass(frozen=True, slots=True)
class ListedResources:
    """The resources that a service lists: all ids, and the ids of those that must have samples."""

    ids: frozenset[str]
    must_have_samples: frozenset[str]


class ReconciliationResult:
    """The state of the comparison between polls; ``first_lists`` is empty unless a window has begun."""

    def __init__(self, metered: MeteredResources) -> None:
        self.metered = metered
        self.began_at: float | None = None
        self.first_lists: dict[Kind, ListedResources] = {}


@implementer(ICentralPollster, IDependsOnIntervals)
@dataclass(frozen=True, slots=True)
class ReconciliationPollster:
    """Meters, once per ``every_seconds``, how many resources are ghosts and misses."""

    options: ReconciliationOptions = field(default_factory=ReconciliationOptions)
    name: str = "reconciliation"
    meters: tuple[MeterDefinition, ...] = (GHOSTS, MISSES)

    _log = Logger()

    def configured(self, options: ReconciliationOptions) -> ReconciliationPollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options)

    def interval_conflicts(self, interval_of: Callable[[str], float]) -> list[str]:
        """Return a message per option with which a comparison would be wrong or never end."""
        window, every = self._window_seconds(interval_of), self.options.every_seconds
        conflicts = []
        for kind in self.options.kinds:
            needed = interval_of(kind) + _ignored_seconds(window)
            if window < needed:
                conflicts.append(
                    f"window_seconds: should be at least {needed:g}, not {window:g}: {kind!r} is polled every"
                    f" {interval_of(kind):g} s, and the first {_ignored_seconds(window):g} s of a window are ignored"
                )
        if window < interval_of(self.name):
            conflicts.append(
                f"window_seconds: should be at least {interval_of(self.name):g}, not {window:g}: the polls of"
                f" {self.name!r}, which begin and end a window, have that interval"
            )
        if every < window:
            conflicts.append(f"every_seconds: should be at least window_seconds, {window:g}, not {every:g}")
        return conflicts

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the daemon has a cloud and a bus."""
        try:
            context.provider(IOpenStack)
        except LookupError:
            return Disabled("no OpenStack cloud is configured in [openstack]")
        try:
            context.provider(IBus)
        except LookupError:
            return Disabled("this daemon has no bus of its own, from which it could learn what is metered")
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Begin a window when one is due; when it is over, return the samples of the comparison."""
        if cycle.trial:
            return ()
        options = self.options
        window = self._window_seconds(cycle.config.polling.interval_of if cycle.config is not None else lambda _: 0.0)

        def make() -> ReconciliationResult:
            return ReconciliationResult(
                MeteredResources(cycle.provider(IBus), cycle.clock, options.kinds, options.max_resources)
            )

        state: ReconciliationResult = cycle.daemon_cache(("openstack", self.name), make)
        now = cycle.clock.seconds()
        if state.began_at is not None and state.metered.observing:
            return await self._end_window(cycle, state) if now - state.began_at >= window else ()
        if state.began_at is None or state.first_lists or now - state.began_at >= options.every_seconds:
            # first_lists without observing: this agent was not polled when the window ended; begin a new one.
            state.first_lists = await self._lists(cycle)
            state.began_at = cycle.clock.seconds()
            state.metered.start(_ignored_seconds(window), 2 * window)
        return ()

    def _window_seconds(self, interval_of: Callable[[str], float]) -> float:
        if self.options.window_seconds is not None:
            return self.options.window_seconds
        return max(MIN_DEFAULT_WINDOW_SECONDS, 2 * max(map(interval_of, (self.name, *self.options.kinds))))

    async def _end_window(self, cycle: ICycle, state: ReconciliationResult) -> list[Sample]:
        # Copied before the second list: a resource created meanwhile may have a sample and not be on the list.
        metered = {kind: set(ids) for kind, ids in state.metered.ids.items()}
        overflowed = state.metered.overflowed
        second = await self._lists(cycle)
        first, state.first_lists = state.first_lists, {}
        state.metered.stop()
        if overflowed:
            self._log.warn(
                "reconciliation: more than {maximum} resources have samples, nothing is compared",
                maximum=self.options.max_resources,
            )
            return []
        return [
            sample for kind in first for sample in self._compare(cycle, kind, first, second, metered.get(kind, set()))
        ]

    def _compare(
        self,
        cycle: ICycle,
        kind: Kind,
        first: Mapping[Kind, ListedResources],
        second: Mapping[Kind, ListedResources],
        metered: set[str],
    ) -> Iterator[Sample]:
        if kind not in second:
            return
        ghosts = metered - first[kind].ids - second[kind].ids
        misses = (first[kind].must_have_samples & second[kind].must_have_samples) - metered
        for meter, text, found in (
            (GHOSTS, "metered and not listed", ghosts),
            (MISSES, "listed and not metered", misses),
        ):
            ids = sorted(found)[: self.options.max_ids]
            self._log.info(
                "reconciliation: {count} of kind {kind} are {text}{ids}",
                count=len(found),
                kind=kind,
                text=text,
                ids=f": {', '.join(ids)}{', …' if len(found) > len(ids) else ''}" if ids else "",
            )
            yield Sample(
                name=meter.name,
                type=meter.type,
                unit=meter.unit,
                volume=len(found),
                resource_id=f"reconciliation/{kind}",
                timestamp=cycle.timestamp,
                resource_metadata={"kind": kind, "ids": ids, "metered": len(metered), "listed": len(second[kind].ids)},
            )

    async def _lists(self, cycle: ICycle) -> dict[Kind, ListedResources]:
        """Return the resources that each service lists, without services that the catalogue lacks."""
        found: dict[Kind, ListedResources] = {}
        for kind in self.options.kinds:
            ids: set[str] = set()
            must_have_samples: set[str] = set()
            try:
                async for page in cycle.provider(IOpenStack).pages(LISTINGS[kind]):
                    for item in page.items:
                        id_ = item.get("id")
                        if isinstance(id_, str):
                            ids.add(id_)
                            # Only an ACTIVE instance is certainly on a host.
                            if kind != "instance" or item.get("status") == "ACTIVE":
                                must_have_samples.add(id_)
            except NoService:
                continue
            found[kind] = ListedResources(frozenset(ids), frozenset(must_have_samples))
        return found
