"""The in-process bus, beyond the contract of every bus in tests/contract/test_bus.py."""

from __future__ import annotations

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.bus.local import LocalBus
from meter.bus.local import topic_matches
from meter.interfaces import Binding
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.interfaces import Unavailable

CPU = Publication(exchange="metering", routing_key="metering.cpu", body=b"{}")
EVERYTHING = (Binding("metering", "#", ours=True),)
DEAD = Publication(exchange="", routing_key="metering.dead", body=b"")


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("metering.cpu", "metering.cpu", True),
        ("metering.cpu", "metering.cpu.util", False),
        ("metering.*", "metering.cpu", True),
        ("metering.*", "metering.disk.read", False),
        ("metering.*", "metering", False),
        ("metering.#", "metering", True),
        ("metering.#", "metering.disk.read.bytes", True),
        ("#", "", True),
        ("#.bytes", "metering.disk.bytes", True),
        ("#.bytes", "bytes", True),
        ("metering.#.bytes", "metering.disk.read.bytes", True),
        ("metering.#.bytes", "metering.bytes", True),
        ("metering.#.bytes", "metering.bytes.more", False),
        ("*.*", "a.b", True),
        ("*", "", True),
        ("", "", True),
        ("metering", "meteringx", False),
        ("m+", "m+", True),
        ("m.", "m.", True),
    ],
)
def test_topic_patterns_match_as_in_amqp(pattern, key, matches):
    assert topic_matches(pattern, key) is matches


@given(st.lists(st.text("ab", max_size=2), min_size=1, max_size=6))
def test_routing_key_matches_itself_and_every_pattern_made_from_it(words):
    key = ".".join(words)
    assert topic_matches(key, key)
    assert topic_matches(".".join("*" for _ in words), key)
    assert topic_matches(f"#.{key}.#", key)
    assert not topic_matches(f"*.{key}", key)


def collecting(bus, queue, into, bindings=EVERYTHING, prefetch=200):
    async def receive(delivery):
        into.append(delivery)

    service = bus.subscribe(Subscription(queue=queue, bindings=bindings, prefetch=prefetch), receive)
    service.startService()
    return service


@pytest_twisted.ensureDeferred
async def test_publish_returns_after_all_receivers():
    bus, gate, got = LocalBus(Clock()), Deferred(), []

    async def slow(delivery):
        await gate

    collecting(bus, "quick", got)
    service = bus.subscribe(Subscription(queue="slow", bindings=EVERYTHING), slow)
    service.startService()
    publishing = Deferred.fromCoroutine(bus.publish(CPU))
    assert got
    assert not publishing.called
    gate.callback(None)
    await publishing


@pytest_twisted.ensureDeferred
async def test_unavailable_receiver_fails_the_publication_after_the_others_have_returned():
    bus, gate, done = LocalBus(Clock()), Deferred(), []

    async def refuse(delivery):
        raise Unavailable("the store is down")

    async def slow(delivery):
        await gate
        done.append(delivery)

    for queue, receive in (("refusing", refuse), ("slow", slow)):
        bus.subscribe(Subscription(queue=queue, bindings=EVERYTHING), receive).startService()
    publishing = Deferred.fromCoroutine(bus.publish(CPU))
    assert not publishing.called
    gate.callback(None)
    with pytest.raises(Unavailable, match="the store is down"):
        await publishing
    assert done


@pytest_twisted.ensureDeferred
async def test_publication_without_a_running_receiver_is_refused():
    bus, got = LocalBus(Clock()), []
    with pytest.raises(
        Unavailable, match=r"no subscription is bound to exchange 'metering' with routing key 'metering\.cpu'"
    ):
        await bus.publish(CPU)
    service = collecting(bus, "q", got)
    await bus.publish(CPU)
    await service.stopService()
    with pytest.raises(Unavailable):
        await bus.publish(CPU)
    assert len(got) == 1


@pytest_twisted.ensureDeferred
async def test_delivery_waiting_for_prefetch_at_the_stop_is_refused():
    bus, gates = LocalBus(Clock()), []

    async def receive(delivery):
        gates.append(Deferred())
        await gates[-1]

    service = bus.subscribe(Subscription(queue="q", bindings=EVERYTHING, prefetch=1), receive)
    service.startService()
    first, second = (Deferred.fromCoroutine(bus.publish(CPU)) for _ in range(2))
    stopping = service.stopService()
    assert not stopping.called
    gates[0].callback(None)
    await first
    await stopping
    with pytest.raises(Unavailable, match="the subscription to q is stopped"):
        await second
    assert len(gates) == 1


@pytest_twisted.ensureDeferred
async def test_default_exchange_routes_by_queue_name():
    bus, got, other = LocalBus(Clock()), [], []
    collecting(bus, "q", got, bindings=())
    collecting(bus, "other", other, bindings=())
    await bus.publish(Publication(exchange="", routing_key="q", body=b"direct"))
    assert [each.body for each in got] == [b"direct"]
    assert other == []


@pytest_twisted.ensureDeferred
async def test_dead_letters_go_to_the_given_store():
    kept = []

    async def keep(publication):
        kept.append(publication)

    bus = LocalBus(Clock(), store_dead_letter=keep)
    await bus.publish(DEAD)
    assert kept == [DEAD]
    assert not bus.dead_letters


@pytest_twisted.ensureDeferred
async def test_dead_letters_in_memory_are_bounded():
    bus = LocalBus(Clock())
    for _ in range(1100):
        await bus.publish(DEAD)
    assert len(bus.dead_letters) == 1000


@pytest_twisted.ensureDeferred
async def test_receiver_error_is_counted_and_dead_lettered_before_the_publication_succeeds(logged_errors):
    counted, kept = [], []

    async def keep(publication):
        if not kept:
            kept.append("refused")
            raise Unavailable("no place for dead letters")
        kept.append(publication)

    async def receive(delivery):
        raise LookupError("no such thing")

    bus = LocalBus(Clock(), store_dead_letter=keep, count_dead=counted.append)
    bus.subscribe(Subscription(queue="q", bindings=EVERYTHING), receive).startService()
    with pytest.raises(Unavailable, match="no place"):
        await bus.publish(CPU)
    assert counted == []
    await bus.publish(CPU)
    assert counted == ["defect"]
    assert kept[1].headers["meter-reason"] == "LookupError: no such thing"
    logged_errors.flush(LookupError)


@pytest_twisted.ensureDeferred
async def test_receiver_error_in_the_dead_letter_queue_is_not_dead_lettered_again(logged_errors):
    attempts = []

    async def receive(delivery):
        attempts.append(delivery)
        raise LookupError("always")

    bus = LocalBus(Clock())
    bus.subscribe(Subscription(queue="metering.dead"), receive).startService()
    with pytest.raises(Unavailable, match="LookupError: always"):
        await bus.publish(DEAD)
    assert len(attempts) == 1
    logged_errors.flush(LookupError)


def test_local_bus_is_always_ready():
    readiness = LocalBus(Clock()).readiness()
    assert (readiness.name, readiness.ready, readiness.reason) == ("bus", True, "in this process")
