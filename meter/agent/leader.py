"""Taking turns: of several agents that could do the same periodic work, one does it, and none of it is done twice.

They share nothing but a queue of the bus that delivers to one of its subscribers alone, whoever that is (RabbitMQ's
*single active consumer*). When work is due each agent sends a *probe* into the queue: the one that gets its own back is
the one whose turn it is, now and beyond doubt. It writes down what it begins and what it has done as a *note*, and holds
the newest note unacknowledged. When it dies the broker delivers that note to the next, which thereby knows what was
done, and finishes what was only begun.

While the broker cannot be reached nothing can be decided: whoever had the turn keeps it, so that nothing is lost. It
waits once for the broker to come back, and for no longer than half an interval, so that no slot passes meanwhile. Where
only its subscription is lost, and probes are taken, the turn is lost with it: the queue delivers to another by then.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredLock
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import fail
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.daemon.services import sleep
from meter.daemon.services import wall_seconds
from meter.daemon.services import within
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import IBus
from meter.interfaces import IDependency
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.interfaces import Unavailable

EXCHANGE = "metering"
RETRY_SECONDS = 0.5
STOPPING = Unavailable("this agent stops")

Work = Callable[[frozenset[float]], Awaitable[object]]
"""Does what is due: given the intervals in seconds whose time has come."""


class Note(msgspec.Struct, frozen=True):
    """A message of the queue: a probe, or what was begun and done, as the last slot of each interval."""

    agent: str
    probe: str = ""
    begun: Mapping[str, int] = {}
    done: Mapping[str, int] = {}


class LeaderElection(Service):
    """Lets ``work`` be done by one of all agents that share ``name`` on ``bus``.

    Time is cut into slots, the multiples of each interval since 1970; the work of an interval is done once in each.
    ``patience_seconds`` is how long an agent waits for its probe before it stands by, and at its start for the bus.
    """

    _log = Logger()

    def __init__(
        self, bus: IBus, name: str, work: Work, clock: IReactorTime, *, patience_seconds: float = 10.0
    ) -> None:
        self.setName(f"turn of {name}")
        self._bus = bus
        self._work = work
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._key = f"turn.{name}"
        self._agent = uuid.uuid4().hex
        self._probes: dict[str, Deferred[None]] = {}
        self._held: Deferred[None] | None = None
        self._done: dict[str, int] = {}
        self._away = False
        self._heard = False
        self._one_at_a_time = DeferredLock()
        self.ours: bool | None = None
        self._subscription = bus.subscribe(
            Subscription(
                queue=f"meter.turn.{name}",
                bindings=(Binding(EXCHANGE, self._key, ours=True),),
                prefetch=100,
                single_active=True,
            ),
            self._receive,
        )

    def startService(self) -> None:
        """Begin to listen for the turn; returns at once."""
        super().startService()
        self._subscription.startService()

    def stopService(self) -> Deferred[None]:
        """Hand the turn over, then stop."""
        super().stopService()
        self._let_go(STOPPING)
        return maybeDeferred(self._subscription.stopService)

    async def take(self, due: frozenset[float]) -> None:
        """Do the work of the intervals ``due`` that was not done in their present slots, if it is our turn."""
        await self._one_at_a_time.run(lambda: Deferred.fromCoroutine(self._take(due)))

    async def _take(self, due: frozenset[float]) -> None:
        patience = self._patience_seconds
        if self.ours is not None:
            patience = min(patience, min(due, default=patience) / 2)
        self._tell(await self._is_ours(patience))
        if not self.ours:
            return
        slots = self._slots(due)
        fresh = frozenset(each for each in due if self._done.get(repr(each)) != slots[repr(each)])
        if not fresh:
            return
        begun = self._slots(fresh)
        await self._write_down(Note(self._agent, begun=begun, done=self._done), patience)
        await self._work(fresh)
        self._done |= begun
        await self._write_down(Note(self._agent, done=self._done), patience)

    def _slots(self, intervals: frozenset[float]) -> dict[str, int]:
        # A tick that comes a hair too early belongs to the slot it is meant for.
        now = wall_seconds(self._clock) + 0.01
        return {repr(each): math.floor(now / each) for each in intervals}

    async def _is_ours(self, patience: float) -> bool:
        """Send a probe and see who gets it. Where the bus cannot be reached, all stays as it was.

        ``patience`` is for a bus that has just gone: one that was away at the last try is tried once.
        """
        until = self._clock.seconds() + (0.0 if self._away else patience)
        while True:
            try:
                ours = await self._probe(patience)
            except Unavailable as error:
                left = until - self._clock.seconds()
                if left <= 0:
                    self._bus_is_away(str(error))
                    return self.ours is not False
                await sleep(self._clock, min(RETRY_SECONDS, left))
            else:
                self._away = False
                return ours

    def _bus_is_away(self, reason: str) -> None:
        if not self._away:
            self._log.warn(
                "{turn}: nothing can be decided, all stays as it was: {reason}", turn=self.name, reason=reason
            )
        self._away = True

    async def _probe(self, patience: float) -> bool:
        """Return whether our probe comes back; :class:`Unavailable` where the bus does not take it in ``patience``."""
        probe = uuid.uuid4().hex
        came: Deferred[None] = Deferred()
        self._probes[probe] = came
        try:
            await self._publish(Note(self._agent, probe), patience)
            try:
                await within(self._clock, self._patience_seconds, came)
            except DeferredTimeout:
                if not self._heard and not self._subscription.ready:
                    raise Unavailable("nothing of the queue was ever delivered here") from None
                return False
            return True
        finally:
            del self._probes[probe]

    async def _write_down(self, note: Note, patience: float) -> None:
        if self._away:
            return  # nobody could read it; the next note has all that this one has
        try:
            await self._publish(note, patience)
        except Unavailable as error:
            self._log.warn("{turn}: cannot be written down: {error}", turn=self.name, error=error)

    async def _publish(self, note: Note, patience: float) -> None:
        readiness = self._bus.readiness() if IDependency.providedBy(self._bus) else None
        # Where it is our own subscription that makes the bus not ready, it may well take what is published.
        if readiness is not None and not readiness.ready and self._subscription.ready:
            raise Unavailable(readiness.reason)
        publication = Publication(exchange=EXCHANGE, routing_key=self._key, body=msgspec.json.encode(note))
        try:
            await within(self._clock, patience, self._bus.publish(publication))
        except DeferredTimeout:
            raise Unavailable(f"the bus takes nothing within {patience:g} s") from None

    async def _receive(self, delivery: Delivery) -> None:
        self._heard = True
        try:
            note = msgspec.json.decode(delivery.body, type=Note)
        except msgspec.DecodeError as error:
            self._log.warn("{turn}: a message that is no note is ignored: {error}", turn=self.name, error=error)
            return
        if note.probe:
            came = self._probes.get(note.probe)
            if came is not None and not came.called:
                came.callback(None)
            return
        self._done |= note.done
        begun = {interval: slot for interval, slot in note.begun.items() if self._done.get(interval) != slot}
        if note.agent != self._agent and begun and self.running:
            Deferred.fromCoroutine(self._finish(begun)).addErrback(
                lambda failure: self._log.failure("{turn}: finishing failed", failure, turn=self.name)
            )
        await self._hold()

    async def _finish(self, begun: Mapping[str, int]) -> None:
        """Do what the one before us began and did not finish, as far as its time is not over."""
        self._log.info("{turn}: another agent left its work unfinished", turn=self.name)
        intervals = frozenset(float(each) for each in begun)
        slots = self._slots(intervals)
        await self.take(frozenset(each for each in intervals if slots[repr(each)] == begun[repr(each)]))

    def _hold(self) -> Deferred[None]:
        """Return what keeps the newest note unacknowledged, and let the one before go."""
        if not self.running:
            return fail(STOPPING)
        self._let_go(None)
        self._held = Deferred()
        return self._held

    def _let_go(self, reason: Unavailable | None) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        if reason is None:
            held.callback(None)  # acknowledged
        else:
            held.errback(reason)  # delivered to the next

    def _tell(self, ours: bool) -> None:
        if ours != self.ours:
            text = "it is ours" if ours else "another agent has it; this one stands by"
            self._log.info("{turn}: {text}", turn=self.name, text=text)
        self.ours = ours
