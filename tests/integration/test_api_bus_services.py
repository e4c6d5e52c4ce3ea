"""What the pages know of a real RabbitMQ, and replays of dead letters that are recorded in a real database."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.bus.dead_letter_replay import NoSuchDeadLetter
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import call_at_once
from meter.daemon.services import sleep
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import Subscription
from meter.interfaces import Unavailable
from meter.query import AuditFilter
from meter.settings import Config
from meter.signing_keys import keyring
from meter.store import PostgresStore
from meter.taps.parts.bus_services import bus_services
from tests.waiting import until

QUEUE = "meter.metering"


@pytest.fixture
def unused_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        yield listening.getsockname()[1]


@pytest.fixture
def dsn(postgresql):
    return postgresql.dsn()


@pytest.fixture
def store(dsn):
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    yield store
    pytest_twisted.blockon(store.stopService())


def services_of(url, dsn="postgresql://nobody@127.0.0.1:1/none"):
    config = Config.model_validate({"bus": {"url": url}, "store": {"dsn": dsn}, "signing": {"key": "secret"}})
    return bus_services(
        SimpleNamespace(
            name="meter-api",
            reactor=reactor,
            config=config,
            keys=keyring(["secret"]),
            only_checking=False,
            off_reactor=call_at_once,
        )
    )


async def dead_lettered(bus, kinds):
    """Publish a dead letter of each kind, with its number as the body."""
    publisher = DeadLetterPublisher(bus, reactor, source_queue=QUEUE)
    for number, kind in enumerate(kinds):
        origin = Delivery(body=b"", exchange="metering", routing_key="metering.cpu", headers={}, redelivered=False)
        await publisher.dead_letter(body=json.dumps(number).encode(), reason=f"reason {kind}", origin=origin, kind=kind)


async def listed(services, count):
    """Return the list once the queue has ``count`` messages: a quorum queue requeues them after the channel is closed."""
    while (found := await services.letters(100)).total != count:
        await sleep(reactor, 0.05)
    return found


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest_twisted.ensureDeferred
async def test_letters_are_listed_and_replayed_in_order_and_recorded(rabbitmq, amqp_bus, store, dsn, queue_type):
    url = rabbitmq.vhost()
    bus = amqp_bus(url, queue_type=queue_type)
    received = []

    async def receive(delivery):
        received.append(delivery)

    receiver = bus.subscribe(
        Subscription(queue=QUEUE, bindings=(Binding("metering", "metering.#", ours=True),)), receive
    )
    receiver.startService()
    await until(lambda: bus.readiness().ready)
    await dead_lettered(bus, ["invalid", "conflict", "invalid", "unverified"])

    services = services_of(url, dsn)
    for _ in range(2):  # looking changes nothing, not even the order
        found = await listed(services, 4)
        assert [each.dead_letter.kind for each in found.letters] == ["invalid", "conflict", "invalid", "unverified"]
    letter = await services.letter(found.letters[1].dead_letter.id)
    assert letter.body == b"1"
    assert await services.body_text(letter) == "1"

    record = services.recorder("ann", "the sender is fixed")
    await listed(services, 4)
    report = await services.replay(kind="invalid", record=record, force=False)
    assert [(each.problem, each.to) for each in report.results] == [(None, QUEUE)] * 2
    await until(lambda: len(received) == 2)
    assert [each.body for each in received] == [b"0", b"2"]
    rest = await listed(services, 2)
    assert [each.dead_letter.kind for each in rest.letters] == ["conflict", "unverified"]
    [entry] = await store.audit_entries(AuditFilter(), 10)
    assert (entry.who, entry.action, entry.reason) == ("ann", "dead-letter.replay", "the sender is fixed")
    assert len(json.loads(entry.details)["dead_letters"]) == 2

    gone = found.letters[0].dead_letter.id
    with pytest.raises(NoSuchDeadLetter):
        await services.replay(ids=[gone], record=record, force=False)
    await listed(services, 2)


@pytest_twisted.ensureDeferred
async def test_nothing_is_replayed_while_the_audit_log_cannot_be_written(rabbitmq, amqp_bus):
    url = rabbitmq.vhost()
    bus = amqp_bus(url)
    await until(lambda: bus.readiness().ready)
    await dead_lettered(bus, ["invalid"])
    services = services_of(url)
    with pytest.raises(Unavailable, match="nothing was done, as the audit log cannot be written"):
        await services.replay(kind="invalid", record=services.recorder("ann", ""), force=False)
    assert (await listed(services, 1)).letters[0].dead_letter.kind == "invalid"


@pytest_twisted.ensureDeferred
async def test_queues_are_looked_at_with_their_consumers(rabbitmq, amqp_bus):
    url = rabbitmq.vhost()
    bus = amqp_bus(url)

    async def receive(delivery):
        pass

    bus.subscribe(
        Subscription(queue=QUEUE, bindings=(Binding("metering", "metering.#", ours=True),)), receive
    ).startService()
    await until(lambda: bus.readiness().ready)
    await dead_lettered(bus, ["invalid"])
    services = services_of(url)
    state = await services.state()
    while not state.queues[0].consumers:
        services._state = None
        state = await services.state()
        await sleep(reactor, 0.05)
    assert state.product.startswith("RabbitMQ ")
    assert state.queues[0]._replace(messages=0) == (QUEUE, 0, 1)
    assert ("meter.reports", None, None) in state.queues
    assert state.dead_letters == 1
    assert DEAD_LETTER_QUEUE not in [each.name for each in state.queues]


@pytest_twisted.ensureDeferred
async def test_missing_broker_is_unavailable(unused_port):
    services = services_of(f"amqp://guest:hidden@127.0.0.1:{unused_port}/")
    for ask in (services.state(), services.letters(1)):
        with pytest.raises(Unavailable) as caught:
            await ask
        assert "hidden" not in str(caught.value)
