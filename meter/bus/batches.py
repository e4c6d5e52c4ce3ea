"""Batches signed metering messages into publications for the bus, each with messages of one meter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from meter.interfaces import Publication
from meter.message import cast

METERING_EXCHANGE = "metering"
"""The topic exchange that carries every metering message."""

BATCH_SAMPLES = 100
"""Default maximum of messages in one cast."""

LONGEST_ROUTING_KEY = 255
"""Bytes of a routing key, limited by AMQP 0-9-1 (a short string)."""

SAMPLES_HEADER = "meter-samples"
"""Header with the number of samples in a cast, for counting them without decoding the body."""

_NOT_ALLOWED = re.compile(r"[^!-~]|[*#]")


def routing_key(meter: str) -> str:
    """Return the routing key of messages of ``meter``: ``metering.<meter>``, at most 255 bytes.

    Characters other than printable ASCII, and the wildcards ``*`` and ``#``, are replaced by ``_``, so that a consumer can
    bind to exactly this key. Two meters may share a routing key: consumers must use the name in the message.
    """
    return _NOT_ALLOWED.sub("_", f"metering.{meter[:LONGEST_ROUTING_KEY]}")[:LONGEST_ROUTING_KEY]


def batch_publications(
    messages: Iterable[Mapping[str, Any]],
    key_id: str | None = None,
    *,
    exchange: str = METERING_EXCHANGE,
    batch_samples: int = BATCH_SAMPLES,
) -> list[Publication]:
    """Return publications of signed ``messages``, one meter and at most ``batch_samples`` in each.

    Meters are in the order of their first message, messages in the given order. ``key_id`` is the id of the key that
    signed them. Raises ``ValueError``, ``TypeError`` or ``RecursionError`` for a message that is not JSON.
    """
    meters: dict[str, list[Mapping[str, Any]]] = {}
    for message in messages:
        meters.setdefault(message["counter_name"], []).append(message)
    publications = []
    for meter, batch in meters.items():
        for first in range(0, len(batch), batch_samples):
            part = batch[first : first + batch_samples]
            publications.append(
                Publication(
                    exchange=exchange,
                    routing_key=routing_key(meter),
                    body=cast(part, key_id),
                    headers={SAMPLES_HEADER: len(part)},
                )
            )
    return publications
