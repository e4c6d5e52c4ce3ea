"""A broker of several hosts: the bus and the commands use one that answers, and lose no message when it goes away."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.logger import capturedLogs
from twisted.logger import formatEvent

from meter.bus.amqp import BrokerInspection
from meter.bus.amqp import Browser
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.interfaces import Binding
from meter.interfaces import BoundedQueue
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.interfaces import Unavailable
from tests.servers.tcp_proxy import TcpProxy
from tests.waiting import until

SAMPLES = Subscription(queue="meter.samples", bindings=(Binding("metering", "metering.#", ours=True),))


@pytest.fixture
def lines(rabbitmq):
    """Two proxies to the broker, which stand for two nodes of a cluster."""
    two = [TcpProxy(rabbitmq.port) for _ in range(2)]
    yield two
    for line in two:
        line.close()


@pytest.fixture
def url(rabbitmq, lines):
    """A virtual host by both proxies."""
    places = ",".join(f"127.0.0.1:{line.port}" for line in lines)
    return rabbitmq.vhost().replace(f"127.0.0.1:{rabbitmq.port}", places)


def line_of(bus, lines):
    """Return the proxy that the bus publishes through, and the other one."""
    [used] = [line for line in lines if f":{line.port}," in bus.readiness().reason]
    [other] = [line for line in lines if line is not used]
    return used, other


@pytest_twisted.ensureDeferred
async def test_two_hundred_messages_survive_hosts_that_go_away_in_turn(amqp_bus, url, lines):
    bus, received = amqp_bus(url, window=10), set()

    async def receive(delivery):
        received.add(delivery.body)

    service = bus.subscribe(SAMPLES, receive)
    service.startService()
    await until(lambda: bus.readiness().ready)
    bodies = [b"%d" % number for number in range(200)]
    for number, body in enumerate(bodies):
        if number % 50 == 25:
            used, other = line_of(bus, lines)
            other.accept()
            used.refuse()
        while True:
            try:
                await bus.publish(Publication(exchange="metering", routing_key="metering.cpu", body=body))
            except Unavailable:
                await until(lambda: bus.readiness().ready)
            else:
                break
    await until(lambda: received == set(bodies))
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_queues_of_several_hosts_are_quorum_queues_and_a_classic_one_is_used_and_told(
    amqp_bus, amqp_client, rabbitmq, url
):
    single = url.replace(url[url.index("@") + 1 : url.rindex("/")], f"127.0.0.1:{rabbitmq.port}")
    client = await amqp_client(single)
    channel = await client.open_channel()
    await channel.queue_declare(queue=SAMPLES.queue, durable=True)

    with capturedLogs() as events:
        bus = amqp_bus(
            url, bounded=[BoundedQueue(name="unheard", max_messages=10, max_seconds=60.0, dropped="dropped")]
        )
        service = bus.subscribe(SAMPLES, receive=None)
        service.startService()
        await until(lambda: bus.readiness().ready)
    warnings = [formatEvent(event) for event in events if event["log_level"].name == "warn"]
    assert [text.partition(":")[0] for text in warnings] == [f"queue {SAMPLES.queue} exists and is not a quorum queue"]
    vhost = url.rpartition("/")[2]
    queues = dict(
        map(str.split, rabbitmq.ctl("list_queues", "-p", vhost, "name", "type", "--no-table-headers").splitlines())
    )
    others = (DEAD_LETTER_QUEUE, "unheard", "dropped")
    assert queues == {SAMPLES.queue: "classic", **dict.fromkeys(others, "quorum")}
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_one_host_means_classic_queues_and_an_existing_quorum_queue_is_no_warning(
    amqp_bus, amqp_client, rabbitmq
):
    url = rabbitmq.vhost()
    client = await amqp_client(url)
    channel = await client.open_channel()
    await channel.queue_declare(queue=SAMPLES.queue, durable=True, arguments={"x-queue-type": "quorum"})

    with capturedLogs() as events:
        bus = amqp_bus(url)
        service = bus.subscribe(SAMPLES, receive=None)
        service.startService()
        await until(lambda: bus.readiness().ready)
    assert [formatEvent(event) for event in events if event["log_level"].name == "warn"] == []
    vhost = url.rpartition("/")[2]
    queues = dict(
        map(str.split, rabbitmq.ctl("list_queues", "-p", vhost, "name", "type", "--no-table-headers").splitlines())
    )
    assert queues == {SAMPLES.queue: "quorum", DEAD_LETTER_QUEUE: "classic"}
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_commands_use_the_host_that_answers_and_name_all_if_none_does(url, lines):
    first, second = lines
    first.refuse()
    inspection = BrokerInspection(reactor, url, clock=reactor, name="test")
    assert (await inspection.open()).startswith("RabbitMQ")
    assert inspection.address.port == second.port
    [away] = await inspection.others_away()
    assert away.startswith(f"127.0.0.1:{first.port}: ")
    assert inspection.address.port == second.port
    await inspection.close()
    browser = Browser(reactor, url, "nothing", clock=reactor, name="test")
    assert await browser.open() == 0
    await browser.close()

    second.refuse()
    for each in (
        BrokerInspection(reactor, url, clock=reactor, name="test"),
        Browser(reactor, url, "nothing", clock=reactor, name="test"),
    ):
        with pytest.raises(Unavailable) as refusal:
            await each.open()
        assert all(f"127.0.0.1:{line.port}: " in str(refusal.value) for line in lines)
        await each.close()
