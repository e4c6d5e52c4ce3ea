"""Bad messages, however many, fill neither the broker's disk nor the log, and are neither lost nor in the way of good ones."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

import meter.bus.amqp.dead_letter_limit
from meter.bus.amqp import Browser
from meter.bus.amqp.dead_letter_limit import FULL_CHECK_SECONDS
from meter.bus.batches import batch_publications
from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from meter.bus.dead_letters import DeadLetterPublisher
from meter.bus.dead_letters import DeadLettersFull
from meter.bus.dead_letters import parse_dead_letter
from meter.daemon.dead_letter_status import DeadLetterStatus
from meter.daemon.services import sleep
from meter.interfaces import Binding
from meter.interfaces import Publication
from meter.interfaces import Subscription
from meter.sample import Sample
from meter.signing_keys import keyring
from tests.chaos.broker import waiting_messages
from tests.signed import outgoing
from tests.system.daemons import SECRET
from tests.system.daemons import until as wait_until
from tests.waiting import until

SAMPLES = Subscription(
    queue="meter.samples",
    bindings=(Binding("metering", "metering.#", ours=True),),
    prefetch=4,
    waiting_queue="meter.samples.waiting",
)


def publication(body: bytes) -> Publication:
    return Publication(exchange="metering", routing_key="metering.cpu", body=body)


class Consumer:
    """Dead-letters what begins with ``bad``, and takes the rest."""

    def __init__(self, bus: Any) -> None:
        self.good: list[bytes] = []
        self.refused = 0
        self._dead_letters = DeadLetterPublisher(bus, reactor, source_queue=SAMPLES.queue)

    async def receive(self, delivery: Any) -> None:
        if not delivery.body.startswith(b"bad"):
            self.good.append(delivery.body)
            return
        try:
            await self._dead_letters.dead_letter(body=delivery.body, reason="bad", origin=delivery)
        except DeadLettersFull:
            self.refused += 1
            raise


async def letters(url: str, *, remove: bool) -> list[Any]:
    browser = Browser(reactor, url, DEAD_LETTER_QUEUE, clock=reactor, name="test")
    found = []
    try:
        await browser.open()
        while (message := await browser.next()) is not None:
            found.append(parse_dead_letter(message.delivery.headers, message.delivery.body))
            if remove:
                browser.remove(message)
    finally:
        await browser.close()
    return found


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest_twisted.ensureDeferred
async def test_bad_messages_wait_while_the_queue_of_dead_letters_is_full(amqp_bus, rabbitmq, queue_type, monkeypatch):
    monkeypatch.setattr(meter.bus.amqp.dead_letter_limit, "FULL_CHECK_SECONDS", 0.2)
    url = rabbitmq.vhost()
    bus = amqp_bus(url, max_dead_letters=3, queue_type=queue_type)
    consumer = Consumer(bus)
    services = [
        bus.subscribe(SAMPLES, consumer.receive),
        bus.subscribe(Subscription(queue=SAMPLES.waiting_queue, prefetch=1), consumer.receive),
    ]
    for service in services:
        service.startService()
    try:
        await until(lambda: all(service.ready for service in services) and bus.readiness().ready)
        for number in range(20):
            await bus.publish(publication(b"bad %d" % number))
        for number in range(20):
            await bus.publish(publication(b"good %d" % number))
        await until(lambda: len(consumer.good) == 20)
        await until(lambda: waiting_messages(url, DEAD_LETTER_QUEUE) == 3)
        assert bus.queued_dead_letters == (3, True)

        found: dict[bytes, Any] = {}
        for _ in range(100):
            found |= {each.body: each for each in await letters(url, remove=True)}
            if len(found) == 20:
                break
            await deferToThread(lambda: None)
            await until(lambda: waiting_messages(url, DEAD_LETTER_QUEUE) > 0)
        assert set(found) == {b"bad %d" % number for number in range(20)}
        assert {(each.exchange, each.routing_key, each.queue) for each in found.values()} == {
            ("metering", "metering.cpu", SAMPLES.queue)
        }
        await until(lambda: waiting_messages(url, SAMPLES.waiting_queue) == 0)
    finally:
        for service in services:
            await service.stopService()


@pytest_twisted.ensureDeferred
async def test_hundreds_of_bad_messages_during_a_check_of_the_length_are_all_dead_lettered(amqp_bus, rabbitmq):
    url = rabbitmq.vhost()
    bus = amqp_bus(url, max_dead_letters=10_000)
    consumer = Consumer(bus)
    service = bus.subscribe(
        Subscription(queue=SAMPLES.queue, bindings=SAMPLES.bindings, prefetch=600), consumer.receive
    )
    service.startService()
    try:
        await until(lambda: service.ready and bus.readiness().ready)
        limit = bus._publisher.dead_letter_limit
        limit.check = check_once_slowly(limit.check)
        for number in range(600):
            await bus.publish(publication(b"bad %d" % number))
        await until(lambda: waiting_messages(url, DEAD_LETTER_QUEUE) == 600)
    finally:
        await service.stopService()


def check_once_slowly(check: Any) -> Any:
    """Return a ``check`` whose first call takes a second, while the others wait."""
    checks = []

    async def slow(client: Any) -> None:
        checks.append(client)
        if len(checks) == 1:
            await sleep(reactor, 1.0)
            await check(client)

    return slow


def test_limit_is_said_and_its_end_too() -> None:
    assert FULL_CHECK_SECONDS <= 5
    status = DeadLetterStatus(Clock(), lambda _: None, lambda: (7, True))
    state = status.readiness()
    assert (state.ready, state.needed) == (False, False)
    assert "the queue is full with 7" in state.reason


# --- what may be forged is shown ------------------------------------------------------------------------------------


def test_conflicts_are_counted_and_shown_with_their_time_and_do_not_make_the_daemon_unready() -> None:
    clock, counted = Clock(), []
    clock.advance(1_795_800_000)
    status = DeadLetterStatus(clock, counted.append, lambda: (2, False))
    for kind in ("invalid", "conflict", "conflict", "unverified"):
        clock.advance(60)
        status.count(kind)
    state = status.readiness()
    assert state.ready
    assert counted == ["invalid", "conflict", "conflict", "unverified"]
    assert state.reason.startswith("2 in the queue; since the start: conflict 2 (last 20")
    assert state.reason.index("unverified 1 (last") < state.reason.index("invalid 1 (last")


def test_conflict_shows_in_readyz_and_the_metrics_of_a_collector(furnished) -> None:
    collector = furnished.daemon("meter-collector").start().until_ready()
    now = datetime.now(UTC)

    def body(volume: float) -> Publication:
        sample = Sample(
            name="cpu",
            type="gauge",
            unit="1",
            volume=volume,
            resource_id="r",
            timestamp=now,
            message_id="6f0c7a52-5d0e-4c55-9a3b-2f8f0e7b1f66",
        )
        [made] = batch_publications([outgoing(sample, keyring([SECRET]))])
        return made

    _publish(furnished.bus, [body(1.0)])
    wait_until(lambda: collector.metric('meter_collected_samples_total{outcome="stored"}') == 1, "the first")
    _publish(furnished.bus, [body(1000.0)])
    wait_until(lambda: collector.metric('meter_dead_letters_total{reason="conflict"}') == 1, "the conflict")

    assert collector.metric('meter_collected_samples_total{outcome="conflict"}') == 1
    answer = collector.readiness()
    assert answer["ready"]
    assert not answer["degraded"]
    [shown] = [each for each in answer["dependencies"] if each["name"] == "dead letters"]
    assert "conflict 1 (last 20" in shown["reason"]


def _publish(url: str, publications: list[Publication]) -> None:
    messages = [
        {"exchange": each.exchange, "routing_key": each.routing_key, "body": each.body.decode()}
        for each in publications
    ]
    script = Path(__file__).parents[1] / "system/publish.py"
    subprocess.run([sys.executable, str(script), url], input=json.dumps(messages), text=True, check=True, timeout=180)
