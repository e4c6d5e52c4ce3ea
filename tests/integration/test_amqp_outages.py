"""A broker that is down, refuses, hangs or restarts: the bus reports it and loses no message."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults
from twisted.internet.defer import maybeDeferred
from twisted.internet.threads import deferToThread

from meter.bus.amqp import AmqpBus
from meter.daemon.services import sleep
from meter.interfaces import Binding
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.interfaces import Unavailable
from tests.waiting import published
from tests.waiting import until

SAMPLES = Subscription(queue="meter.samples", bindings=(Binding("metering", "metering.#", ours=True),))


def cpu(body):
    return Publication(exchange="metering", routing_key="metering.cpu", body=body)


@pytest.fixture
def thawed(rabbitmq):
    """The server, which goes on after the test however that ends."""
    yield rabbitmq
    rabbitmq.thaw()


async def consuming(bus, subscription, receive):
    service = bus.subscribe(subscription, receive)
    service.startService()
    await until(lambda: bus.readiness().ready)
    return service


async def ignore(delivery):
    pass


async def first_reason(bus):
    """Return why the first attempt to connect failed."""
    await until(lambda: not bus.readiness().reason.startswith("connecting to"))
    return bus.readiness().reason


@pytest_twisted.ensureDeferred
async def test_bus_without_a_broker_starts_reports_why_and_connects_later(amqp_bus, rabbitmq):
    url = rabbitmq.vhost()
    await deferToThread(rabbitmq.stop)
    bus = amqp_bus(url)
    try:
        await until(lambda: "Connection refused" in bus.readiness().reason)
        assert not bus.readiness().ready
        with pytest.raises(Unavailable, match="Connection refused"):
            await bus.publish(cpu(b""))
    finally:
        await deferToThread(rabbitmq.start)
    await until(lambda: bus.readiness().ready)
    assert "connected to RabbitMQ " in bus.readiness().reason


@pytest_twisted.ensureDeferred
async def test_five_hundred_messages_survive_a_restart_of_the_broker(amqp_bus, rabbitmq):
    bus, received, confirmed, refused = amqp_bus(window=20), set(), [], []

    async def receive(delivery):
        received.add(delivery.body)

    service = await consuming(bus, SAMPLES, receive)
    outage = None
    for start in range(0, 500, 50):
        if start == 200:
            outage = deferToThread(rabbitmq.restart)

        async def publish(number):
            while True:
                try:
                    await bus.publish(cpu(b"%d" % number))
                    confirmed.append(number)
                    return
                except Unavailable as error:
                    refused.append(str(error))
                    await sleep(reactor, 0.2)

        await gatherResults([Deferred.fromCoroutine(publish(number)) for number in range(start, start + 50)])
        await sleep(reactor, 0.01)
    await outage
    assert sorted(confirmed) == list(range(500))
    assert refused
    assert "guest:guest" not in "".join(refused)
    await until(lambda: received == {b"%d" % number for number in range(500)})
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_power_cut_loses_nothing_that_was_confirmed(amqp_bus, rabbitmq):
    bus, received = amqp_bus(), set()
    service = await consuming(bus, SAMPLES, ignore)
    await service.stopService()
    for number in range(20):
        await bus.publish(cpu(b"%d" % number))
    rabbitmq.kill()
    await deferToThread(rabbitmq.start)

    async def receive(delivery):
        received.add(delivery.body)

    await until(lambda: bus.readiness().ready)
    service = await consuming(bus, SAMPLES, receive)
    await until(lambda: len(received) == 20)
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_wrong_password_is_reported_at_once_and_never_shown(amqp_bus, rabbitmq):
    bus = amqp_bus(rabbitmq.url.replace("guest:guest", "guest:s3cret%2F"))
    reason = await first_reason(bus)
    assert "403 ACCESS_REFUSED" in reason
    assert "user guest" in reason
    assert "s3cret" not in reason


@pytest_twisted.ensureDeferred
async def test_missing_virtual_host_is_reported(amqp_bus, rabbitmq):
    bus = amqp_bus(f"{rabbitmq.url[:-3]}no%2Fwhere")
    assert "vhost no/where not found" in await first_reason(bus)


@pytest_twisted.ensureDeferred
async def test_broker_that_confirms_nothing_is_disconnected(amqp_bus, thawed):
    bus = amqp_bus(confirm_timeout_seconds=0.5)
    service = await consuming(bus, SAMPLES, ignore)
    thawed.freeze()
    with pytest.raises(Unavailable, match=r"not confirmed within 0\.5 s"):
        await bus.publish(cpu(b"stuck"))
    with pytest.raises(Unavailable, match=r"confirmed nothing for 0\.5 s"):
        await bus.publish(cpu(b"next"))
    thawed.thaw()
    await until(lambda: bus.readiness().ready)
    await published(bus, cpu(b"after"))
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_silent_broker_is_detected_by_missing_heartbeats(amqp_bus, thawed):
    bus = amqp_bus(heartbeat_seconds=1)
    await until(lambda: bus.readiness().ready)
    await sleep(reactor, 3.5)
    assert bus.readiness().ready
    thawed.freeze()
    await until(lambda: "the broker was silent for" in bus.readiness().reason)
    thawed.thaw()
    await until(lambda: bus.readiness().ready)


@pytest_twisted.ensureDeferred
async def test_stop_does_not_wait_for_a_broker_that_hangs(thawed):
    # Nothing but the end of its patience ends it: the broker would be missed after days.
    bus = AmqpBus(reactor, thawed.vhost(), clock=reactor, stop_seconds=1.0, heartbeat_seconds=50_000)
    bus.startService()
    service = await consuming(bus, SAMPLES, ignore)
    thawed.freeze()
    publishing = Deferred.fromCoroutine(bus.publish(cpu(b"stuck")))
    await service.stopService()
    await bus.stopService()
    with pytest.raises(Unavailable):
        await publishing
    with pytest.raises(Unavailable, match="stopped"):
        await bus.publish(cpu(b"late"))


@pytest_twisted.ensureDeferred
async def test_publishing_waits_for_a_blocking_broker_and_consuming_continues(amqp_bus, rabbitmq):
    bus, patient, received = amqp_bus(confirm_timeout_seconds=3.0), amqp_bus(confirm_timeout_seconds=120.0), []

    async def receive(delivery):
        received.append(delivery.body)

    service = await consuming(bus, SAMPLES, ignore)
    await service.stopService()
    for number in range(20):
        await bus.publish(cpu(b"%d" % number))
    await deferToThread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0")
    try:
        first = Deferred.fromCoroutine(bus.publish(cpu(b"first")))
        await until(lambda: bus.readiness().reason == "the broker blocks publishing: low on memory")
        second = Deferred.fromCoroutine(bus.publish(cpu(b"second")))
        service = bus.subscribe(Subscription(queue=SAMPLES.queue, prefetch=1), receive)
        service.startService()
        await until(lambda: len(received) >= 20)
        with pytest.raises(Unavailable, match="not confirmed within 3 s: the broker blocks publishing: low on memory"):
            await first
        with pytest.raises(Unavailable, match="not sent within 3 s: the broker blocks publishing: low on memory"):
            await second
        third = Deferred.fromCoroutine(patient.publish(cpu(b"third")))
    finally:
        await deferToThread(rabbitmq.ctl, "set_vm_memory_high_watermark", "absolute", "1GB")
    await third
    await until(lambda: b"third" in received)
    assert b"second" not in received
    assert bus.readiness().ready
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_tls_connects_with_the_configured_ca(amqp_bus, rabbitmq):
    bus = amqp_bus(rabbitmq.vhost(tls=True))
    received = []

    async def receive(delivery):
        received.append(delivery.body)

    service = await consuming(bus, SAMPLES, receive)
    await bus.publish(cpu(b"x" * 300_000))
    await until(lambda: received == [b"x" * 300_000])
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_tls_refuses_a_broker_without_a_trusted_certificate(amqp_bus, rabbitmq):
    bus = amqp_bus(rabbitmq.vhost(tls=True).partition("?")[0])
    await until(lambda: "no trusted CA (the system's" in bus.readiness().reason)
    assert not bus.readiness().ready


@pytest_twisted.ensureDeferred
async def test_administrator_sees_who_is_connected(amqp_bus, rabbitmq):
    bus = amqp_bus(name="meter-collector")
    service = await consuming(bus, SAMPLES, ignore)
    listed = await deferToThread(rabbitmq.ctl, "list_connections", "client_properties", "timeout")
    assert '"connection_name","meter-collector publishing"' in listed
    assert '"connection_name","meter-collector consuming"' in listed
    assert '"product","Meter"' in listed
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_no_connection_is_left_behind_by_refusals_and_stops(rabbitmq):
    url = rabbitmq.vhost()
    for address in (url, url.replace("guest:guest", "guest:wrong")) * 3:
        bus = AmqpBus(reactor, address, clock=reactor)
        bus.startService()
        await until(lambda bus=bus: bus.readiness().ready or "403" in bus.readiness().reason)
        await maybeDeferred(bus.stopService)
    listed = await deferToThread(rabbitmq.ctl, "list_connections", "vhost")
    assert url.rpartition("/")[2] not in listed.split()
