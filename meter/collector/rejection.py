"""Why the collector dead-letters a message or a part of it: the record that both of its consumers use."""

from __future__ import annotations

from dataclasses import dataclass

from twisted.python.reflect import safe_str

from meter.bus.dead_letters import DeadLetterPublisher
from meter.ceilometer_signature import BadSignature
from meter.collector.large_bodies import TooComplex
from meter.interfaces import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A message, or a part of one, that can never be processed as it is. ``kind`` is one of the kinds in docs/dead-letters.rst, ``reason`` a text.

    ``meter``, or ``event_type`` and ``listener``, identify it, if they are known.
    """

    kind: str
    reason: str
    meter: str | None = None
    event_type: str | None = None
    listener: str | None = None

    async def dead_letter(
        self, dead_letters: DeadLetterPublisher, origin: Delivery, body: bytes | None = None, samples: int | None = None
    ) -> None:
        """Return once the dead letter is confirmed; raises :class:`~meter.interfaces.Unavailable` if it may be lost.

        ``body`` is the rejected part of the delivery ``origin``, with this number of ``samples``; ``None`` if all of it is
        rejected.
        """
        await dead_letters.dead_letter(
            body=origin.body if body is None else body,
            reason=self.reason,
            origin=origin,
            kind=self.kind,
            meter=self.meter,
            event_type=self.event_type,
            listener=self.listener,
            samples=samples,
        )


def rejection_of(error: Exception, *, listener: str, event_type: str) -> Rejection:
    """Return why ``error`` rejects a notification: raised by the listener, or while its samples were signed or encoded."""
    if isinstance(error, BadSignature):
        kind, reason = "unsignable", str(error)
    elif isinstance(error, ValueError):
        kind, reason = "misunderstood", safe_str(error)
    else:
        kind, reason = "listener", f"{type(error).__name__}: {safe_str(error)}"
    return Rejection(kind=kind, reason=reason, listener=listener, event_type=event_type)


def rejection_of_body(error: Exception) -> Rejection:
    """Return why a body that cannot be opened is rejected."""
    return Rejection(kind="too-complex" if isinstance(error, TooComplex) else "undecodable", reason=str(error))
