"""Faults of txAMQP 0.8.2 and peculiarities of RabbitMQ that the client handles, on a real RabbitMQ."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from decimal import Decimal

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from txamqp.content import Content

from meter.bus.amqp.channel import ChannelLost
from meter.daemon.services import sleep
from meter.interfaces import Binding
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.interfaces import Unavailable
from tests.waiting import published
from tests.waiting import until

SAMPLES = Subscription(queue="meter.samples", bindings=(Binding("metering", "metering.#", ours=True),))


def cpu(body, **headers):
    return Publication(exchange="metering", routing_key="metering.cpu", body=body, headers=headers)


class Received:
    """A receiver that keeps its deliveries."""

    def __init__(self):
        self.deliveries = []

    async def __call__(self, delivery):
        self.deliveries.append(delivery)

    @property
    def bodies(self):
        return [each.body for each in self.deliveries]


@pytest.fixture
def consuming():
    """Starts a subscription on a bus and waits until it consumes; stops it after the test."""
    services = []

    async def consume(bus, subscription, receive):
        service = bus.subscribe(subscription, receive)
        service.startService()
        services.append(service)
        await until(lambda: bus.readiness().ready)
        return service

    yield consume
    for service in services:
        pytest_twisted.blockon(service.stopService())


async def published_raw(client, routing_key, body, **properties):
    """Publish to a queue with properties of one's own, and wait for the confirmation."""
    channel = await client.open_channel()
    await channel.confirm_select()
    confirmed = Deferred()
    channel.on_ack = lambda message: confirmed.callback(None)
    channel.basic_publish(routing_key=routing_key, content=Content(body, properties=properties))
    await confirmed
    await channel.close(2)


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        '{"name":"Zoë"}'.encode(),
        ("日本語🚀ü" * 20_000).encode()[:300_001],
        b"x" * 131_064,  # exactly one frame
        b"x" * 131_065,
        bytes(range(256)) * 1000,
    ],
    ids=["umlaut", "300 kB cut within a character", "one frame", "one byte more", "binary"],
)
@pytest_twisted.ensureDeferred
async def test_body_that_is_not_ascii_arrives_and_so_does_the_next(amqp_bus, consuming, body):
    bus, received = amqp_bus(), Received()
    await consuming(bus, SAMPLES, received)
    await bus.publish(cpu(body))
    await bus.publish(cpu(b"next"))
    await until(lambda: len(received.deliveries) == 2)
    assert received.bodies == [body, b"next"]


@pytest_twisted.ensureDeferred
async def test_body_that_is_too_large_is_dead_lettered_truncated(amqp_bus, consuming, rabbitmq):
    url, received, dead, counted = rabbitmq.vhost(), Received(), Received(), []
    bus = amqp_bus(url, max_body_bytes=100_000, count_dead=counted.append)
    await consuming(bus, SAMPLES, received)
    await consuming(bus, Subscription(queue="metering.dead"), dead)
    other = amqp_bus(url)
    await until(lambda: other.readiness().ready)
    await other.publish(cpu(b"x" * 3_000_000))
    await bus.publish(cpu(b"next"))
    await until(lambda: dead.deliveries and received.deliveries)
    assert received.bodies == [b"next"]
    [letter] = dead.deliveries
    assert letter.body == b"x" * 65_536
    assert letter.headers["meter-reason"] == "the body has 3000000 bytes; only the first 65536 are kept"
    assert letter.headers["meter-kind"] == "too-large"
    assert letter.headers["meter-size"] == 3_000_000
    assert counted == ["too-large"]


# --- headers and properties -----------------------------------------------------------------------------------------

EVERY_TYPE = {
    "text": "Zoë",
    "bytes": b"\xff\x00",
    "true": True,
    "false": False,
    "small": -7,
    "large": -(2**62),
    "double": 0.1,
    "decimal": Decimal("-12.345"),
    "time": datetime(2026, 11, 22, 17, 0, 59, tzinfo=UTC),
    "nothing": None,
    "list": [1, "two", [3.0, None], {"four": True}],
    "table": {"deep": {"deeper": {"deepest": "ü"}}},
}


