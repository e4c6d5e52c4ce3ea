"""A small message whose signed text is long takes little memory and time, whoever publishes it.

Ceilometer's signature covers a text that repeats the whole path of names before each value of the metadata: 195 KB with
one long name over 9000 short ones would make 900 MB of text.
"""

from __future__ import annotations

import tracemalloc
import uuid

import msgspec
import pytest
import pytest_twisted

import meter.signing_keys
from meter import ceilometer_signature
from meter.ceilometer_signature import MAX_PATH_CHARACTERS
from meter.ceilometer_signature import BadSignature
from meter.ceilometer_signature import signature
from meter.ceilometer_signature import signed_bytes
from meter.ceilometer_signature import text_of_metadata
from meter.message import cast
from meter.signing_keys import Keyring
from tests.security.test_forged_signatures import CEILOMETER
from tests.security.test_forged_signatures import METER
from tests.security.test_forged_signatures import SECRET
from tests.security.test_forged_signatures import Collector

LONG_PATHS = {"k" * 100_000: {f"{n:x}": 1 for n in range(9_000)}}


def message(metadata, **changes):
    return {
        "source": "s",
        "counter_name": "cpu",
        "counter_type": "gauge",
        "counter_unit": "ns",
        "counter_volume": 1,
        "user_id": "u",
        "project_id": "p",
        "resource_id": "r",
        "timestamp": "2026-11-18T12:00:00",
        "message_id": str(uuid.uuid4()),
        "resource_metadata": metadata,
        "message_signature": "0" * 64,
        **changes,
    }


def peak_and_kept(function):
    tracemalloc.start()
    try:
        function()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak, kept


async def receive(collector, *bodies):
    tracemalloc.start()
    try:
        await collector.receive(*bodies)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak, kept


@pytest.mark.parametrize("keys", [METER, CEILOMETER], ids=["meter", "ceilometer"])
@pytest_twisted.ensureDeferred
async def test_small_message_takes_little_memory(keys):
    body = cast([message(LONG_PATHS)])
    collector = Collector(keys)
    peak, _ = await receive(collector, body)
    assert peak < 5 * MAX_PATH_CHARACTERS + 30 * len(body)
    assert await collector.stored() == []
    assert len(collector.dead.reasons) == 1


@pytest_twisted.ensureDeferred
async def test_unsigned_message_is_stored_without_making_its_text():
    collector = Collector(Keyring(METER.keys, accept_unsigned=True))
    peak, _ = await receive(collector, cast([message(LONG_PATHS, message_signature=None)]))
    assert peak < 5 * MAX_PATH_CHARACTERS
    assert len(await collector.stored()) == 1


@pytest.mark.parametrize("accept_unsigned", [False, True])
def test_no_text_is_made_unless_a_key_has_the_scheme(monkeypatch, accept_unsigned):
    def fail(*_):
        raise AssertionError("the signed text was made")

    monkeypatch.setattr(meter.signing_keys, "signed_bytes", fail)
    collector = Keyring(METER.keys, accept_unsigned=accept_unsigned)
    with pytest.raises(BadSignature, match=r"no key of \[signing\] accepts Ceilometer's signature"):
        collector.verify_message(message({}), None, "cpu", "s")
    if accept_unsigned:
        assert collector.verify_message(message({}, message_signature=None), None, "cpu", "s") is None


@pytest.mark.parametrize(
    "sign",
    [
        lambda: signature(message(LONG_PATHS), SECRET),
        lambda: text_of_metadata(msgspec.json.encode(LONG_PATHS)),
        lambda: signed_bytes(message({}, more=LONG_PATHS)),
        lambda: signed_bytes(
            message({}, **{f"more{n}": {"k" * 50_000: dict.fromkeys("abcdef", 1)} for n in range(20)})
        ),
    ],
    ids=["message", "metadata", "other member", "several members"],
)
def test_text_that_is_too_long_is_not_made_when_signing_either(sign):
    def refused():
        with pytest.raises(BadSignature, match="the paths of names in the text to sign have more than"):
            sign()

    peak, _ = peak_and_kept(refused)
    assert peak < 5 * MAX_PATH_CHARACTERS


def test_text_with_paths_up_to_the_limit_is_made_whatever_the_length_of_values():
    longest = "k" * (MAX_PATH_CHARACTERS - len("resource_metadata:"))
    assert text_of_metadata(msgspec.json.encode({longest: "x" * MAX_PATH_CHARACTERS})).endswith(
        "kx" + "x" * (MAX_PATH_CHARACTERS - 1)
    )
    with pytest.raises(BadSignature):
        text_of_metadata(msgspec.json.encode({longest + "k": ""}))


@pytest_twisted.ensureDeferred
async def test_memory_of_cached_texts_is_limited():
    ceilometer_signature._cached_texts.clear()
    bodies = [
        cast([message({f"{n:03}" + "k" * 2000: {f"{m:x}": 1 for m in range(280)}}) for n in range(first, first + 20)])
        for first in range(0, 200, 20)
    ]
    _, kept = await receive(Collector(CEILOMETER), *bodies)
    assert kept < 10 * 1024 * 1024
    assert ceilometer_signature._cached_texts.currsize == 0

    signed_bytes(message({"host": "h1"}))
    assert ceilometer_signature._cached_texts.currsize == 1
