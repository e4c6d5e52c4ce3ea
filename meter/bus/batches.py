"""Batches: signed metering messages as publications for the bus, each with messages of one meter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from meter.interfaces import Publication
from meter.message import cast

METERING_EXCHANGE = "metering"
"""The topic exchange that carries every metering message."""

BATCH_SAMPLES = 100
"""Default number of messages in one publication."""

MAX_ROUTING_KEY_BYTES = 255
"""Limit of a routing key in AMQP 0-9-1 (a short string)."""

SAMPLES_HEADER = "meter-samples"
"""Header with the number of samples in a publication, for counting without decoding the body."""

_NOT_ALLOWED = re.compile(r"[^!-~]|[*#]")


def routing_key(meter: str) -> str:
    """Return the routing key of ``meter``: ``metering.<meter>``.

    The name of a meter may contain any character; a routing key has at most 255 bytes. Characters that are not printable
    ASCII, and the wildcards of bindings, become ``_``, so that a binding can match exactly this key. Two meters may have
    the same key: the name in the message is authoritative.
    """
    return _NOT_ALLOWED.sub("_", f"metering.{meter[:MAX_ROUTING_KEY_BYTES]}")[:MAX_ROUTING_KEY_BYTES]


def iter_publications(
    messages: Iterable[Mapping[str, Any]],
    key_id: str | None = None,
    *,
    exchange: str = METERING_EXCHANGE,
    batch_samples: int = BATCH_SAMPLES,
) -> Iterator[Publication]:
    """Yield the publications of signed ``messages``, grouped by meter, with at most ``batch_samples`` each.

    Each publication is encoded when it is taken, so that the caller can let the reactor run in between. Meters are in
    the order of their first message, messages in the given order. ``key_id`` names the key that signed them. Raises
    ``ValueError``, ``TypeError`` or ``RecursionError`` for a message that is not JSON.
    """
    meters: dict[str, list[Mapping[str, Any]]] = {}
    for message in messages:
        meters.setdefault(message["counter_name"], []).append(message)
    for meter, of_meter in meters.items():
        for first in range(0, len(of_meter), batch_samples):
            batch = of_meter[first : first + batch_samples]
            yield Publication(
                exchange=exchange,
                routing_key=routing_key(meter),
                body=cast(batch, key_id),
                headers={SAMPLES_HEADER: len(batch)},
            )


def batch_publications(
    messages: Iterable[Mapping[str, Any]],
    key_id: str | None = None,
    *,
    exchange: str = METERING_EXCHANGE,
    batch_samples: int = BATCH_SAMPLES,
) -> list[Publication]:
    """Return the publications of :func:`iter_publications` as a list."""
    return list(iter_publications(messages, key_id, exchange=exchange, batch_samples=batch_samples))
