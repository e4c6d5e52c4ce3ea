"""The archive of unwanted notifications: a queue of those that no listener wants, from which they can be replayed.

It is off by default and limited in length and age. The broker dead-letters messages beyond the limits into a second
queue, oldest first; the collector counts and discards those.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterable
from fnmatch import translate

from meter.bus.dead_letters import MAX_MASKED_AT_ONCE
from meter.bus.dead_letters import call_at_once
from meter.bus.dead_letters import header_text
from meter.bus.masking import masked_body
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Subscription

ARCHIVE_QUEUE = "metering.unwanted"
DROPPED_QUEUE = "metering.unwanted.dropped"

REASON_HEADER = "x-first-death-reason"
"""The header in which RabbitMQ says why a message left the queue: ``maxlen`` or ``expired``."""

Count = Callable[[str], object]
"""Called with the outcome for each notification: ``kept``, ``dropped_length``, ``dropped_age`` or ``refused``."""


class Archive:
    """Archives unwanted notifications whose event type matches one of the shell patterns ``event_types``.

    ``off_reactor`` runs a function in a thread: masking the secrets of a large body.
    """

    def __init__(
        self,
        publisher: IPublisher,
        event_types: Iterable[str],
        count: Count,
        off_reactor: Callable[[Callable[[], bytes]], Awaitable[bytes]] = call_at_once,
    ) -> None:
        self._publisher = publisher
        self._off_reactor = off_reactor
        self._patterns = re.compile("|".join(translate(each) for each in event_types) or r"(?!)")
        self._count = count

    async def keep(self, delivery: Delivery, event_type: str) -> None:
        """Return once the notification is in the archive, with secrets masked, or if it is not to be archived.

        Raises :class:`~meter.interfaces.Unavailable` if the bus does not confirm: the notification is then requeued.
        """
        if not self._patterns.match(event_type):
            return
        if len(delivery.body) <= MAX_MASKED_AT_ONCE:
            body = masked_body(delivery.body)
        else:
            body = await self._off_reactor(lambda: masked_body(delivery.body))
        headers: dict[str, str | int | bool] = {
            "meter-exchange": header_text(str(delivery.headers.get("meter-exchange", delivery.exchange))),
            "meter-routing-key": header_text(str(delivery.headers.get("meter-routing-key", delivery.routing_key))),
            "meter-event-type": header_text(event_type),
        }
        if body != delivery.body:
            headers["meter-masked"] = True
        try:
            await self._publisher.publish(
                Publication(exchange="", routing_key=ARCHIVE_QUEUE, body=body, headers=headers)
            )
        except ValueError:
            self._count("refused")
        else:
            self._count("kept")

    def subscription(self) -> Subscription:
        """Return the subscription for :meth:`dropped`."""
        return Subscription(queue=DROPPED_QUEUE)

    async def dropped(self, delivery: Delivery) -> None:
        """Count a notification that the broker dropped from the archive."""
        expired = delivery.headers.get(REASON_HEADER) == "expired"
        self._count("dropped_age" if expired else "dropped_length")
