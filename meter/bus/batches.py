"""Batches: metering messages as publications for the bus, each with messages of one meter and one signature for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from meter.batch_signature import BatchSignature
from meter.batch_signature import canonical_form
from meter.batch_signature import sign_batch
from meter.interfaces import Publication
from meter.message import cast
from meter.message import cast_of_encoded
from meter.outgoing import OutgoingMessage

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
    messages: Iterable[OutgoingMessage],
    *,
    exchange: str = METERING_EXCHANGE,
    batch_samples: int = BATCH_SAMPLES,
) -> Iterator[Publication]:
    """Yield the publications of ``messages``, each a signed batch of at most ``batch_samples`` of one meter and one key.

    Each publication is signed and encoded when it is taken, so that the caller can let the reactor run in between. Meters are
    in the order of their first message, messages in the given order. Raises ``ValueError``, ``TypeError`` or
    ``RecursionError`` for a message that is not JSON.
    """
    batches: dict[tuple[str, str | None], list[OutgoingMessage]] = {}
    for message in messages:
        key_id = None if message.key is None else message.key.id
        batches.setdefault((message.fields["counter_name"], key_id), []).append(message)
    for (meter, _), of_meter in batches.items():
        key = of_meter[0].key
        for first in range(0, len(of_meter), batch_samples):
            part = of_meter[first : first + batch_samples]
            batch = [message.fields for message in part]
            yield Publication(
                exchange=exchange,
                routing_key=routing_key(meter),
                body=_body(
                    part, None if key is None else sign_batch(batch, key.id, key.secret, _canonical_forms(part))
                ),
                headers={SAMPLES_HEADER: len(batch)},
            )


def _body(messages: Sequence[OutgoingMessage], batch: BatchSignature | None) -> bytes:
    encoded = [message.escaped_json for message in messages if message.escaped_json is not None]
    if len(encoded) == len(messages):
        return cast_of_encoded(encoded, batch)
    return cast([message.fields for message in messages], batch)


def _canonical_forms(messages: Sequence[OutgoingMessage]) -> list[bytes]:
    return [
        canonical_form(message.fields) if message.canonical_form is None else message.canonical_form
        for message in messages
    ]


def batch_publications(
    messages: Iterable[OutgoingMessage],
    *,
    exchange: str = METERING_EXCHANGE,
    batch_samples: int = BATCH_SAMPLES,
) -> list[Publication]:
    """Return the publications of :func:`iter_publications` as a list."""
    return list(iter_publications(messages, exchange=exchange, batch_samples=batch_samples))
