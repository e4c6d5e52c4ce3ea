"""Dead letters: messages that can never be processed as they are, stored with the reason, for inspection by an operator.

:class:`DeadLetterPublisher` writes them to the bus, and :func:`parse_dead_letter` reads back what it wrote.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.bus.body_limit import BodyTooLarge
from meter.bus.dead_letter_log import DeadLetterLog
from meter.bus.masking import masked_body
from meter.bus.masking import masked_text
from meter.daemon.services import wall_seconds
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import Publication
from meter.interfaces import Unavailable
from meter.sample import utc_text

DEAD_LETTER_QUEUE = "metering.dead"
"""The durable queue of dead letters, reached through the default exchange."""

DEAD_LETTER_KINDS = (
    *("undecodable", "invalid", "unverified", "unstorable", "conflict", "misunderstood", "unsignable", "unpublishable"),
    *("listener", "too-complex", "too-large", "defect"),
)
"""The kinds of dead letters: docs/dead-letters.rst says what each means."""

MAX_HEADER = 500
"""Maximum number of characters in a text header."""

MAX_REPLAYED = 10**6
"""Largest number of replays that is counted. A header with another value is ignored: whoever publishes chooses the headers."""

MAX_BODY_BYTES = 8 * 1024 * 1024
"""A longer body is truncated, before it is masked and after; its dead letter then has the header ``meter-cut``."""

MAX_MASKED_AT_ONCE = 16 * 1024
"""A longer body is masked in a thread: it may take seconds."""

WAITED_HEADER = "meter-waited"
"""The header of a delivery that waited because the queue of dead letters was full; ``meter-exchange`` says where it came from."""

FOREIGN_IDS = uuid.UUID("d2f1a2c6-0f64-5a0c-9c55-0d3f2f7a8e41")
"""Namespace of the ids of dead letters that another program put into the queue: derived from the body."""


def header_text(text: str) -> str:
    """Return ``text`` as a header value: secrets masked, printable ASCII, at most :data:`MAX_HEADER` characters."""
    fit = masked_text(text[: 4 * MAX_HEADER]).encode("unicode_escape").decode("ascii")
    return fit if len(fit) <= MAX_HEADER else fit[: MAX_HEADER - 3] + "..."


def replay_count(headers: Mapping[str, Any]) -> int | None:
    """Return how often a message was replayed, ``None`` if ``meter-replayed`` is missing or not from 0 to :data:`MAX_REPLAYED`."""
    value = headers.get("meter-replayed")
    return value if type(value) is int and 0 <= value <= MAX_REPLAYED else None


def returned_headers(headers: Mapping[str, Any]) -> dict[str, str | int | bool]:
    """Return what Meter itself has added to a message that was replayed or had to wait, with its types; empty for any other.

    Whoever publishes chooses the headers: a number of 65 bits, for example, cannot be encoded again.
    """
    replayed = replay_count(headers)
    if replayed is None and WAITED_HEADER not in headers:
        return {}
    found: dict[str, str | int | bool] = {} if replayed is None else {"meter-replayed": replayed}
    for name in ("meter-exchange", "meter-routing-key"):
        value = headers.get(name)
        if isinstance(value, str) and len(value) <= MAX_HEADER:
            found[name] = header_text(value)
    if "meter-masked" in headers:
        found["meter-masked"] = True
    return found


class DeadLettersFull(Unavailable):
    """The queue of dead letters has as many as it may have; the text says how many."""


async def call_at_once(function: Callable[[], bytes]) -> bytes:
    """Return ``function()``: for programs without a thread for it."""
    return function()


# --- writing -------------------------------------------------------------------------------------------------------


def _ignore(kind: str) -> None:
    """Count nothing."""


class DeadLetterPublisher:
    """Publishes dead letters to ``dead_letter_queue``.

    ``source_queue`` is the queue that the messages were delivered from; a replay sends them back to that queue alone.
    ``count`` is called with the ``kind`` of each dead letter, a word from a short list such as ``undecodable``.
    ``off_reactor`` runs a function in a thread; secrets of bodies of more than :data:`MAX_MASKED_AT_ONCE` bytes are masked
    there.
    """

    _logger = Logger()

    def __init__(
        self,
        publisher: IPublisher,
        clock: IReactorTime,
        dead_letter_queue: str = DEAD_LETTER_QUEUE,
        *,
        source_queue: str | None = None,
        count: Callable[[str], object] = _ignore,
        max_body_bytes: int = MAX_BODY_BYTES,
        off_reactor: Callable[[Callable[[], bytes]], Awaitable[bytes]] = call_at_once,
    ) -> None:
        self._publisher = publisher
        self._clock = clock
        self._dead_letter_queue = dead_letter_queue
        self._source_queue = source_queue
        self._count = count
        self._max_body_bytes = max_body_bytes
        self._off_reactor = off_reactor
        self._log = DeadLetterLog(clock)

    async def dead_letter(
        self, *, body: bytes, reason: str, origin: Delivery, kind: str = "bad", **headers: str | int | bool | None
    ) -> None:
        """Return once the bus has confirmed the dead letter; raise :class:`~meter.interfaces.Unavailable` if it did not.

        Secrets are masked in the body and in every header. ``reason`` tells the operator what is wrong. Further
        ``headers`` become ``meter-<name>``; those that are ``None`` are omitted. Each dead letter gets a new id. A body that is
        longer than the bus accepts, as masking can lengthen it, is truncated. If the bus cannot encode the headers, it is
        published without its origin and without further headers.
        """
        truncated = body[: self._max_body_bytes]
        if len(truncated) <= MAX_MASKED_AT_ONCE:
            safe = masked_body(truncated)
        else:
            safe = await self._off_reactor(lambda: masked_body(truncated))
        returned = returned_headers(origin.headers)
        cut = len(body) > self._max_body_bytes or len(safe) > self._max_body_bytes
        # A body that was masked before it was replayed shows no secret any more.
        masked = safe != truncated or ("meter-replayed" in returned and "meter-masked" in returned)
        needed: dict[str, str | int | bool | None] = {
            "id": str(uuid.uuid4()),
            "reason": reason,
            "kind": kind,
            "at": utc_text(datetime.fromtimestamp(wall_seconds(self._clock), UTC)),
            "queue": self._source_queue,
            "cut": True if cut else None,
            "masked": masked or None,
        }
        origin_headers = {
            "exchange": returned.get("meter-exchange", origin.exchange),
            "routing_key": returned.get("meter-routing-key", origin.routing_key),
            "replayed": returned.get("meter-replayed"),
        }
        safe = safe[: self._max_body_bytes]
        publication = self._publication(safe, {**needed, **origin_headers, **headers})
        try:
            publication = await self._publish(publication)
        except (ValueError, TypeError) as error:
            self._logger.warn("a dead letter is published without its origin: {error}", error=error)
            # The consumer states a size if it has truncated the body.
            truncated_before = True if headers.get("size") is not None else None
            queue = headers.get("queue", self._source_queue)
            publication = self._publication(safe, {**needed, "queue": queue, "cut": needed["cut"] or truncated_before})
            publication = await self._publish(publication)
        self._count(kind)
        self._log.add(publication)

    async def _publish(self, publication: Publication) -> Publication:
        """Publish a dead letter, truncated if the bus does not accept one of its size; return what was published."""
        try:
            await self._publisher.publish(publication)
        except BodyTooLarge as error:
            # Its limit may be less than that of dead letters, and only the bus knows it.
            headers = {**publication.headers, "meter-cut": True}
            publication = replace(publication, body=publication.body[: error.max_bytes], headers=headers)
            await self._publisher.publish(publication)
        return publication

    def _publication(self, body: bytes, headers: Mapping[str, str | int | bool | None]) -> Publication:
        return Publication(
            exchange="",
            routing_key=self._dead_letter_queue,
            body=body,
            headers={
                f"meter-{name.replace('_', '-')}": header_text(value) if isinstance(value, str) else value
                for name, value in headers.items()
                if value is not None
            },
        )


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead letter. ``at`` is a time in UTC, as text; ``subject`` is the meter or event type, where one is known.

    ``queue`` is the queue it was delivered from. ``masked`` and ``truncated`` say that ``body`` differs from what was sent.
    ``replayed`` is how often it was replayed, ``samples`` the number of samples in a part of a batch. A field without a header is empty.
    """

    id: str
    at: str
    kind: str
    subject: str
    reason: str
    exchange: str
    routing_key: str
    queue: str
    masked: bool
    truncated: bool
    replayed: int
    samples: int
    headers: Mapping[str, Any]
    body: bytes = field(repr=False)

    @property
    def not_replayable(self) -> str | None:
        """Why a replay cannot succeed, or ``None`` if it can."""
        if self.truncated:
            return "its body is truncated"
        if self.masked:
            return (
                "secrets in its body are masked: a signed sample can no longer be verified;"
                " a notification gives the same samples without them, and can be replayed with --force"
            )
        if not self.queue and not self.exchange and not self.routing_key:
            return "its headers do not name the queue or exchange it came from"
        return None

    def publication(self) -> Publication:
        """Return the message as it is replayed: to the queue it came from, so that no other consumer receives it.

        Without a known queue it goes to its exchange. The headers record the original exchange and routing key,
        the number of replays and whether the body is masked, for the next dead letter if processing fails again.
        """
        headers: dict[str, str | int | bool] = {
            "meter-replayed": min(self.replayed + 1, MAX_REPLAYED),
            "meter-exchange": self.exchange,
            "meter-routing-key": self.routing_key,
        }
        if self.masked:
            headers["meter-masked"] = True
        exchange, routing_key = ("", self.queue) if self.queue else (self.exchange, self.routing_key)
        return Publication(exchange=exchange, routing_key=routing_key, body=self.body, headers=headers)


def parse_dead_letter(headers: Mapping[str, Any], body: bytes) -> DeadLetter:
    """Return the dead letter with these headers and this body. It need not be Meter's: any headers are accepted."""

    def text(*names: str) -> str:
        value = next((headers[f"meter-{name}"] for name in names if f"meter-{name}" in headers), "")
        return value if isinstance(value, str) else header_text(repr(value))

    def number(name: str) -> int:
        value = headers.get(f"meter-{name}", 0)
        return value if isinstance(value, int) else 0

    return DeadLetter(
        id=text("id") or str(uuid.uuid5(FOREIGN_IDS, body.hex())),
        at=text("at"),
        kind=text("kind"),
        subject=text("meter", "event-type", "listener"),
        reason=text("reason"),
        exchange=text("exchange"),
        routing_key=text("routing-key"),
        queue=text("queue"),
        masked="meter-masked" in headers,
        # The consumer truncates a body that exceeds the bus's limit, and records the original size.
        truncated="meter-cut" in headers or "meter-size" in headers,
        replayed=replay_count(headers) or 0,
        samples=number("samples"),
        headers=headers,
        body=body,
    )
