"""Browsing a queue of a real RabbitMQ leaves it unchanged, except for removed messages."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from meter.bus.amqp import Browser
from meter.daemon.services import sleep
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from tests.ports import free_port
from tests.waiting import until

DEAD = "metering.dead"


@pytest.fixture
def browser(rabbitmq):
    """Makes browsers; each is closed after the test."""
    made = []

    def make(url, queue=DEAD, **arguments):
        browser = Browser(reactor, url, queue, clock=reactor, name="test", **arguments)
        made.append(browser)
        return browser

    yield make
    for each in made:
        pytest_twisted.blockon(Deferred.fromCoroutine(each.close()))


async def filled(bus, count):
    await until(lambda: bus.readiness().ready)
    for number in range(count):
        await bus.publish(
            Publication(exchange="", routing_key=DEAD, body=str(number).encode(), headers={"number": number})
        )


async def opened_with(browser, url, count):
    """Return an open browser once the queue has ``count`` messages: a quorum queue requeues them after the channel is closed."""
    while True:
        opened = browser(url)
        if await opened.open() == count:
            return opened
        await opened.close()
        await sleep(reactor, 0.05)


async def taken(browser, limit=1000):
    found = []
    while len(found) < limit and (held := await browser.next()) is not None:
        found.append(held)
    return found


def bodies(found):
    return [int(held.delivery.body) for held in found]


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest_twisted.ensureDeferred
async def test_messages_that_were_not_removed_return_to_their_place(rabbitmq, amqp_bus, browser, queue_type):
    url = rabbitmq.vhost()
    await filled(amqp_bus(url, queue_type=queue_type), 10)

    first = browser(url)
    assert await first.open() == 10
    found = await taken(first)
    assert bodies(found) == list(range(10))
    assert found[3].delivery.headers["number"] == 3
    for number in (0, 4, 9):
        first.remove(found[number])
    await first.close()

    second = await opened_with(browser, url, 7)
    assert bodies(await taken(second)) == [1, 2, 3, 5, 6, 7, 8]


@pytest_twisted.ensureDeferred
async def test_message_published_later_is_not_returned(rabbitmq, amqp_bus, browser):
    url = rabbitmq.vhost()
    bus = amqp_bus(url)
    await filled(bus, 3)
    looking = browser(url)
    assert await looking.open() == 3
    await filled(bus, 2)
    assert bodies(await taken(looking)) == [0, 1, 2]


@pytest_twisted.ensureDeferred
async def test_two_browsers_share_the_messages(rabbitmq, amqp_bus, browser):
    url = rabbitmq.vhost()
    await filled(amqp_bus(url), 3)
    first, second = browser(url), browser(url)
    assert await first.open() == 3
    assert await second.open() == 3
    assert bodies(await taken(first, 2)) == [0, 1]
    assert bodies(await taken(second)) == [2]
    assert await first.next() is None


@pytest_twisted.ensureDeferred
async def test_missing_queue_is_empty(rabbitmq, browser):
    looking = browser(rabbitmq.vhost(), "not.there")
    assert await looking.open() == 0
    assert await looking.next() is None


@pytest_twisted.ensureDeferred
async def test_missing_broker_raises_unavailable_at_once(browser):
    with pytest.raises(Unavailable, match="refused"):
        await browser(f"amqp://guest:guest@127.0.0.1:{free_port()}/").open()


@pytest_twisted.ensureDeferred
async def test_broker_that_hangs_raises_unavailable(rabbitmq, browser):
    looking = browser(rabbitmq.vhost(), answer_seconds=0.5)
    rabbitmq.freeze()
    try:
        with pytest.raises(Unavailable, match=r"no answer within 0\.5 s"):
            await looking.open()
    finally:
        rabbitmq.thaw()
