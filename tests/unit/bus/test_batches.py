"""Signed messages are published in casts of one meter each, with routing keys that a broker accepts."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

import msgspec
import pytest

from meter.batch_signature import BATCH_SIGNATURE_FIELD
from meter.bus.batches import batch_publications
from meter.bus.batches import routing_key
from meter.message import open_envelope
from meter.message import read_cast
from meter.outgoing import OutgoingMessage
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.signing_keys import keyring
from tests.signed import fields_in
from tests.signed import outgoing

KEYS = keyring(["secret"])
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def signed(meter: str, resource: str = "r", keys: Keyring = KEYS) -> OutgoingMessage:
    sample = Sample(name=meter, type="gauge", unit="B", volume=1, resource_id=resource, timestamp=NOON)
    return outgoing(sample, keys, "openstack")


def test_each_meter_gets_its_own_publication_in_order_of_appearance() -> None:
    messages = [signed("b", "1"), signed("a", "2"), signed("b", "3")]
    first, second = batch_publications(messages)
    assert (first.exchange, first.routing_key) == ("metering", "metering.b")
    assert (second.exchange, second.routing_key) == ("metering", "metering.a")
    assert [each["resource_id"] for each in fields_in(first)] == ["1", "3"]
    assert [each["resource_id"] for each in fields_in(second)] == ["2"]
    assert fields_in(second)[0]["message_signature"] == messages[1].fields["message_signature"]


def test_batch_size_is_limited() -> None:
    publications = batch_publications([signed("cpu", str(n)) for n in range(250)])
    batches = [fields_in(publication) for publication in publications]
    assert [len(batch) for batch in batches] == [100, 100, 50]
    assert [each.headers["meter-samples"] for each in publications] == [100, 100, 50]
    assert [message["resource_id"] for batch in batches for message in batch] == [str(n) for n in range(250)]
    assert [len(batch_publications([signed("cpu")] * 5, batch_samples=size)) for size in (1, 2, 5)] == [5, 3, 1]


def test_no_messages_give_no_publication() -> None:
    assert batch_publications([]) == []


def test_messages_of_a_cast_verify() -> None:
    (publication,) = batch_publications([signed("größe:日本", str(n)) for n in range(3)])
    read = read_cast(publication.body, KEYS)
    assert [(each.name, each.resource_id, each.key_id, each.scheme) for each in read] == [
        ("größe:日本", str(n), "key-1", "meter") for n in range(3)
    ]
    entries = [each.entry for each in read if each.entry is not None]
    assert [entry.position for entry in entries] == [0, 1, 2]
    assert len({entry.batch.mac for entry in entries}) == 1


def test_publications_have_different_batch_ids() -> None:
    publications = batch_publications([signed("cpu")] * 4, batch_samples=1)
    entries = [read_cast(each.body, KEYS)[0].entry for each in publications]
    assert len({entry.batch.id for entry in entries if entry is not None}) == 4


def test_messages_of_two_keys_are_signed_as_two_batches() -> None:
    keys = Keyring(
        [SigningKey("hosts", b"hosts", sources=("openstack",), meters=("cpu",)), SigningKey("other", b"other")]
    )
    messages = [signed("cpu", "1", keys), replaced_key(signed("cpu", "2", keys), keys), signed("cpu", "3", keys)]
    first, second = batch_publications(messages)
    assert [(each.resource_id, each.key_id) for each in read_cast(first.body, keys)] == [("1", "hosts"), ("3", "hosts")]
    assert [(each.resource_id, each.key_id) for each in read_cast(second.body, keys)] == [("2", "other")]


def replaced_key(message: OutgoingMessage, keys: Keyring) -> OutgoingMessage:
    return msgspec.structs.replace(message, key=keys.get("other"))


def test_message_without_a_key_is_sent_without_a_batch_signature() -> None:
    (publication,) = batch_publications([msgspec.structs.replace(signed("cpu"), key=None)])
    assert BATCH_SIGNATURE_FIELD not in open_envelope(publication.body)


@pytest.mark.parametrize(
    ("meter", "key"),
    [
        ("cpu", "metering.cpu"),
        ("disk.device.read.bytes", "metering.disk.device.read.bytes"),
        ("instance:m1.tiny", "metering.instance:m1.tiny"),
        ("größe 日本", "metering.gr__e___"),
        ("a*b#c", "metering.a_b_c"),
        ("tab\tnul\0", "metering.tab_nul_"),
        ("x" * 300, "metering." + "x" * 246),
    ],
)
def test_routing_key_is_printable_ascii_of_at_most_255_bytes(meter: str, key: str) -> None:
    assert routing_key(meter) == key
    assert len(key.encode()) <= 255
