"""Dead letters as they lie: what :mod:`meter.bus.dead_letter_publisher` wrote on one, and how it goes back to where it failed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from meter.bus.dead_letter_publisher import header_text
from meter.interfaces import Publication

IDS = uuid.UUID("d2f1a2c6-0f64-5a0c-9c55-0d3f2f7a8e41")
"""Where letters that somebody else put into the queue get an id, from their body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead letter. ``at`` is in UTC, as text; ``about`` is the meter or event type, where one is known.

    ``queue`` is the queue it was delivered from; ``masked`` and ``cut`` say that ``body`` is not what was sent.
    ``replayed`` is how often it went back already. Whatever nobody wrote down is empty.
    """

    id: str
    at: str
    kind: str
    about: str
    reason: str
    exchange: str
    routing_key: str
    queue: str
    masked: bool
    cut: bool
    replayed: int
    headers: Mapping[str, Any]
    body: bytes = field(repr=False)

    @property
    def not_replayable(self) -> str | None:
        """Why replaying it is no good, or ``None``."""
        if self.cut:
            return "only the beginning of its body was kept"
        if self.masked:
            return (
                "secrets in its body were masked: a signed sample can no longer be verified;"
                " a notification says the same without them and may be forced"
            )
        if not self.queue and not self.exchange and not self.routing_key:
            return "nobody wrote down where it came from"
        return None

    def publication(self) -> Publication:
        """Return it on its way back: to the queue it came from, which no other reader of its exchange notices.

        One whose queue is not known goes to its exchange. Should it fail again, its next letter says where it came
        from at first, and how often it was replayed.
        """
        headers: dict[str, str | int | bool] = {
            "meter-replayed": self.replayed + 1,
            "meter-exchange": self.exchange,
            "meter-routing-key": self.routing_key,
        }
        exchange, routing_key = ("", self.queue) if self.queue else (self.exchange, self.routing_key)
        return Publication(exchange=exchange, routing_key=routing_key, body=self.body, headers=headers)


def letter(headers: Mapping[str, Any], body: bytes) -> DeadLetter:
    """Read the letter that lies there with these headers, whoever put it there."""

    def text(*names: str) -> str:
        value = next((headers[f"meter-{name}"] for name in names if f"meter-{name}" in headers), "")
        return value if isinstance(value, str) else header_text(repr(value))

    count = headers.get("meter-replayed", 0)
    return DeadLetter(
        id=text("id") or str(uuid.uuid5(IDS, body.hex())),
        at=text("at"),
        kind=text("kind"),
        about=text("meter", "event-type", "listener"),
        reason=text("reason"),
        exchange=text("exchange"),
        routing_key=text("routing-key"),
        queue=text("queue"),
        masked="meter-masked" in headers,
        # A body that was larger than the bus takes was cut by the consumer, which says how large it was.
        cut="meter-cut" in headers or "meter-size" in headers,
        replayed=count if isinstance(count, int) else 0,
        headers=headers,
        body=body,
    )