@pytest_twisted.ensureDeferred
async def test_headers_of_every_type_go_there_and_back(amqp_bus, amqp_client, consuming, rabbitmq):
    url, received = rabbitmq.vhost(), Received()
    bus = amqp_bus(url)
    await consuming(bus, SAMPLES, received)
    await published_raw(await amqp_client(url), SAMPLES.queue, b"", headers=EVERY_TYPE)
    await until(lambda: received.deliveries)
    [delivery] = received.deliveries
    assert delivery.headers == EVERY_TYPE


@pytest_twisted.ensureDeferred
async def test_dead_lettered_message_arrives_with_its_history(amqp_bus, amqp_client, consuming, rabbitmq):
    url, received = rabbitmq.vhost(), Received()
    bus = amqp_bus(url)
    await consuming(bus, SAMPLES, received)
    client = await amqp_client(url)
    channel = await client.open_channel()
    await channel.queue_declare(
        queue="short-lived",
        arguments={"x-message-ttl": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": SAMPLES.queue},
    )
    await published_raw(client, "short-lived", b"old")
    await until(lambda: received.deliveries)
    [death] = received.deliveries[0].headers["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == ("short-lived", "expired", 1)
    assert isinstance(death["time"], datetime)


@pytest_twisted.ensureDeferred
async def test_redelivery_from_a_quorum_queue_arrives_with_its_count(amqp_bus, consuming):
    bus, deliveries = amqp_bus(queue_type="quorum"), []

    async def receive(delivery):
        deliveries.append(delivery)
        if len(deliveries) == 1:
            raise Unavailable("not now")

    await consuming(bus, SAMPLES, receive)
    await bus.publish(cpu(b"again"))
    await until(lambda: len(deliveries) == 2)
    assert deliveries[1].headers == {"x-delivery-count": 1}
    assert deliveries[1].redelivered


@pytest_twisted.ensureDeferred
async def test_message_is_persistent_json_in_utf8_with_an_id(amqp_bus, amqp_client, rabbitmq):
    url = rabbitmq.vhost()
    bus = amqp_bus(url)
    await until(lambda: bus.readiness().ready)
    client = await amqp_client(url)
    channel = await client.open_channel()
    await channel.queue_declare(queue="seen", durable=True)
    await channel.queue_bind(queue="seen", exchange="metering", routing_key="#")
    messages = []
    channel.on_delivery = messages.append
    await channel.basic_consume(queue="seen", no_ack=True)
    await bus.publish(cpu(b"{}", origin="here"))
    await until(lambda: messages)
    properties = messages[0].content.properties
    assert properties.pop("message-id")
    assert properties == {
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "delivery-mode": 2,
        "headers": {"origin": "here"},
    }


@pytest.mark.parametrize("bad", [{"number": 2**70}, {"k" * 300: "long name"}, {"surrogate": "\ud800"}])
@pytest_twisted.ensureDeferred
async def test_header_that_cannot_be_encoded_fails_its_publication_and_no_other(amqp_bus, consuming, bad):
    bus, received = amqp_bus(), Received()
    await consuming(bus, SAMPLES, received)
    with pytest.raises(ValueError, match="cannot be encoded"):
        await bus.publish(cpu(b"bad", **bad))
    await bus.publish(cpu(b"good"))
    await until(lambda: received.deliveries)
    assert received.bodies == [b"good"]


@pytest_twisted.ensureDeferred
async def test_headers_that_fill_a_frame_are_refused_before_they_close_the_connection(amqp_bus, consuming):
    bus, received = amqp_bus(), Received()
    await consuming(bus, SAMPLES, received)
    with pytest.raises(ValueError, match="headers of a message have"):
        await bus.publish(cpu(b"bad", much="x" * 140_000))
    await bus.publish(cpu(b"good", much="x" * 100_000))
    await until(lambda: received.deliveries)
    assert received.bodies == [b"good"]


@pytest.mark.parametrize(
    "names", [{"routing_key": "k" * 256}, {"exchange": "e" * 256}, {"routing_key": "ü" * 128}, {"body": "text"}]
)
@pytest_twisted.ensureDeferred
async def test_name_that_is_too_long_or_a_body_that_is_text_is_refused(amqp_bus, names):
    bus = amqp_bus()
    with pytest.raises(ValueError, match=r"must be bytes|at most 255 bytes"):
        await bus.publish(Publication(**{"exchange": "metering", "routing_key": "k", "body": b"", **names}))


# --- publishing -----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_message_to_an_unbound_key_raises_unavailable(amqp_bus, consuming):
    bus, received = amqp_bus(), Received()
    await consuming(bus, Subscription(queue="q", bindings=(Binding("metering", "metering.cpu", ours=True),)), received)
    with pytest.raises(Unavailable, match=r"NO_ROUTE: no queue is bound to exchange 'metering' .*'metering\.disk'"):
        await bus.publish(Publication(exchange="metering", routing_key="metering.disk", body=b""))
    await bus.publish(cpu(b"bound"))
    await until(lambda: received.deliveries)


@pytest_twisted.ensureDeferred
async def test_missing_exchange_fails_its_publication_and_publishing_goes_on(amqp_bus, consuming):
    bus, received = amqp_bus(), Received()
    await consuming(bus, SAMPLES, received)
    with pytest.raises(Unavailable, match="404 NOT_FOUND - no exchange 'nowhere'"):
        await bus.publish(Publication(exchange="nowhere", routing_key="x", body=b""))
    await until(lambda: bus.readiness().ready)
    await bus.publish(cpu(b"good"))
    await until(lambda: received.deliveries)


@pytest_twisted.ensureDeferred
async def test_full_queue_rejects_and_the_publisher_learns_it(amqp_bus, amqp_client, rabbitmq):
    url = rabbitmq.vhost()
    bus = amqp_bus(url)
    channel = await (await amqp_client(url)).open_channel()
    await channel.queue_declare(queue="full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    await until(lambda: bus.readiness().ready)
    await bus.publish(Publication(exchange="", routing_key="full", body=b"first"))
    with pytest.raises(Unavailable, match="its queue is full"):
        await bus.publish(Publication(exchange="", routing_key="full", body=b"second"))


@pytest_twisted.ensureDeferred
async def test_deleted_dead_letter_queue_is_declared_again(amqp_bus, amqp_client, consuming, rabbitmq, logged_errors):
    url, attempts = rabbitmq.vhost(), []
    bus = amqp_bus(url)

    async def receive(delivery):
        attempts.append(delivery)
        raise LookupError("always")

    await consuming(bus, SAMPLES, receive)
    channel = await (await amqp_client(url)).open_channel()
    await channel.queue_delete(queue="metering.dead")
    await bus.publish(cpu(b"bad"))
    await until(lambda: len(attempts) == 2)
    await until(lambda: logged_errors.flush(LookupError))
    dead = Received()
    await consuming(bus, Subscription(queue="metering.dead"), dead)
    await until(lambda: dead.deliveries)
    assert dead.bodies == [b"bad"]
    logged_errors.flush(LookupError)


# --- consuming ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_queue_that_is_deleted_is_declared_and_consumed_again(amqp_bus, amqp_client, consuming, rabbitmq):
    url, received = rabbitmq.vhost(), Received()
    bus = amqp_bus(url)
    await consuming(bus, SAMPLES, received)
    channel = await (await amqp_client(url)).open_channel()
    await channel.queue_delete(queue=SAMPLES.queue)
    await published(bus, cpu(b"after"))  # as soon as the queue is there again, which may be at once
    await until(lambda: received.deliveries)


@pytest_twisted.ensureDeferred
async def test_unavailable_receiver_is_retried_after_a_pause(amqp_bus, consuming):
    bus, attempts = amqp_bus(), []

    async def receive(delivery):
        attempts.append(delivery)
        raise Unavailable("the store is down")

    await consuming(bus, SAMPLES, receive)
    for _ in range(10):
        await bus.publish(cpu(b"x"))
    await until(lambda: len(attempts) >= 10)
    await sleep(reactor, 1.0)
    assert len(attempts) <= 60


@pytest_twisted.ensureDeferred
async def test_delivery_unacknowledged_at_the_stop_is_delivered_again(amqp_bus, consuming):
    bus, begun, received = amqp_bus(stop_seconds=0.2), [], Received()

    async def never(delivery):
        begun.append(delivery)
        await Deferred()

    service = await consuming(bus, SAMPLES, never)
    await bus.publish(cpu(b"unanswered"))
    await until(lambda: begun)
    await service.stopService()
    await consuming(bus, SAMPLES, received)
    await until(lambda: received.deliveries)
    assert received.deliveries[0].redelivered


@pytest_twisted.ensureDeferred
async def test_message_that_was_prefetched_but_not_taken_at_the_stop_is_not_lost(amqp_bus, consuming):
    bus, seen = amqp_bus(), []

    async def receive(delivery):
        seen.append(delivery.body)
        await sleep(reactor, 0.001)

    subscription = Subscription(queue="q", bindings=SAMPLES.bindings, prefetch=10)
    service = await consuming(bus, subscription, receive)
    bodies = {b"%d" % number for number in range(300)}
    for body in sorted(bodies):
        work = Deferred.fromCoroutine(bus.publish(cpu(body)))
        if len(seen) > 50 and service.running:
            await service.stopService()
        await work
    service.startService()
    await until(lambda: set(seen) == bodies)
    assert len(seen) == len(bodies)


# --- what others have made ------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_existing_foreign_exchange_is_used_as_it_is(amqp_bus, amqp_client, consuming, rabbitmq):
    url, received = rabbitmq.vhost(), Received()
    channel = await (await amqp_client(url)).open_channel()
    await channel.exchange_declare(exchange="nova", type="topic", auto_delete=True)
    bus = amqp_bus(url)
    await consuming(
        bus, Subscription(queue="notifications", bindings=(Binding("nova", "notifications.info"),)), received
    )
    await bus.publish(Publication(exchange="nova", routing_key="notifications.info", body=b"hello"))
    await until(lambda: received.deliveries)


@pytest_twisted.ensureDeferred
async def test_missing_foreign_exchange_is_declared_as_openstack_does(amqp_bus, amqp_client, consuming, rabbitmq):
    url = rabbitmq.vhost()
    bus = amqp_bus(url)
    await consuming(bus, Subscription(queue="n", bindings=(Binding("glance", "notifications.info"),)), Received())
    channel = await (await amqp_client(url)).open_channel()
    # The same properties are accepted, any other would close the channel.
    await channel.exchange_declare(exchange="glance", type="topic", durable=False, auto_delete=False)


@pytest_twisted.ensureDeferred
async def test_missing_foreign_exchange_is_looked_for_again(amqp_bus, amqp_client, consuming, rabbitmq):
    url, received = rabbitmq.vhost(), Received()
    bus = amqp_bus(url, create_foreign_exchanges=False, rebind_seconds=0.1)
    await consuming(bus, Subscription(queue="n", bindings=(Binding("cinder", "#"), *SAMPLES.bindings)), received)
    await bus.publish(cpu(b"sample"))
    channel = await (await amqp_client(url)).open_channel()
    with pytest.raises(ChannelLost, match="404"):
        await channel.exchange_declare(exchange="cinder", passive=True)
    channel = await (await amqp_client(url)).open_channel()
    await channel.exchange_declare(exchange="cinder", type="topic", durable=True)
    await published(bus, Publication(exchange="cinder", routing_key="volume", body=b"volume"))
    await until(lambda: received.bodies == [b"sample", b"volume"])


@pytest_twisted.ensureDeferred
async def test_binding_that_vanished_with_its_exchange_is_made_again(amqp_bus, amqp_client, consuming, rabbitmq):
    url, received = rabbitmq.vhost(), Received()
    bus = amqp_bus(url, rebind_seconds=0.1)
    await consuming(bus, Subscription(queue="n", bindings=(Binding("nova", "#"),)), received)
    channel = await (await amqp_client(url)).open_channel()
    await channel.exchange_delete(exchange="nova")
    await published(bus, Publication(exchange="nova", routing_key="x", body=b"after"))
    await until(lambda: received.deliveries)


@pytest_twisted.ensureDeferred
async def test_existing_exchanges_and_queues_with_other_properties_are_used_with_one_warning(
    amqp_bus, amqp_client, consuming, rabbitmq, capture_warnings
):
    url, received = rabbitmq.vhost(), Received()
    channel = await (await amqp_client(url)).open_channel()
    await channel.exchange_declare(exchange="metering", type="topic", durable=False)
    await channel.queue_declare(queue="metering.dead", durable=True, arguments={"x-max-length": 1000})
    await channel.queue_declare(queue=SAMPLES.queue, durable=True, arguments={"x-queue-type": "quorum"})
    bus = amqp_bus(url, queue_type="classic")
    service = await consuming(bus, SAMPLES, received)
    await bus.publish(cpu(b"anyway"))
    await until(lambda: received.deliveries)
    await service.stopService()
    service.startService()
    await until(lambda: bus.readiness().ready)
    told = sorted(text.partition(" exists with other properties")[0] for text in capture_warnings)
    assert told == ["exchange metering", f"queue {SAMPLES.queue}", "queue metering.dead"]


@pytest.fixture
def capture_warnings():
    from twisted.logger import LogLevel
    from twisted.logger import formatEvent
    from twisted.logger import globalLogPublisher

    texts = []

    def observe(event):
        if event.get("log_level") is LogLevel.warn:
            texts.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield texts
    globalLogPublisher.removeObserver(observe)


# --- channels -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_channel_that_failed_is_never_handed_out_again(amqp_client, rabbitmq):
    client = await amqp_client(rabbitmq.vhost())
    failed = await client.open_channel()
    with pytest.raises(ChannelLost, match="404"):
        await failed.queue_declare(queue="none", passive=True)
    with pytest.raises(ChannelLost, match="404"):
        failed.basic_ack(delivery_tag=1)
    fresh = await client.open_channel()
    assert fresh is not failed
    assert fresh.id != failed.id
    await fresh.queue_declare(queue="some")


@pytest_twisted.ensureDeferred
async def test_caller_on_a_failed_channel_gets_the_error(amqp_client, rabbitmq):
    client = await amqp_client(rabbitmq.vhost())
    channel = await client.open_channel()
    channel.queue_declare(queue="none", passive=True).addErrback(lambda failure: None)
    with pytest.raises(ChannelLost, match="404"):
        await channel.basic_qos(prefetch_count=1)
    await channel.lost.wait()
    assert channel.close_reason.code == 404


@pytest_twisted.ensureDeferred
async def test_more_channels_than_numbers_can_be_opened_in_succession(amqp_client, rabbitmq):
    client = await amqp_client(rabbitmq.vhost())
    client.max_channels = 5
    kept = await client.open_channel()
    for _ in range(12):
        channel = await client.open_channel()
        assert channel.id != kept.id
        await channel.close(2)
    for _ in range(4):
        await client.open_channel()
    with pytest.raises(Unavailable, match="all 5 channels"):
        await client.open_channel()
