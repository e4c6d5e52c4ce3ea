"""``meter-notify replay``: sends notifications from the archive to the collector again."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from typing import Any

from twisted.internet.defer import maybeDeferred

from meter.bus.amqp import AmqpBus
from meter.bus.amqp import Browser
from meter.bus.dead_letters import MAX_REPLAYED
from meter.bus.dead_letters import replay_count
from meter.collector.notification_archive import ARCHIVE_QUEUE
from meter.collector.notifications import NOTIFICATIONS_QUEUE
from meter.commands.command import EXIT_OK
from meter.commands.command import CommandError
from meter.commands.command import escape_terminal
from meter.counts import counted
from meter.daemon.supervised import wait_ready
from meter.interfaces import Delivery
from meter.interfaces import Publication


async def replay_archive(reactor: Any, url: str, *, event_type: str, limit: int | None, only_list: bool) -> int:
    """Send archived notifications of ``event_type`` to the collector's queue, oldest first, and remove each once confirmed.

    A notification that is still unwanted returns to the end of the archive, so that it is not sent twice.
    """
    if not url.startswith(("amqp://", "amqps://")):
        raise CommandError(f"[bus] url: should be the URL of a broker, which holds the archive, not {url}")
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
            found_type = str(held.delivery.headers.get("meter-event-type", ""))
            if not fnmatchcase(found_type, event_type):
                continue
            chosen += 1
            if not only_list:
                await bus.publish(_replay_publication(held.delivery))
                browser.remove(held)
            state = "archived" if only_list else f"replayed to {NOTIFICATIONS_QUEUE}"
            sys.stdout.write(
                escape_terminal(f"{found_type} from {held.delivery.headers.get('meter-exchange', '')}: {state}") + "\n"
            )
        sys.stdout.write(f"{chosen} of {counted(waiting, 'notification')} {'listed' if only_list else 'replayed'}\n")
        sys.stdout.flush()
    finally:
        await browser.close()
        await maybeDeferred(bus.stopService)
    return EXIT_OK


def _replay_publication(delivery: Delivery) -> Publication:
    """Return the publication to the collector's queue; headers carry its original exchange and routing key."""
    headers: dict[str, str | int | bool] = {
        name: value
        for name in ("meter-exchange", "meter-routing-key")
        if isinstance(value := delivery.headers.get(name), str)
    }
    headers["meter-replayed"] = min((replay_count(delivery.headers) or 0) + 1, MAX_REPLAYED)
    return Publication(exchange="", routing_key=NOTIFICATIONS_QUEUE, body=delivery.body, headers=headers)
