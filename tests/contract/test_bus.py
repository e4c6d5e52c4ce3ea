"""What every bus does: the same tests on the bus within a process and on RabbitMQ."""

from __future__ import annotations

import uuid

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from zope.interface.verify import verifyObject

from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.local import LocalBus
from meter.daemon.services import sleep
from meter.interfaces import Binding
from meter.interfaces import IBus
from meter.interfaces import IDependency
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.interfaces import Unavailable
from tests.waiting import published
from tests.waiting import until

SAMPLES = Subscription(queue="meter.samples", bindings=(Binding("metering", "metering.#", ours=True),), prefetch=5)
CPU = Publication(exchange="metering", routing_key="metering.cpu", body=b'{"name": "cpu"}')


@pytest.fixture(params=["local", "amqp"])
def bus(request):
    if request.param == "local":
        return LocalBus(reactor)
    return request.getfixturevalue("amqp_bus")()


@pytest.fixture
def subscribed(bus):
    """Starts subscriptions and waits until they receive; stops them after the test."""
    started = []

    async def subscribe(subscription, receive):
        service = bus.subscribe(subscription, receive)
        service.startService()
        started.append(service)
        await until(lambda: bus.readiness().ready)
        return service

    yield subscribe
    for service in started:
        if service.running:
            pytest_twisted.blockon(service.stopService())


def test_a_bus_provides_what_it_promises(bus):
    verifyObject(IBus, bus)
    verifyObject(IDependency, bus)


@pytest_twisted.ensureDeferred
async def test_what_is_published_arrives_as_it_was(bus, subscribed):
    got = []

    async def receive(delivery):
        got.append(delivery)

    await subscribed(SAMPLES, receive)
    body = '{"name": "Zoë"}'.encode()
    headers = {"text": "日本", "number": -5, "large": 2**40, "yes": True}
    await bus.publish(Publication(exchange="metering", routing_key="metering.ü", body=body, headers=headers))
    await until(lambda: got)
    [delivery] = got
    assert (delivery.body, delivery.exchange, delivery.routing_key) == (body, "metering", "metering.ü")
    assert delivery.headers == headers
    assert delivery.headers["yes"] is True
    assert not delivery.redelivered


@pytest_twisted.ensureDeferred
async def test_an_empty_body_arrives(bus, subscribed):
    got = []

    async def receive(delivery):
        got.append(delivery.body)

    await subscribed(SAMPLES, receive)
    await bus.publish(Publication(exchange="metering", routing_key="metering.cpu", body=b""))
    await until(lambda: got)
    assert got == [b""]


@pytest.mark.parametrize(
    ("pattern", "arrives"),
    [("metering.cpu", 1), ("metering.*", 1), ("*.cpu", 1), ("#", 1), ("metering.cpu.#", 1), ("metering.disk.*", 0)],
)
@pytest_twisted.ensureDeferred
async def test_a_binding_takes_what_its_pattern_matches(bus, subscribed, pattern, arrives):
    chosen, everything = [], []

    async def choose(delivery):
        chosen.append(delivery)

    async def take(delivery):
        everything.append(delivery)

    await subscribed(SAMPLES, take)
    await subscribed(Subscription(queue="chosen", bindings=(Binding("metering", pattern, ours=True),)), choose)
    await bus.publish(CPU)
    await bus.publish(Publication(exchange="metering", routing_key="metering.end", body=b""))
    await until(lambda: len(everything) == 2 and len(chosen) >= arrives)
    assert [each.routing_key for each in chosen].count("metering.cpu") == arrives


@pytest_twisted.ensureDeferred
async def test_what_no_queue_wants_is_not_safe(bus, subscribed):
    async def receive(delivery):
        pass

    await subscribed(SAMPLES, receive)
    with pytest.raises(Unavailable, match=r"elsewhere\.cpu"):
        await bus.publish(Publication(exchange="metering", routing_key="elsewhere.cpu", body=b""))


@pytest_twisted.ensureDeferred
async def test_a_receiver_that_is_unavailable_gets_the_message_again(bus, subscribed):
    attempts = []

    async def receive(delivery):
        attempts.append(delivery.body)
        if len(attempts) < 3:
            raise Unavailable("the store is down")

    await subscribed(SAMPLES, receive)
    await published(bus, CPU)
    await until(lambda: len(attempts) >= 3)
    assert attempts == [CPU.body] * 3


@pytest_twisted.ensureDeferred
async def test_a_defect_makes_a_dead_letter_and_the_next_message_arrives(bus, subscribed, logged_errors):
    dead, received = [], []

    async def receive(delivery):
        if delivery.body == b"bad":
            raise ZeroDivisionError("cannot be done: ü")
        received.append(delivery.body)

    async def bury(delivery):
        dead.append(delivery)

    await subscribed(SAMPLES, receive)
    await subscribed(Subscription(queue=DEAD_LETTER_QUEUE), bury)
    await bus.publish(Publication(exchange="metering", routing_key="metering.cpu", body=b"bad"))
    await bus.publish(CPU)
    await until(lambda: dead and received)
    assert received == [CPU.body]
    [letter] = dead
    assert letter.body == b"bad"
    headers = dict(letter.headers)
    assert headers.pop("meter-at").startswith("20")
    assert uuid.UUID(headers.pop("meter-id")).version == 4
    assert headers == {
        "meter-reason": "ZeroDivisionError: cannot be done: \\xfc",
        "meter-kind": "defect",
        "meter-exchange": "metering",
        "meter-routing-key": "metering.cpu",
        "meter-queue": "meter.samples",
    }
    logged_errors.flush(ZeroDivisionError)


