"""Signed messages for tests, as a collector receives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from meter.batch_signature import BatchSignature
from meter.batch_signature import batch_keys
from meter.bus.batches import batch_publications
from meter.interfaces import IStore
from meter.interfaces import Publication
from meter.message import MeteringMessage
from meter.message import metering_messages
from meter.message import open_envelope
from meter.message import read_cast
from meter.message import verified_batch
from meter.outgoing import OutgoingMessage
from meter.outgoing import Signer
from meter.query import SampleFilter
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.standard_fields import MetadataCache
from meter.standard_message import read_standard
from meter.standard_message import standard_cast


def outgoing(sample: Sample, keys: Keyring, source: str = "test") -> OutgoingMessage:
    return Signer(keys, source).message(sample)


def received(sample: Sample, keys: Keyring, source: str = "test") -> MeteringMessage:
    """Return the message of ``sample``, alone in its signed batch."""
    return received_together([sample], keys, source)[0]


def received_together(samples: list[Sample], keys: Keyring, source: str = "test") -> list[MeteringMessage]:
    """Return the messages of ``samples``, of one meter and signed as one batch."""
    [publication] = batch_publications([outgoing(sample, keys, source) for sample in samples])
    return read_as_collector(publication.body, keys)


def read_as_collector(body: bytes, keys: Keyring) -> list[MeteringMessage]:
    """Return the messages of a cast as a collector reads them: standard messages, if all of them are."""
    found = standard_cast(body)
    if found is not None and (batch := verified_batch(found.content, len(found.messages), keys)) is not None:
        metadata = MetadataCache()
        read = [read_standard(fields, index, batch, metadata) for index, fields in enumerate(found.messages)]
        if None not in read:
            return [message for message in read if message is not None]
    return read_cast(body, keys)


def fields_in(publication: Publication) -> list[dict[str, Any]]:
    """Return the messages that ``publication`` carries, as mappings."""
    return metering_messages(open_envelope(publication.body))


def resigned(batch: BatchSignature, secret: bytes, **changes: Any) -> BatchSignature:
    """Return ``batch`` with ``changes``, signed as a holder of ``secret`` could."""
    changed = replace(batch, **changes)
    mac = batch_keys(secret).mac(changed.id, changed.first, changed.last, changed.digests)
    return changed if "mac" in changes else replace(changed, mac=mac)


async def stored_message(
    store: IStore,
    message_id: str,
    filter: SampleFilter = SampleFilter(),  # noqa: B008 (frozen)
) -> Mapping[str, Any] | None:
    """Return a stored message as it was signed."""
    found = await store.proof(message_id, filter)
    return found and found.message
