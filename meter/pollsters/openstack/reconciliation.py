"""Reconciliation: what is metered, as the bus carries it, held against what the services list.

The services are asked twice, at the beginning and at the end of a window, and between both it is heard what is metered.
A *miss* is in both lists and was not heard; a *ghost* was heard and is in neither. So what comes and goes meanwhile is
neither of them.
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
"""The collectors' queue: without it nothing is metered that could be heard."""

SETTLING_SECONDS = 60.0
"""What was measured before the first list may still be on its way."""

Kind = Literal["instance", "volume", "image"]
LISTINGS: Mapping[Kind, Listing] = {"instance": SERVERS, "volume": VOLUME.listing, "image": IMAGE.listing}
"""Kinds of resources, each called like the meter that every one of them has."""


class ReconciliationOptions(BaseModel):
    """Options of the comparison."""

    model_config = ConfigDict(frozen=True, strict=True)

    every_seconds: float = Field(default=86400.0, gt=0)
    """From the beginning of one comparison to that of the next."""
    window_seconds: float | None = Field(default=None, gt=0)
    """How long is heard what is metered, by a minute longer than the longest interval of what is compared. Where
    nothing is said it is twice that interval, and half an hour at least."""
    kinds: tuple[Kind, ...] = Field(default=("instance", "volume", "image"), strict=False)
    """What is compared."""
    most_ids: int = Field(default=20, ge=0)
    """How many ids the metadata and the log name."""
    most_resources: int = Field(default=1_000_000, gt=0)
    """Resources that are remembered while listening; where there are more, nothing is said."""


class Heard:
    """Listens to what is metered while it is told to, and remembers which resources, ``most`` at most.

    It stops by itself after ``longest_seconds``: whoever told it to listen may have lost its turn meanwhile.
    """

    _log = Logger()

    def __init__(self, bus: Any, clock: IReactorTime, kinds: tuple[Kind, ...], most: int) -> None:
        self._clock = clock
        self._most = most
        self._kinds = kinds
        self._since = 0.0
        self._end: IDelayedCall | None = None
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

    def begin(self, settling_seconds: float, longest_seconds: float) -> None:
        """Listen from now on, and remember what comes after ``settling_seconds``."""
        self.stop()
        self._since = self._clock.seconds() + settling_seconds
        self._end = self._clock.callLater(longest_seconds, self.stop)
        self._subscription.startService()

    def stop(self) -> None:
        """Listen no more, and forget everything."""
        if self._end is not None and self._end.active():
            self._end.cancel()
        self._end = None
        self.ids = {kind: set() for kind in self._kinds}
        self.overflowed = False
        if self._subscription.running:
            maybeDeferred(self._subscription.stopService).addErrback(
                lambda failure: self._log.failure("reconciliation: cannot stop listening", failure)
            )

    @property
    def listening(self) -> bool:
        """Whether it was told to, and has not stopped by itself."""
        return self._end is not None and self._end.active()

    async def _receive(self, delivery: Delivery) -> None:
        if self._clock.seconds() < self._since:
            return
        try:
            messages, _ = metering_messages(open_envelope(delivery.body))
        except BadMessage:
            return  # the collector says so
        for message in messages:
            self._remember(message)

    def _remember(self, message: Any) -> None:
        if not isinstance(message, dict):
            return
        kind, resource = message.get("counter_name"), message.get("resource_id")
        known = self.ids.get(kind) if isinstance(kind, str) else None
        if known is None or not isinstance(resource, str) or resource in known:
            return
        if sum(map(len, self.ids.values())) < self._most:
            known.add(resource)
        else:
            self.overflowed = True


SHORTEST_WINDOW_SECONDS = 1800.0
"""Of those that nobody has chosen."""


def _settling_seconds(window_seconds: float) -> float:
    return min(SETTLING_SECONDS, window_seconds / 2)


@dataclass(frozen=True, slots=True)
class Listed:
    """What a service listed: all ids, and those of which samples are due."""

    ids: frozenset[str]
    due: frozenset[str]


