"""Leader election: one of several agents works, nothing is done twice, and nothing is skipped when one dies."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import directlyProvides

from meter.agent.leader import LeaderElection
from meter.agent.listing_handover import ListingHandover
from meter.agent.scheduler import AlignedSchedule
from meter.cycle_report import SucceededListing
from meter.interfaces import Delivery
from meter.interfaces import IDependency
from meter.interfaces import Publication
from meter.interfaces import Readiness
from meter.interfaces import Receiver
from meter.interfaces import Subscription
from meter.interfaces import Unavailable

MINUTE = frozenset([60.0])


class QueueOfOne:
    """A broker with one queue that delivers to the first of its subscribers alone, and records what is unacknowledged."""

    def __init__(self) -> None:
        self.subscribers: list[Subscriber] = []
        self.waiting: list[bytes] = []
        self.down = False
        self.silent = False

    def deliver(self) -> None:
        while self.waiting and self.subscribers:
            self.subscribers[0].take(self.waiting.pop(0))


class Subscriber(Service):
    def __init__(self, queue: QueueOfOne, receive: Receiver) -> None:
        self.queue, self.receive = queue, receive
        self.unacknowledged: list[bytes] = []

    @property
    def ready(self) -> bool:
        return self in self.queue.subscribers

    def startService(self) -> None:
        super().startService()
        self.queue.subscribers.append(self)
        self.queue.deliver()

    def stopService(self) -> None:
        super().stopService()
        self.die()

    def die(self) -> None:
        self.queue.subscribers.remove(self)
        self.queue.waiting[:0], self.unacknowledged = self.unacknowledged, []
        self.queue.deliver()

    def take(self, body: bytes) -> None:
        self.unacknowledged.append(body)

        async def work() -> None:
            await self.receive(Delivery(body=body, exchange="metering", routing_key="leader.central"))

        def handled(_: Any) -> None:
            if body in self.unacknowledged:
                self.unacknowledged.remove(body)

        def refused(failure: Any) -> None:
            failure.trap(Unavailable)

        Deferred.fromCoroutine(work()).addCallbacks(handled, refused)


class Bus:
    def __init__(self, queue: QueueOfOne) -> None:
        self.queue = queue
        self.ready = True

    def readiness(self) -> Readiness:
        return Readiness("bus", self.ready, "as the test says")

    async def publish(self, publication: Publication) -> None:
        if self.queue.down:
            raise Unavailable("the broker is down")
        if self.queue.silent:
            await Deferred()
        self.queue.waiting.append(publication.body)
        self.queue.deliver()

    def subscribe(self, subscription: Subscription, receive: Receiver) -> Subscriber:
        assert subscription.single_active
        return Subscriber(self.queue, receive)


class Agent:
    """An agent whose work takes as long as the test wants."""

    def __init__(self, queue: QueueOfOne, clock: Clock, *, slow: bool = False, name: str = "d@a") -> None:
        self.handover = ListingHandover(name)
        self.worked: list[tuple[float, frozenset[float]]] = []
        self.clock, self.slow = clock, slow
        self.bus = Bus(queue)
        self.election = LeaderElection(
            self.bus,  # type: ignore[arg-type]
            "central",
            self.work,
            clock,
            patience_seconds=5,
            handover=self.handover,
        )
        self.election.startService()

    async def work(self, due: frozenset[float]) -> None:
        self.worked.append((self.clock.seconds(), due))
        if self.slow:
            await Deferred()

    def tick(self, due: frozenset[float] = MINUTE) -> None:
        Deferred.fromCoroutine(self.election.run_if_leader(due))

    def die(self) -> None:
        self.election._subscription.die()

    def lose_subscription(self) -> None:
        """Lose only the subscription: the bus is not ready, and still confirms publications."""
        self.die()
        directlyProvides(self.bus, IDependency)
        self.bus.ready = False

    def subscribe_again(self) -> None:
        self.election._subscription.startService()
        self.bus.ready = True

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.worked]


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(600)
    return clock


@pytest.fixture
def queue() -> QueueOfOne:
    return QueueOfOne()


def tick(clock: Clock, *agents: Agent) -> None:
    for agent in agents:
        agent.tick()
    clock.pump([1] * 6)


def test_only_the_leader_of_several_agents_works(queue: QueueOfOne, clock: Clock) -> None:
    agents = [Agent(queue, clock) for _ in range(3)]
    for _ in range(3):
        tick(clock, *agents)
        clock.advance(54)
    assert [each.times for each in agents] == [[600, 660, 720], [], []]
    assert [each.election.is_leader for each in agents] == [True, False, False]


def test_another_agent_takes_over_when_the_leader_dies(queue: QueueOfOne, clock: Clock) -> None:
    first, second = Agent(queue, clock), Agent(queue, clock)
    tick(clock, first, second)
    clock.advance(54)
    first.die()
    tick(clock, second)
    clock.advance(54)
    tick(clock, second)
    assert (first.times, second.times) == ([600], [660, 720])


def test_work_that_the_leader_had_begun_is_repeated_at_once_by_the_next(queue: QueueOfOne, clock: Clock) -> None:
    first, second = Agent(queue, clock, slow=True), Agent(queue, clock)
    tick(clock, first, second)
    clock.advance(10)
    first.die()
    clock.advance(1)
    assert (first.times, second.times) == ([600], [616])
    tick(clock, second)
    assert second.times == [616]


def test_unfinished_work_of_a_past_slot_is_not_repeated(queue: QueueOfOne, clock: Clock) -> None:
    first, second = Agent(queue, clock, slow=True), Agent(queue, clock)
    tick(clock, first, second)
    clock.advance(100)
    first.die()
    clock.advance(1)
    assert second.times == []


def test_agent_that_restarts_does_nothing_twice(queue: QueueOfOne, clock: Clock) -> None:
    first = Agent(queue, clock)
    tick(clock, first)
    first.election.stopService()
    again = Agent(queue, clock)
    tick(clock, again)
    assert again.times == []
    clock.advance(60)
    tick(clock, again)
    assert len(again.times) == 1


def test_intervals_are_tracked_separately(queue: QueueOfOne, clock: Clock) -> None:
    first, second = Agent(queue, clock), Agent(queue, clock)
    both = frozenset([60.0, 300.0])
    first.tick(both)
    clock.advance(60)
    first.die()
    second.tick(both)
    clock.advance(1)
    assert first.worked == [(600, both)]
    assert second.worked == [(660, MINUTE)]


def test_leader_keeps_its_role_without_the_broker(queue: QueueOfOne, clock: Clock) -> None:
    first, second = Agent(queue, clock), Agent(queue, clock)
    tick(clock, first, second)
    queue.down = True
    clock.advance(54)
    tick(clock, first, second)
    clock.pump([1] * 20)
    assert (len(first.times), len(second.times)) == (2, 0)


def test_agent_that_never_reached_the_broker_works(queue: QueueOfOne, clock: Clock) -> None:
    queue.down = True
    alone = Agent(queue, clock)
    tick(clock, alone)
    clock.pump([1] * 20)
    assert len(alone.times) == 1


@pytest.mark.parametrize("how", ["down", "silent"])
def test_no_slot_of_a_short_interval_is_missed_without_the_broker(queue: QueueOfOne, clock: Clock, how: str) -> None:
    agent = Agent(queue, clock)
    schedule = AlignedSchedule(agent.election.run_if_leader, {1.0}, clock, name="cycles")
    schedule.startService()
    clock.pump([0.1] * 30)
    setattr(queue, how, True)
    before = len(agent.times)
    clock.pump([0.1] * 200)
    assert len(agent.times) - before == (20 if how == "down" else pytest.approx(20, abs=11))
    setattr(queue, how, False)
    clock.pump([0.1] * 20)
    assert queue.subscribers[0].unacknowledged != []  # checkpoints are published again


def test_bus_that_is_not_ready_is_not_waited_for(queue: QueueOfOne, clock: Clock) -> None:
    agent = Agent(queue, clock)
    tick(clock, agent)
    directlyProvides(agent.bus, IDependency)
    agent.bus.ready, queue.silent = False, True
    clock.advance(60)
    agent.tick()
    clock.pump([0.5] * 12)
    agent.tick()
    assert len(agent.times) == 2
    clock.advance(60)
    agent.tick()
    assert agent.times[-1] == clock.seconds()


def test_agent_that_lost_its_subscription_is_not_the_leader_though_it_can_publish(
    queue: QueueOfOne, clock: Clock
) -> None:
    first, second = Agent(queue, clock), Agent(queue, clock)
    tick(clock, first, second)
    first.lose_subscription()
    clock.advance(54)
    tick(clock, first, second)
    clock.advance(54)
    first.subscribe_again()
    tick(clock, first, second)
    assert first.times == [600]
    assert second.times == [660, 720]


def test_single_agent_that_lost_its_subscription_briefly_skips_nothing(queue: QueueOfOne, clock: Clock) -> None:
    alone = Agent(queue, clock)
    tick(clock, alone)
    clock.advance(54)
    alone.lose_subscription()
    alone.tick()
    clock.advance(3)
    alone.subscribe_again()
    assert alone.times == [600, 663]


def test_agent_that_never_received_a_delivery_works(queue: QueueOfOne, clock: Clock) -> None:
    alone = Agent(queue, clock)
    alone.lose_subscription()
    for _ in range(3):
        tick(clock, alone)
        clock.pump([1] * 54)
    assert len(alone.times) == 3


def test_only_the_newest_checkpoint_stays_in_the_queue(queue: QueueOfOne, clock: Clock) -> None:
    agents = [Agent(queue, clock), Agent(queue, clock)]
    for _ in range(20):
        tick(clock, *agents)
        clock.advance(54)
    assert len(queue.subscribers[0].unacknowledged) == 1
    assert queue.waiting == []


def test_checkpoint_tells_the_next_leader_whose_lists_it_succeeds(queue: QueueOfOne, clock: Clock) -> None:
    first, second = Agent(queue, clock), Agent(queue, clock, name="d@b")
    third = Agent(queue, clock, name="d@c")
    first.handover.listed("image", "2026-11-27T12:00:00")
    first.handover.listed("volume", "2026-11-27T12:00:00")
    tick(clock, first, second, third)
    assert first.handover.predecessor("image") is None  # its own checkpoint tells it nothing
    assert second.handover.listings == {}
    clock.advance(54)
    first.die()
    assert second.handover.predecessor("image") == SucceededListing("d@a", "2026-11-27T12:00:00")
    second.handover.listed("image", "2026-11-27T12:01:00")
    tick(clock, second, third)
    clock.advance(54)
    second.die()
    tick(clock, third)

    assert third.handover.listings == {
        "image": SucceededListing("d@b", "2026-11-27T12:01:00"),
        "volume": SucceededListing("d@a", "2026-11-27T12:00:00"),
    }


def test_checkpoint_of_an_earlier_version_tells_of_no_lists(queue: QueueOfOne, clock: Clock) -> None:
    agent = Agent(queue, clock)
    queue.waiting.append(b'{"agent": "x", "probe": "", "begun": {}, "done": {"60.0": 10}, "of a later version": 1}')
    queue.deliver()
    tick(clock, agent)
    assert (agent.times, agent.handover.listings) == ([], {})


def test_invalid_message_is_ignored(queue: QueueOfOne, clock: Clock) -> None:
    agent = Agent(queue, clock)
    queue.waiting += [b"nonsense", b"{}"]
    queue.deliver()
    tick(clock, agent)
    assert agent.times == [600]