@pytest_twisted.ensureDeferred
async def test_a_defect_with_a_dead_letter_makes_no_second_one(bus, subscribed, logged_errors):
    attempts = []

    async def receive(delivery):
        attempts.append(delivery.body)
        if len(attempts) == 1:
            raise LookupError("once")

    await subscribed(Subscription(queue=DEAD_LETTER_QUEUE), receive)
    await published(bus, Publication(exchange="", routing_key=DEAD_LETTER_QUEUE, body=b"letter"))
    await until(lambda: len(attempts) >= 2)
    await sleep(reactor, 0.1)
    assert attempts == [b"letter", b"letter"]
    logged_errors.flush(LookupError)


@pytest_twisted.ensureDeferred
async def test_a_receiver_has_at_most_prefetch_deliveries_in_hand(bus, subscribed):
    in_hand, most, done = [], [], []

    async def receive(delivery):
        in_hand.append(delivery)
        most.append(len(in_hand))
        await sleep(reactor, 0.02)
        in_hand.remove(delivery)
        done.append(delivery)

    await subscribed(SAMPLES, receive)
    await gatherResults([Deferred.fromCoroutine(bus.publish(CPU)) for _ in range(20)])
    await until(lambda: len(done) == 20)
    assert max(most) == SAMPLES.prefetch


@pytest_twisted.ensureDeferred
async def test_two_receivers_of_a_queue_share_its_messages(bus, subscribed):
    first, second = [], []

    async def receive_first(delivery):
        first.append(delivery.body)
        await sleep(reactor, 0.01)

    async def receive_second(delivery):
        second.append(delivery.body)
        await sleep(reactor, 0.01)

    await subscribed(SAMPLES, receive_first)
    await subscribed(SAMPLES, receive_second)
    bodies = [b"%d" % number for number in range(20)]
    await gatherResults(
        [
            Deferred.fromCoroutine(bus.publish(Publication(exchange="metering", routing_key="metering.x", body=body)))
            for body in bodies
        ]
    )
    await until(lambda: len(first) + len(second) == 20)
    assert sorted(first + second) == sorted(bodies)
    assert first
    assert second


@pytest_twisted.ensureDeferred
async def test_stopping_waits_for_what_is_in_hand_and_takes_no_more(bus, subscribed):
    begun, ended = [], []
    gate = Deferred()

    async def receive(delivery):
        begun.append(delivery)
        await gate
        ended.append(delivery)

    service = await subscribed(SAMPLES, receive)
    publishing = Deferred.fromCoroutine(bus.publish(CPU))
    await until(lambda: begun)
    stopping = service.stopService()
    await sleep(reactor, 0.05)
    assert not stopping.called
    gate.callback(None)
    await stopping
    await publishing
    assert len(ended) == 1


@pytest_twisted.ensureDeferred
async def test_a_subscription_can_be_started_again(bus, subscribed):
    got = []

    async def receive(delivery):
        got.append(delivery)

    service = await subscribed(SAMPLES, receive)
    await service.stopService()
    service.startService()
    await until(lambda: bus.readiness().ready)
    await published(bus, CPU)
    await until(lambda: got)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"body": b"x" * (16 * 1024 * 1024 + 1)}, "16777217 bytes"),
        ({"headers": {"pi": 3.14}}, "pi"),
        ({"headers": {"none": None}}, "none"),
        ({"headers": {"list": [1]}}, "list"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_no_bus_could_take_is_refused_and_harms_nobody(bus, subscribed, bad, named):
    got = []

    async def receive(delivery):
        got.append(delivery)

    await subscribed(SAMPLES, receive)
    with pytest.raises(ValueError, match=named):
        await bus.publish(Publication(**{"exchange": "metering", "routing_key": "metering.cpu", "body": b"", **bad}))
    await bus.publish(CPU)
    await until(lambda: got)
    assert [each.body for each in got] == [CPU.body]


BESIDE = Subscription(
    queue="listening-in", bindings=(Binding("metering", "metering.cpu", ours=True),), observe_queue=SAMPLES.queue
)


@pytest_twisted.ensureDeferred
async def test_who_listens_in_hears_what_others_get_and_may_begin_again(bus, subscribed):
    got, heard = [], []

    async def receive(delivery):
        got.append(delivery.body)

    async def hear(delivery):
        heard.append(delivery.body)

    await subscribed(SAMPLES, receive)
    listening = bus.subscribe(BESIDE, hear)
    for count in (1, 2):
        listening.startService()
        await until(lambda: listening.ready)
        await bus.publish(CPU)
        await until(lambda count=count: len(heard) == len(got) == count)
        await listening.stopService()
    await bus.publish(CPU)
    await until(lambda: len(got) == 3)
    assert len(heard) == 2


@pytest_twisted.ensureDeferred
async def test_what_only_a_listener_would_get_is_not_safe(bus, subscribed):
    async def hear(delivery):
        pass

    await subscribed(BESIDE, hear)  # ready though there is nothing to listen to
    await until(lambda: bus.readiness().ready)
    with pytest.raises(Unavailable):
        await bus.publish(CPU)