class Comparison:
    """The comparison from poll to poll: not due, or listening since a first list was taken."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.began: float | None = None
        self.first: dict[Kind, Listed] = {}


@implementer(ICentralPollster, IDependsOnIntervals)
@dataclass(frozen=True, slots=True)
class ReconciliationPollster:
    """Meters, once in a while, how many resources are metered and not listed, and listed and not metered."""

    options: ReconciliationOptions = field(default_factory=ReconciliationOptions)
    name: str = "reconciliation"
    meters: tuple[MeterDefinition, ...] = (GHOSTS, MISSES)

    _log = Logger()

    def configured(self, options: ReconciliationOptions) -> ReconciliationPollster:
        """Return the pollster with ``options``."""
        return replace(self, options=options)

    def interval_conflicts(self, interval_of: Callable[[str], float]) -> list[str]:
        """Say which windows no comparison would come of, or a wrong one: every resource must be measured within one."""
        window, every = self._window_seconds(interval_of), self.options.every_seconds
        found = []
        for kind in self.options.kinds:
            needed = interval_of(kind) + _settling_seconds(window)
            if window < needed:
                found.append(
                    f"window_seconds: should be at least {needed:g}, not {window:g}: {kind!r} is polled every"
                    f" {interval_of(kind):g} s, and the first {_settling_seconds(window):g} s of a window do not count"
                )
        if window < interval_of(self.name):
            found.append(
                f"window_seconds: should be at least {interval_of(self.name):g}, not {window:g}: so often"
                f" {self.name!r} is polled, which begins and ends it"
            )
        if every < window:
            found.append(f"every_seconds: should be at least window_seconds, {window:g}, not {every:g}")
        return found

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Work where there are a cloud and a bus to listen to."""
        try:
            context.provider(IOpenStack)
            context.provider(IBus)
        except LookupError as error:
            return Disabled(f"there is nothing to compare: {error}")
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Begin a comparison when one is due, end it when its window is over; only then there are samples."""
        if cycle.trial:
            return ()
        options = self.options
        window = self._window_seconds(cycle.config.polling.interval_of if cycle.config is not None else lambda _: 0.0)

        def make() -> Comparison:
            return Comparison(Heard(cycle.provider(IBus), cycle.clock, options.kinds, options.most_resources))

        state: Comparison = cycle.daemon_cache(("openstack", self.name), make)
        now = cycle.clock.seconds()
        if state.began is not None and state.heard.listening:
            return await self._end(cycle, state) if now - state.began >= window else ()
        if state.began is None or state.first or now - state.began >= options.every_seconds:
            # A first list that nothing came of: its window passed without us, begin anew.
            state.first = await self._lists(cycle)
            state.began = cycle.clock.seconds()
            state.heard.begin(_settling_seconds(window), 2 * window)
        return ()

    def _window_seconds(self, interval_of: Callable[[str], float]) -> float:
        if self.options.window_seconds is not None:
            return self.options.window_seconds
        return max(SHORTEST_WINDOW_SECONDS, 2 * max(map(interval_of, (self.name, *self.options.kinds))))

    async def _end(self, cycle: ICycle, state: Comparison) -> list[Sample]:
        # What is made while the second list is taken may be heard and not be on it.
        heard = {kind: set(ids) for kind, ids in state.heard.ids.items()}
        overflowed = state.heard.overflowed
        second = await self._lists(cycle)
        first, state.first = state.first, {}
        state.heard.stop()
        if overflowed:
            self._log.warn(
                "reconciliation: more than {most} resources are metered, nothing is compared",
                most=self.options.most_resources,
            )
            return []
        return [
            sample for kind in first for sample in self._compare(cycle, kind, first, second, heard.get(kind, set()))
        ]

    def _compare(
        self, cycle: ICycle, kind: Kind, first: Mapping[Kind, Listed], second: Mapping[Kind, Listed], heard: set[str]
    ) -> Iterator[Sample]:
        if kind not in second:
            return
        ghosts = heard - first[kind].ids - second[kind].ids
        misses = (first[kind].due & second[kind].due) - heard
        for meter, word, found in ((GHOSTS, "not listed", ghosts), (MISSES, "not metered", misses)):
            ids = sorted(found)[: self.options.most_ids]
            self._log.info(
                "reconciliation: {count} of kind {kind} are {word}{ids}",
                count=len(found),
                kind=kind,
                word=f"listed and {word}" if meter is MISSES else f"metered and {word}",
                ids=f": {', '.join(ids)}{', …' if len(found) > len(ids) else ''}" if ids else "",
            )
            yield Sample(
                name=meter.name,
                type=meter.type,
                unit=meter.unit,
                volume=len(found),
                resource_id=f"reconciliation/{kind}",
                timestamp=cycle.timestamp,
                resource_metadata={"kind": kind, "ids": ids, "metered": len(heard), "listed": len(second[kind].ids)},
            )

    async def _lists(self, cycle: ICycle) -> dict[Kind, Listed]:
        """Return what each service lists; a service that is not in the catalogue is left out."""
        found: dict[Kind, Listed] = {}
        for kind in self.options.kinds:
            ids: set[str] = set()
            due: set[str] = set()
            try:
                async for page in cycle.provider(IOpenStack).pages(LISTINGS[kind]):
                    for item in page.items:
                        id_ = item.get("id")
                        if isinstance(id_, str):
                            ids.add(id_)
                            # Only what runs is certainly on a host; other kinds are listed as they are metered.
                            if kind != "instance" or item.get("status") == "ACTIVE":
                                due.add(id_)
            except NoService:
                continue
            found[kind] = Listed(frozenset(ids), frozenset(due))
        return found
