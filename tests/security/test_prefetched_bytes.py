"""Large messages, however many wait on the bus, do not fill the memory of a collector, and none is lost or stays behind."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.bus.amqp.prefetch import PrefetchBudget
from meter.daemon.services import sleep
from meter.interfaces import Binding
from meter.interfaces import Publication
from meter.interfaces import Subscription
from tests.chaos.broker import waiting_messages
from tests.waiting import until

MIB = 1024 * 1024
QUEUE = "meter.samples"
BINDINGS = (Binding("metering", "metering.#", ours=True),)
SAMPLES = Subscription(queue=QUEUE, bindings=BINDINGS, prefetch=200)
BUDGET = 10 * MIB


def large(number: int, size: int = MIB) -> Publication:
    return Publication(exchange="metering", routing_key="metering.cpu", body=b"%08d" % number + b"x" * (size - 8))


def small(number: int) -> Publication:
    return Publication(exchange="metering", routing_key="metering.cpu", body=b"small %d" % number)


class Holding:
    """A receiver that keeps each delivery until :meth:`go_on`, and knows how many bytes it holds."""

    def __init__(self) -> None:
        self.seen: Counter[bytes] = Counter()
        self.done: set[bytes] = set()
        self.sizes: list[int] = []
        self.held_bytes = self.most_bytes = 0
        self._waiting: list[Deferred[None]] = []
        self.holds = True

    async def __call__(self, delivery: Any) -> None:
        size, name = len(delivery.body), delivery.body[:16].rstrip(b"x")
        self.seen[name] += 1
        self.sizes.append(size)
        self.held_bytes += size
        self.most_bytes = max(self.most_bytes, self.held_bytes)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if not self.holds:
            reactor.callLater(0.001, waiting.callback, None)
        await waiting
        self.held_bytes -= size
        self.done.add(name)

    def go_on(self) -> None:
        self.holds = False
        for each in self._waiting:
            if not each.called:
                each.callback(None)


async def declared(bus: Any) -> None:
    """Let the queue exist, without a consumer."""
    service = bus.subscribe(SAMPLES, Holding())
    service.startService()
    await until(lambda: service.ready and bus.readiness().ready)
    await service.stopService()


def kept_by_parser(service: Any) -> int:
    """Return the bytes of bodies that the consumer itself counts."""
    return int(service._budget.held_bytes)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest_twisted.ensureDeferred
async def test_two_hundred_large_messages_stay_within_the_budget_and_small_ones_follow(amqp_bus, rabbitmq, queue_type):
    url = rabbitmq.vhost()
    bus = amqp_bus(url, queue_type=queue_type, max_prefetched_bytes=BUDGET)
    await declared(bus)
    for number in range(200):
        await bus.publish(large(number))
    for number in range(500):
        await bus.publish(small(number))
    receiver = Holding()
    service = bus.subscribe(SAMPLES, receiver)
    service.startService()
    try:
        await until(lambda: receiver.held_bytes == BUDGET)
        await sleep(reactor, 0.5)  # for anything that is still on its way
        assert receiver.most_bytes == kept_by_parser(service) == BUDGET
        receiver.go_on()
        await until(lambda: len(receiver.done) == 700)
        assert receiver.most_bytes <= BUDGET
        # Each was received once: what did not fit came back without being delivered to the receiver.
        assert set(receiver.seen.values()) == {1}
        await until(lambda: waiting_messages(url, QUEUE) == 0)
        assert kept_by_parser(service) == 0
        assert service._consumption._prefetch == SAMPLES.prefetch  # small messages have the full prefetch again
    finally:
        await service.stopService()


@pytest_twisted.ensureDeferred
async def test_message_larger_than_the_budget_is_received_alone(amqp_bus, rabbitmq):
    bus = amqp_bus(rabbitmq.vhost(), max_prefetched_bytes=MIB)
    await declared(bus)
    for number in range(5):
        await bus.publish(large(number, 3 * MIB))
    receiver = Holding()
    service = bus.subscribe(SAMPLES, receiver)
    service.startService()
    try:
        await until(lambda: receiver.held_bytes)
        await sleep(reactor, 0.3)
        assert receiver.held_bytes == 3 * MIB
        receiver.go_on()
        await until(lambda: len(receiver.done) == 5)
        assert receiver.most_bytes == 3 * MIB
    finally:
        await service.stopService()


@pytest_twisted.ensureDeferred
async def test_stop_while_receiving_pauses_leaves_the_rest_in_the_queue(amqp_bus, rabbitmq):
    url = rabbitmq.vhost()
    bus = amqp_bus(url, max_prefetched_bytes=BUDGET)
    await declared(bus)
    for number in range(50):
        await bus.publish(large(number))
    receiver = Holding()
    service = bus.subscribe(SAMPLES, receiver)
    service.startService()
    await until(lambda: receiver.held_bytes == BUDGET)
    stopped = service.stopService()
    receiver.go_on()
    await stopped
    assert len(receiver.done) == 10
    await until(lambda: waiting_messages(url, QUEUE) == 40)


@pytest_twisted.ensureDeferred
async def test_lost_connection_while_receiving_pauses_loses_nothing(amqp_bus, rabbitmq):
    url = rabbitmq.vhost()
    bus = amqp_bus(url, max_prefetched_bytes=BUDGET)
    await declared(bus)
    for number in range(50):
        await bus.publish(large(number))
    receiver = Holding()
    service = bus.subscribe(SAMPLES, receiver)
    service.startService()
    try:
        await until(lambda: receiver.held_bytes == BUDGET)
        cut = bus._consuming.client
        cut.abort("cut by the test")
        await until(lambda: service.ready and bus._consuming.client is not cut)
        await sleep(reactor, 0.3)
        assert receiver.most_bytes == BUDGET  # those of the lost channel count until they are done
        receiver.go_on()
        await until(lambda: len(receiver.done) == 50)
        await until(lambda: waiting_messages(url, QUEUE) == 0)
        assert receiver.most_bytes <= BUDGET
        assert kept_by_parser(service) == 0
    finally:
        await service.stopService()


@pytest.mark.parametrize(
    "subscription", [Subscription(queue=QUEUE, bindings=BINDINGS, prefetch=20, single_active=True)]
)
@pytest_twisted.ensureDeferred
async def test_active_consumer_stays_the_active_one(amqp_bus, rabbitmq, subscription):
    bus = amqp_bus(rabbitmq.vhost(), max_prefetched_bytes=MIB)
    active, other = Holding(), Holding()
    services = [bus.subscribe(subscription, each) for each in (active, other)]
    for service in services:
        service.startService()
        await until(lambda service=service: service.ready and bus.readiness().ready)
    try:
        for number in range(5):
            await bus.publish(large(number))
        await until(lambda: len(active.seen) == 5)
        active.go_on()
        await until(lambda: len(active.done) == 5)
        assert not other.seen
    finally:
        for service in services:
            await service.stopService()


# --- how many messages are received at a time ---------------------------------------------------------------------------


def test_prefetch_follows_the_largest_body_until_as_many_small_ones_came() -> None:
    budget = PrefetchBudget(1000, max_prefetch=50)
    assert budget.prefetch == 50
    budget.seen(100)
    assert budget.prefetch == 5
    for _ in range(49):
        budget.seen(10)
    assert budget.prefetch == 5
    budget.seen(60)  # too large for the full prefetch
    for _ in range(49):
        budget.seen(10)
    assert budget.prefetch == 5
    budget.seen(10)
    assert budget.prefetch == 50
    budget.seen(10**9)
    assert budget.prefetch == 1


def test_one_body_always_fits_and_a_second_one_only_within_the_budget() -> None:
    budget = PrefetchBudget(1000, max_prefetch=50)
    assert budget.fits(5000)
    budget.hold(400)
    assert budget.fits(600)
    assert not budget.fits(601)


def test_there_is_room_once_half_of_the_bytes_are_free() -> None:
    budget = PrefetchBudget(1000, max_prefetch=50)
    for size in (500, 400):
        budget.hold(size)
    fired: list[str] = []
    waiting = [budget.room() for _ in range(3)]
    for number, each in enumerate(waiting):
        each.addCallbacks(lambda _, number=number: fired.append(str(number)), lambda failure: failure.trap(Exception))
    waiting[1].cancel()
    budget.release(300)
    assert fired == []
    budget.release(100)
    assert fired == ["0", "2"]
    budget.room().addCallback(lambda _: fired.append("at once"))
    assert fired[-1] == "at once"
