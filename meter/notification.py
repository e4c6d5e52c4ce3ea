"""Notifications that OpenStack services publish on the bus, as frozen records for listeners."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.sample import Sample

SAMPLE_IDS = uuid.UUID("6f0c7a52-5d0e-5c55-9a3b-2f8f0e7b1f66")
"""UUID namespace of the ids of samples made from notifications. Changing it would break deduplication."""

CONTEXT_PREFIX = "_context_"
"""Prefix of the members of a notification that belong to the request context."""

_PREFIX_CHARACTERS = len(CONTEXT_PREFIX)


class Notification(msgspec.Struct, frozen=True, eq=False):
    """One notification. ``timestamp`` is in UTC; ``payload`` is JSON as sent, usually a mapping.

    A struct, because creating a frozen dataclass takes ten times as long; ``msgspec.structs.replace`` copies it.

    ``context`` is the request context: ``user_id``, ``project_id``, ``request_id`` and sometimes a token. ``may_differ``
    are the fields, besides the timestamp, in which samples of another notification about the same event may differ, see
    :func:`meter.sample_identity.may_differ`. ``timestamp`` is the time of the event, if that is known, and ``sent_at`` that of
    the sending: an audit is about a period, and contains the state after it.
    """

    message_id: str
    event_type: str
    publisher_id: str
    priority: str
    timestamp: datetime
    payload: Any
    context: Mapping[str, Any] = msgspec.field(default_factory=dict)
    may_differ: tuple[str, ...] = ()
    sent: datetime | None = None
    """The time of the sending, ``None`` if it is ``timestamp``."""

    def __eq__(self, other: object) -> bool:
        """Compare what the notifications say, not ``may_differ`` and ``sent``, which normalization adds."""
        if not isinstance(other, Notification):
            return NotImplemented
        return self._said == other._said

    __hash__ = None  # type: ignore[assignment]  # the payload has none

    def __repr__(self) -> str:
        """Show all but the context, which may contain a token."""
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "context")
        return f"Notification({', '.join(shown)})"

    @property
    def _said(self) -> tuple[Any, ...]:
        return (
            self.message_id,
            self.event_type,
            self.publisher_id,
            self.priority,
            self.timestamp,
            self.payload,
            self.context,
        )

    @property
    def sent_at(self) -> datetime:
        """The time of the sending."""
        return self.timestamp if self.sent is None else self.sent


def notification(content: Mapping[str, Any]) -> Notification:
    """Return ``content``, taken out of its envelope, as a notification; raises :class:`BadMessage` if it is not one."""
    for name in ("message_id", "event_type", "timestamp"):
        if not isinstance(content.get(name), str) or not content[name]:
            raise BadMessage(f"a notification must have {name} as a non-empty text")
        if not content[name].isascii():
            _refuse_surrogates(content[name], name)
    if "payload" not in content:
        raise BadMessage("a notification must have a payload")
    return Notification(
        message_id=content["message_id"],
        event_type=content["event_type"],
        publisher_id=str(content.get("publisher_id") or ""),
        priority=str(content.get("priority") or ""),
        timestamp=parse_timestamp(content["timestamp"], "timestamp"),
        payload=content["payload"],
        # Slices, because a call for each of some fifty names takes twice as long.
        context={
            name[_PREFIX_CHARACTERS:]: value
            for name, value in content.items()
            if name[:_PREFIX_CHARACTERS] == CONTEXT_PREFIX
        },
    )


def _refuse_surrogates(text: str, name: str) -> None:
    """Raise :class:`BadMessage` for text that cannot be encoded: it becomes part of ids, labels and logs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadMessage(f"{name} of a notification has an unpaired surrogate: {text[:60]!r}") from error


def stable_ids(origin: Notification, samples: Iterable[Sample]) -> Iterator[str]:
    """Yield the id of each sample of a notification. A redelivered notification gives the same ids.

    An id is derived from the notification's id, the meter, the resource, and a number that tells apart several samples of
    one meter and resource.
    """
    seen: dict[tuple[str, str], int] = {}
    begin = SAMPLE_IDS.bytes + origin.message_id.encode()
    for sample in samples:
        pair = (sample.name, sample.resource_id)
        count = seen[pair] = seen.get(pair, 0) + 1
        yield _uuid5(begin + f"\0{sample.name}\0{sample.resource_id}\0{count}".encode())


def _uuid5(named: bytes) -> str:
    """Return ``str(uuid.uuid5(…))``, three times as fast; ``named`` are the bytes of the namespace and the name."""
    digits = hashlib.sha1(named, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"
