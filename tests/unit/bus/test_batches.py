"""Signed messages are published in casts of one meter each, with routing keys that a broker accepts."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from typing import Any

import pytest

from meter.bus.batches import batch_publications
from meter.bus.batches import routing_key
from meter.message import metering_messages
from meter.message import open_envelope
from meter.message import read
from meter.outgoing import sign
from meter.sample import Sample
from meter.signing_keys import keyring

KEYS = keyring(["secret"])
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def signed(meter: str, resource: str = "r") -> dict[str, Any]:
    sample = Sample(name=meter, type="gauge", unit="B", volume=1, resource_id=resource, timestamp=NOON)
    return sign(sample, KEYS, "openstack")


def test_each_meter_gets_its_own_publication_in_order_of_appearance() -> None:
    messages = [signed("b", "1"), signed("a", "2"), signed("b", "3")]
    first, second = batch_publications(messages, "key-1")
    assert (first.exchange, first.routing_key) == ("metering", "metering.b")
    assert (second.exchange, second.routing_key) == ("metering", "metering.a")
    assert metering_messages(open_envelope(first.body)) == ([messages[0], messages[2]], "key-1")
    assert metering_messages(open_envelope(second.body)) == ([messages[1]], "key-1")


def test_batch_size_is_limited() -> None:
    publications = batch_publications([signed("cpu", str(n)) for n in range(250)])
    batches = [metering_messages(open_envelope(publication.body)) for publication in publications]
    assert [len(batch) for batch in batches] == [100, 100, 50]
    assert [message["resource_id"] for batch in batches for message in batch] == [str(n) for n in range(250)]
    assert [len(batch_publications([signed("cpu")] * 5, batch_samples=size)) for size in (1, 2, 5)] == [5, 3, 1]


def test_no_messages_give_no_publication() -> None:
    assert batch_publications([]) == []


def test_messages_of_a_cast_verify() -> None:
    message = signed("größe:日本")
    (publication,) = batch_publications([message], "key-1")
    (carried,), key_id = metering_messages(open_envelope(publication.body))
    assert read(carried, KEYS, key_id).name == "größe:日本"


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
