"""Leader election: of several agents with the same periodic work, only one does it.

The agents share a queue of the bus that delivers to one of its consumers only (RabbitMQ's *single active consumer*).
When work is due each agent publishes a *probe* to the queue: the agent that receives its own probe is the leader. The
leader publishes what it begins and what it has done as a *checkpoint*, and leaves the newest checkpoint unacknowledged.
When it dies the broker delivers that checkpoint to the next leader, which learns from it what was done, repeats what
was only begun, and learns whose lists of resources it continues (:mod:`meter.agent.listing_handover`).

While the broker cannot be reached there is no election, and each agent keeps its role, so that no work is skipped. An
agent waits once for the broker to return, for at most half an interval, so that no slot is missed meanwhile. If only the
subscription is lost and probes are still confirmed, the agent is not the leader any more: the queue has another consumer.
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
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import fail
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.agent.listing_handover import ListingHandover
from meter.cycle_report import SucceededListing
from meter.daemon.locks import Lock
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
STOPPING = Unavailable("this agent is stopping")

Work = Callable[[frozenset[float]], Awaitable[object]]
"""Does the work of the intervals, in seconds, that are due."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A message of the queue: the last slot of each interval that was begun or done; or a probe.

    ``listings`` are the newest lists of series, by pollster.
    """

    agent: str
    probe: str = ""
    begun: Mapping[str, int] = {}
    done: Mapping[str, int] = {}
    listings: Mapping[str, SucceededListing] = {}


class LeaderElection(Service):
    """Runs ``work`` in only one of the agents with the same ``name`` on ``bus``.

    Time is divided into slots, the multiples of each interval since 1970; the work of an interval is done once per slot.
    ``patience_seconds`` is how long an agent waits for its probe before it stands by, and for the bus at its start. ``handover``
    has the lists that checkpoints contain.
    """

    _log = Logger()

    def __init__(
        self,
        bus: IBus,
        name: str,
        work: Work,
        clock: IReactorTime,
        *,
        patience_seconds: float = 10.0,
        handover: ListingHandover | None = None,
    ) -> None:
        self.setName(f"leader election {name}")
        self._bus = bus
        self._work = work
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._handover = handover
        self._key = f"leader.{name}"
        self._agent = uuid.uuid4().hex
        self._probes: dict[str, Deferred[None]] = {}
        self._held_ack: Deferred[None] | None = None
        self._done: dict[str, int] = {}
        self._bus_is_down = False
        self._has_received = False
        self._one_at_a_time = Lock()
        self.is_leader: bool | None = None
        self._subscription = bus.subscribe(
            Subscription(
                queue=f"meter.leader.{name}",
                bindings=(Binding(EXCHANGE, self._key, ours=True),),
                prefetch=100,
                single_active=True,
            ),
            self._receive,
        )

    def startService(self) -> None:
        """Begin to consume the queue; returns at once."""
        super().startService()
        self._subscription.startService()

    def stopService(self) -> Deferred[None]:
        """Release the newest checkpoint to the next leader, then stop."""
        super().stopService()
        self._release_ack(STOPPING)
        return maybeDeferred(self._subscription.stopService)

    async def run_if_leader(self, due: frozenset[float]) -> None:
        """Do the work of the intervals ``due`` that was not done in their current slots, if this agent is the leader."""
        await self._one_at_a_time.run(lambda: Deferred.fromCoroutine(self._run_if_leader(due)))

    async def _run_if_leader(self, due: frozenset[float]) -> None:
        patience = self._patience_seconds
        if self.is_leader is not None:
            patience = min(patience, min(due, default=patience) / 2)
        self._set_role(await self._elect(patience))
        if not self.is_leader:
            return
        slots = self._slots(due)
        fresh = frozenset(each for each in due if self._done.get(repr(each)) != slots[repr(each)])
        if not fresh:
            return
        begun = self._slots(fresh)
        await self._publish_checkpoint(self._checkpoint(begun), patience)
        await self._work(fresh)
        self._done |= begun
        await self._publish_checkpoint(self._checkpoint({}), patience)

    def _checkpoint(self, begun: Mapping[str, int]) -> Checkpoint:
        listings = {} if self._handover is None else self._handover.listings
        return Checkpoint(self._agent, begun=begun, done=self._done, listings=listings)

    def _slots(self, intervals: frozenset[float]) -> dict[str, int]:
        # A timer that fires slightly early belongs to the slot that begins now.
        now = wall_seconds(self._clock) + 0.01
        return {repr(each): math.floor(now / each) for each in intervals}

    async def _elect(self, patience: float) -> bool:
        """Publish a probe and return whether this agent receives it. Without the bus the role stays the same.

        ``patience`` applies if the bus was available at the last attempt; otherwise the bus is tried only once.
        """
        until = self._clock.seconds() + (0.0 if self._bus_is_down else patience)
        while True:
            try:
                is_leader = await self._probe(patience)
            except Unavailable as error:
                left = until - self._clock.seconds()
                if left <= 0:
                    self._report_bus_down(str(error))
                    return self.is_leader is not False
                await sleep(self._clock, min(RETRY_SECONDS, left))
            else:
                self._bus_is_down = False
                return is_leader

    def _report_bus_down(self, reason: str) -> None:
        if not self._bus_is_down:
            self._log.warn(
                "{election}: cannot reach the broker; keeping the current role: {reason}",
                election=self.name,
                reason=reason,
            )
        self._bus_is_down = True

    async def _probe(self, patience: float) -> bool:
        """Return whether the probe is delivered here; :class:`Unavailable` if the bus does not confirm it in ``patience``."""
        probe = uuid.uuid4().hex
        received: Deferred[None] = Deferred()
        self._probes[probe] = received
        try:
            await self._publish(Checkpoint(self._agent, probe), patience)
            try:
                await within(self._clock, self._patience_seconds, received)
            except DeferredTimeout:
                if not self._has_received and not self._subscription.ready:
                    raise Unavailable("the queue has never delivered to this agent") from None
                return False
            return True
        finally:
            del self._probes[probe]

    async def _publish_checkpoint(self, checkpoint: Checkpoint, patience: float) -> None:
        if self._bus_is_down:
            return  # no agent could receive it; the next checkpoint has everything that this one has
        try:
            await self._publish(checkpoint, patience)
        except Unavailable as error:
            self._log.warn("{election}: cannot publish the checkpoint: {error}", election=self.name, error=error)

    async def _publish(self, message: Checkpoint, patience: float) -> None:
        readiness = self._bus.readiness() if IDependency.providedBy(self._bus) else None
        # If it is this subscription that makes the bus not ready, publishing may still work.
        if readiness is not None and not readiness.ready and self._subscription.ready:
            raise Unavailable(readiness.reason)
        publication = Publication(exchange=EXCHANGE, routing_key=self._key, body=msgspec.json.encode(message))
        try:
            await within(self._clock, patience, self._bus.publish(publication))
        except DeferredTimeout:
            raise Unavailable(f"the bus did not confirm within {patience:g} s") from None

    async def _receive(self, delivery: Delivery) -> None:
        self._has_received = True
        try:
            message = msgspec.json.decode(delivery.body, type=Checkpoint)
        except msgspec.DecodeError as error:
            self._log.warn("{election}: an invalid message is ignored: {error}", election=self.name, error=error)
            return
        if message.probe:
            received = self._probes.get(message.probe)
            if received is not None and not received.called:
                received.callback(None)
            return
        self._done |= message.done
        if self._handover is not None and message.agent != self._agent:
            self._handover.received(message.listings)
        begun = {interval: slot for interval, slot in message.begun.items() if self._done.get(interval) != slot}
        if message.agent != self._agent and begun and self.running:
            Deferred.fromCoroutine(self._finish(begun)).addErrback(
                lambda failure: self._log.failure("{election}: cannot finish the work", failure, election=self.name)
            )
        await self._hold_ack()

    async def _finish(self, begun: Mapping[str, int]) -> None:
        """Repeat what the previous leader has begun and not finished, as far as its slots have not ended."""
        self._log.info("{election}: repeating work that the previous leader has not finished", election=self.name)
        intervals = frozenset(float(each) for each in begun)
        slots = self._slots(intervals)
        await self.run_if_leader(frozenset(each for each in intervals if slots[repr(each)] == begun[repr(each)]))

    def _hold_ack(self) -> Deferred[None]:
        """Return the Deferred that holds the newest checkpoint unacknowledged, and acknowledge the previous one."""
        if not self.running:
            return fail(STOPPING)
        self._release_ack(None)
        self._held_ack = Deferred()
        return self._held_ack

    def _release_ack(self, reason: Unavailable | None) -> None:
        held, self._held_ack = self._held_ack, None
        if held is None:
            return
        if reason is None:
            held.callback(None)  # acknowledged
        else:
            held.errback(reason)  # requeued: delivered to the next leader

    def _set_role(self, is_leader: bool) -> None:
        if is_leader != self.is_leader:
            role = "the leader" if is_leader else "on standby; another agent is the leader"
            self._log.info("{election}: this agent is {role}", election=self.name, role=role)
        self.is_leader = is_leader
