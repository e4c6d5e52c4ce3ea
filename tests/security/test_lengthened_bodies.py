"""A body that masking makes longer than the bus accepts is dead-lettered, truncated, and stops no other message."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.bus.amqp import Browser
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import parse_dead_letter
from meter.interfaces import Binding
from meter.interfaces import Publication
from meter.interfaces import Subscription
from tests.chaos.broker import waiting_messages
from tests.waiting import until

MAX_BODY_BYTES = 64 * 1024
SAMPLES = Subscription(queue="meter.samples", bindings=(Binding("metering", "metering.#", ours=True),), prefetch=1)
LENGTHENED = {
    "JSON": b'{"a":[' + b",".join([b'{"token":1}'] * 5000) + b"]}",
    "text": b"bad " + b"token=a " * 8000,
}


@pytest.mark.parametrize("body", LENGTHENED.values(), ids=LENGTHENED.keys())
@pytest_twisted.ensureDeferred
async def test_body_that_masking_makes_longer_than_the_limit_is_dead_lettered(amqp_bus, rabbitmq, body):
    assert len(body) <= MAX_BODY_BYTES
    url = rabbitmq.vhost()
    bus = amqp_bus(url, max_body_bytes=MAX_BODY_BYTES)
    dead_letters = DeadLetterPublisher(bus, reactor, source_queue=SAMPLES.queue)
    received: list[bytes] = []

    async def receive(delivery: Any) -> None:
        received.append(delivery.body)
        if delivery.body != b"good":
            await dead_letters.dead_letter(body=delivery.body, reason="bad", origin=delivery)

    service = bus.subscribe(SAMPLES, receive)
    service.startService()
    try:
        await until(lambda: service.ready and bus.readiness().ready)
        for each in (body, b"good"):
            await bus.publish(Publication(exchange="metering", routing_key="metering.cpu", body=each))
        await until(lambda: b"good" in received and waiting_messages(url, DEAD_LETTER_QUEUE) == 1)
    finally:
        await service.stopService()
    assert received == [body, b"good"]
    browser = Browser(reactor, url, DEAD_LETTER_QUEUE, clock=reactor, name="test")
    await browser.open()
    try:
        message = await browser.next()
        assert message is not None
        letter = parse_dead_letter(message.delivery.headers, message.delivery.body)
    finally:
        await browser.close()
    assert (len(letter.body), letter.masked, letter.truncated) == (MAX_BODY_BYTES, True, True)
    assert b"***" in letter.body
    assert letter.not_replayable == "its body is truncated"
    assert (letter.reason, letter.exchange, letter.routing_key) == ("bad", "metering", "metering.cpu")
