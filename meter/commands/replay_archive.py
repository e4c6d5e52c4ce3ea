"""``meter-notify replay``: notifications that nobody wanted, from the archive to the collector again."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from typing import Any

from twisted.internet.defer import maybeDeferred

from meter.bus.amqp import AmqpBus
from meter.bus.amqp import Browser
from meter.collector.notification_archive import ARCHIVE_QUEUE
from meter.collector.notifications import NOTIFICATIONS_QUEUE
from meter.commands.command import DONE
from meter.commands.command import CommandError
from meter.commands.command import escape_terminal
from meter.daemon.supervised import wait_ready
from meter.interfaces import Delivery
from meter.interfaces import Publication

"""How long the broker may take to be ready."""


async def replay_archive(reactor: Any, url: str, *, event_type: str, limit: int | None, only_list: bool) -> int:
    """Send the archived notifications of ``event_type`` to the collector's queue, the oldest first, and remove each then.

    One that still nobody wants comes back into the archive, behind those that are there now: it is not sent twice.
    """
    if not url.startswith(("amqp://", "amqps://")):
        raise CommandError(f"[bus] url: {url} is no broker; the archive is a queue of RabbitMQ")
    if limit is not None and limit < 1:
        raise CommandError(f"--limit: should be at least 1, not {limit}")
    browser = Browser(reactor, url, ARCHIVE_QUEUE, clock=reactor, name="meter-notify")
    bus = AmqpBus(reactor, url, clock=reactor, name="meter-notify")
    chosen = 0
    try:
        waiting = await browser.open()
        if not only_list and waiting:
            bus.startService()
            await wait_ready(bus, reactor, name="the broker")
        while (limit is None or chosen < limit) and (held := await browser.next()) is not None:
            found = str(held.delivery.headers.get("meter-event-type", ""))
            if not fnmatchcase(found, event_type):
                continue
            chosen += 1
            if not only_list:
                await bus.publish(_again(held.delivery))
                browser.remove(held)
            said = "is archived" if only_list else f"is on its way to {NOTIFICATIONS_QUEUE}"
            sys.stdout.write(
                escape_terminal(f"{found} from {held.delivery.headers.get('meter-exchange', '')} {said}") + "\n"
            )
        sys.stdout.write(f"{chosen} of {waiting} notifications {'listed' if only_list else 'replayed'}\n")
        sys.stdout.flush()
    finally:
        await browser.close()
        await maybeDeferred(bus.stopService)
    return DONE


def _again(delivery: Delivery) -> Publication:
    """Return the publication: to the collector's queue only, with its original exchange and routing key."""
    replayed = delivery.headers.get("meter-replayed")
    headers: dict[str, str | int | bool] = {
        name: value
        for name in ("meter-exchange", "meter-routing-key")
        if isinstance(value := delivery.headers.get(name), str)
    }
    headers["meter-replayed"] = replayed + 1 if isinstance(replayed, int) else 1
    return Publication(exchange="", routing_key=NOTIFICATIONS_QUEUE, body=delivery.body, headers=headers)
