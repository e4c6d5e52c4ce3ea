"""Casting: signed metering messages as publications for the bus, a batch of one meter each."""

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
"""Messages in one cast, unless the caller says otherwise."""

LONGEST_ROUTING_KEY = 255
"""Bytes of a routing key, by AMQP 0-9-1 (a short string)."""

SAMPLES_HEADER = "meter-samples"
"""Header with the number of samples in a cast, for whoever must account for it without opening it."""

_UNFIT = re.compile(r"[^!-~]|[*#]")


def routing_key(meter: str) -> str:
    """Return where messages of ``meter`` are published: ``metering.<meter>``.

    A meter's name may hold any character; a routing key holds at most 255 bytes. What is not escape_terminal ASCII, and the
    wildcards of bindings, becomes ``_``, so that everybody can bind to exactly this key. Two meters may share a key:
    the name that counts is the one in the message.
    """
    return _UNFIT.sub("_", f"metering.{meter[:LONGEST_ROUTING_KEY]}")[:LONGEST_ROUTING_KEY]


def batch_publications(
    messages: Iterable[Mapping[str, Any]],
    key_id: str | None = None,
    *,
    exchange: str = METERING_EXCHANGE,
    batch_samples: int = BATCH_SAMPLES,
) -> list[Publication]:
    """Return the publications that carry signed ``messages``, grouped by meter, at most ``batch_samples`` in each.

    Meters come in the order of their first message, messages in the order given. ``key_id`` names the key that signed
    them. Raises ``ValueError``, ``TypeError`` or ``RecursionError`` for a message that is not JSON.
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
