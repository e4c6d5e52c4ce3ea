"""The headers of a message, which whoever publishes it chooses, cannot stop a consumer: every delivery is settled."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from txamqp.content import Content

from meter.bus.amqp import Browser
from meter.bus.amqp import tables
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import DeadLettersFull
from meter.bus.dead_letters import parse_dead_letter
from meter.interfaces import Binding
from meter.interfaces import Publication
from meter.interfaces import Subscription
from tests.waiting import until

SAMPLES = Subscription(
    queue="meter.samples",
    bindings=(Binding("metering", "metering.#", ours=True),),
    prefetch=4,
    waiting_queue="meter.samples.waiting",
)


class Seconds(int):
    """A time of AMQP of any 64 bits; one after the year 9999 is decoded as an integer."""


HUGE = Seconds(2**64 - 1)

_encoded_value = tables._value_bytes


def encoded_value(value: Any) -> bytes:
    return b"T" + struct.pack("!Q", value) if isinstance(value, Seconds) else _encoded_value(value)


async def send(client: Any, body: bytes, headers: dict[str, Any]) -> None:
    channel = await client.open_channel()
    await channel.confirm_select()
    confirmed: Deferred[None] = Deferred()
    channel.on_ack = lambda message: confirmed.callback(None)
    channel.basic_publish(routing_key=SAMPLES.queue, content=Content(body, properties={"headers": headers}))
    await confirmed
    await channel.close(2)


async def letters(url: str, queue: str = DEAD_LETTER_QUEUE) -> list[Any]:
    browser = Browser(reactor, url, queue, clock=reactor, name="test")
    found = []
    try:
        await browser.open()
        while (message := await browser.next()) is not None:
            found.append(parse_dead_letter(message.delivery.headers, message.delivery.body))
    finally:
        await browser.close()
    return found


HEADERS = {
    "replays that no type holds": {"meter-replayed": HUGE},
    "exchange that is a number": {"meter-replayed": 1, "meter-exchange": HUGE},
    "routing key that is a number": {"meter-waited": True, "meter-routing-key": HUGE},
    "replays of 63 bits": {"meter-replayed": 2**63 - 1},
    "long text": {"meter-replayed": "x" * 100_000},
    "other types": {
        "meter-replayed": [1, {"a": None}],
        "meter-exchange": b"\xff",
        "meter-routing-key": 0.5,
        "meter-masked": "no",
    },
    "headers of a dead letter": {
        "meter-replayed": -1,
        "meter-queue": "other",
        "meter-id": "..",
        "meter-kind": "x" * 999,
    },
    "many": {f"h{n}": "x" * 100 for n in range(900)},
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS.keys())
@pytest.mark.parametrize("full", [False, True], ids=["", "full"])
@pytest_twisted.ensureDeferred
async def test_headers_of_bad_messages_do_not_block_good_ones(
    amqp_bus, amqp_client, rabbitmq, monkeypatch, headers, full
):
    """``full``: the queue of dead letters is full, so that the bad messages are moved to the waiting queue."""
    monkeypatch.setattr(tables, "_value_bytes", encoded_value)
    url = rabbitmq.vhost()
    bus = amqp_bus(url)
    dead_letters = DeadLetterPublisher(bus, reactor, source_queue=SAMPLES.queue)
    good = []

    async def receive(delivery):
        if not delivery.body.startswith(b"bad"):
            good.append(delivery.body)
        elif full:
            raise DeadLettersFull("full")
        else:
            await dead_letters.dead_letter(body=delivery.body, reason="bad", origin=delivery)

    service = bus.subscribe(SAMPLES, receive)
    waiting = bus.subscribe(Subscription(queue=SAMPLES.waiting_queue, prefetch=1), receive)
    for each in (service, waiting):
        each.startService()
    await until(lambda: bus.readiness().ready and service.ready and waiting.ready)
    await waiting.stopService()  # its queue exists now
    client = await amqp_client(url)
    for n in range(SAMPLES.prefetch):
        await send(client, b"bad %d" % n, headers)
    await bus.publish(Publication(exchange="metering", routing_key="metering.cpu", body=b"good"))
    await until(lambda: good)
    await service.stopService()
    assert good == [b"good"]
    found = await letters(url, SAMPLES.waiting_queue if full else DEAD_LETTER_QUEUE)
    assert sorted(each.body for each in found) == [b"bad %d" % n for n in range(SAMPLES.prefetch)]
    assert {each.replayed for each in found} == {1 if headers.get("meter-replayed") == 1 else 0}


@pytest_twisted.ensureDeferred
async def test_message_that_cannot_be_dead_lettered_is_delivered_again(amqp_bus, rabbitmq, monkeypatch, logged_errors):
    url = rabbitmq.vhost()
    bus = amqp_bus(url)
    received = []

    async def receive(delivery):
        received.append(delivery.redelivered)
        if len(received) <= SAMPLES.prefetch:
            raise LookupError("a defect of the receiver")

    async def fail(self, **arguments):
        raise ValueError("a defect of the publisher of dead letters")

    monkeypatch.setattr(DeadLetterPublisher, "dead_letter", fail)
    service = bus.subscribe(SAMPLES, receive)
    service.startService()
    await until(lambda: bus.readiness().ready and service.ready)
    for n in range(SAMPLES.prefetch):
        await bus.publish(Publication(exchange="metering", routing_key="metering.cpu", body=b"%d" % n))
    await until(lambda: len(received) == 2 * SAMPLES.prefetch)
    await service.stopService()
    assert received == [False] * SAMPLES.prefetch + [True] * SAMPLES.prefetch
    logged_errors.flush(LookupError, ValueError)
