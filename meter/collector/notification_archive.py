"""The archive of unwanted notifications: those that no listener accepts are stored for a while, so that they can be replayed.

It is a queue of the broker, limited in length and age, and off by default. Messages beyond the limits are dead-lettered
into a second queue, oldest first; the collector counts and discards those.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Iterable
from fnmatch import translate

from meter.bus.dead_letters import header_text
from meter.bus.masking import masked_body
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Subscription

ARCHIVE_QUEUE = "metering.unwanted"
DROPPED_QUEUE = "metering.unwanted.dropped"

REASON_HEADER = "x-first-death-reason"
"""Where RabbitMQ says why a message left a queue: ``maxlen`` or ``expired``."""

Count = Callable[[str], object]
"""Is called with what became of a notification: ``kept``, ``dropped_length``, ``dropped_age``, ``refused``."""


class Archive:
    """Keeps unwanted notifications whose event type matches one of the shell patterns ``event_types``."""

    def __init__(self, publisher: IPublisher, event_types: Iterable[str], count: Count) -> None:
        self._publisher = publisher
        self._patterns = re.compile("|".join(translate(each) for each in event_types) or r"(?!)")
        self._count = count

    async def keep(self, delivery: Delivery, event_type: str) -> None:
        """Return once the notification is in the archive, secrets masked, or needs no archiving.

        Raises :class:`~meter.interfaces.Unavailable` when it may not be safe: the notification then comes again.
        """
        if not self._patterns.match(event_type):
            return
        kept = masked_body(delivery.body)
        headers: dict[str, str | int | bool] = {
            "meter-exchange": header_text(str(delivery.headers.get("meter-exchange", delivery.exchange))),
            "meter-routing-key": header_text(str(delivery.headers.get("meter-routing-key", delivery.routing_key))),
            "meter-event-type": header_text(event_type),
        }
        if kept != delivery.body:
            headers["meter-masked"] = True
        try:
            await self._publisher.publish(
                Publication(exchange="", routing_key=ARCHIVE_QUEUE, body=kept, headers=headers)
            )
        except ValueError:
            self._count("refused")
        else:
            self._count("kept")

    def subscription(self) -> Subscription:
        """Return what to subscribe :meth:`dropped` to."""
        return Subscription(queue=DROPPED_QUEUE)

    async def dropped(self, delivery: Delivery) -> None:
        """Count a notification that fell out of the archive."""
        age = delivery.headers.get(REASON_HEADER) == "expired"
        self._count("dropped_age" if age else "dropped_length")
