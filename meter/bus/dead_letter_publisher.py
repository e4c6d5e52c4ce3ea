"""Dead letters: messages that can never be metered as they are, kept aside with the reason, for people to look at."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.bus.masking import masked_body
from meter.bus.masking import masked_text
from meter.daemon.services import wall_seconds
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.sample import utc_text

DEAD_LETTER_QUEUE = "metering.dead"
"""The durable queue of dead letters, reached through the default exchange."""

LONGEST_HEADER = 500
"""Characters of a text in a header."""

LARGEST_BODY_BYTES = 8 * 1024 * 1024
"""What is longer is cut before it is masked, and its dead letter says so in ``meter-cut``."""


def _uncounted(kind: str) -> None:
    """Count nothing."""


def header_text(text: str) -> str:
    """Return ``text`` fit for a header: secrets masked, escape_terminal ASCII only, at most 500 characters."""
    fit = masked_text(text[: 4 * LONGEST_HEADER]).encode("unicode_escape").decode("ascii")
    return fit if len(fit) <= LONGEST_HEADER else fit[: LONGEST_HEADER - 3] + "..."


def _origin_headers(origin: Delivery) -> dict[str, str | int]:
    """Return where ``origin`` came from at first, and how often it was replayed since: what ``meter-dead-letters`` told it."""
    replayed: Mapping[str, Any] = origin.headers if "meter-replayed" in origin.headers else {}
    found: dict[str, str | int] = {
        "exchange": replayed.get("meter-exchange", origin.exchange),
        "routing_key": replayed.get("meter-routing-key", origin.routing_key),
    }
    if replayed:
        found["replayed"] = replayed["meter-replayed"]
    return {name: value if isinstance(value, str | int) else repr(value) for name, value in found.items()}


class DeadLetterPublisher:
    """Puts messages aside on the bus.

    ``of_queue`` names the queue that they were delivered from, so that one can be replayed to it alone. ``count`` is
    called with the ``kind`` of each, one word of a small vocabulary such as ``undecodable``. The first of a kind is
    logged as a warning; after that the counter and the queue tell, so that a flood does not fill the log too.
    """

    _log = Logger()

    def __init__(
        self,
        publisher: IPublisher,
        clock: IReactorTime,
        queue: str = DEAD_LETTER_QUEUE,
        *,
        of_queue: str | None = None,
        count: Callable[[str], object] = _uncounted,
        largest_body_bytes: int = LARGEST_BODY_BYTES,
    ) -> None:
        self._publisher = publisher
        self._clock = clock
        self._queue = queue
        self._of_queue = of_queue
        self._count = count
        self._largest_body_bytes = largest_body_bytes
        self._warned: set[str] = set()

    async def dead_letter(
        self, *, body: bytes, reason: str, origin: Delivery, kind: str = "bad", **headers: str | int | bool | None
    ) -> None:
        """Return once ``body`` is safe among the dead letters; :class:`~meter.interfaces.Unavailable` when it may not be.

        Secrets are masked in the body and in every header. ``reason`` says to people what is wrong; further
        ``headers`` are named ``meter-<name>``, those that are ``None`` are left out. Each letter has an id of its own;
        :mod:`meter.bus.dead_letter` reads what is written here.
        """
        whole = body[: self._largest_body_bytes]
        kept = masked_body(whole)
        named: dict[str, str | int | bool | None] = {
            "id": str(uuid.uuid4()),
            "reason": reason,
            "kind": kind,
            "at": utc_text(datetime.fromtimestamp(wall_seconds(self._clock), UTC)),
            "queue": self._of_queue,
            "cut": True if len(body) > self._largest_body_bytes else None,
            "masked": True if kept != whole else None,
            **_origin_headers(origin),
            **headers,
        }
        publication = Publication(
            exchange="",
            routing_key=self._queue,
            body=kept,
            headers={
                f"meter-{name.replace('_', '-')}": header_text(value) if isinstance(value, str) else value
                for name, value in named.items()
                if value is not None
            },
        )
        await self._publisher.publish(publication)
        self._count(kind)
        tell = self._log.debug if kind in self._warned else self._log.warn
        self._warned.add(kind)
        tell(
            "a message from {headers[meter-exchange]}/{headers[meter-routing-key]} is set aside: {headers[meter-reason]}",
            headers=publication.headers,
        )
