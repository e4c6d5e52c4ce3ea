"""Standard messages: read in one pass, exactly as every other message is read."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from meter.batch_signature import canonical_form
from meter.batch_signature import sign_batch
from meter.message import MeteringMessage
from meter.message import cast
from meter.message import open_envelope
from meter.message import read_cast
from meter.message import seal
from meter.message import verified_batch
from meter.sample import MAX_VOLUME
from meter.standard_fields import MetadataCache
from meter.standard_fields import facts_of
from meter.standard_message import MAX_METADATA
from meter.standard_message import read_standard
from meter.standard_message import standard_cast
from meter.store.write.record import record_of
from tests.signed import outgoing
from tests.signed import resigned
from tests.store_messages import JSON
from tests.store_messages import KEYS
from tests.store_messages import SECRET
from tests.store_messages import TEXT
from tests.store_messages import TIMESTAMPS
from tests.store_messages import as_written
from tests.store_messages import sample


def fields_of(**changes):
    return {**outgoing(sample(metadata={"host": "a"}), KEYS).fields, **changes}


def body_of(*messages, first="0001-01-01T00:00:00", last="9999-12-31T23:59:59.999999"):
    """The body of a cast of ``messages``, whose batch is signed and states these times."""
    decoded = msgspec.json.decode(msgspec.json.encode(messages))
    return cast(decoded, resigned(sign_batch(decoded, "key-1", SECRET), SECRET, first=first, last=last))


def standard(body, cache=None) -> list[MeteringMessage | None] | None:
    """The messages in ``body`` as far as they are standard ones; ``None`` if the cast is not one of standard messages."""
    found = standard_cast(body)
    if found is None:
        return None
    batch = verified_batch(found.content, len(found.messages), KEYS)
    cache = MetadataCache() if cache is None else cache
    return [read_standard(fields, index, batch, cache) for index, fields in enumerate(found.messages)]


MESSAGES = st.builds(
    lambda volume, fields, metadata: fields_of(counter_volume=volume, resource_metadata=metadata, **fields),
    st.one_of(st.integers(-(2**70), 2**70), st.floats(-MAX_VOLUME, MAX_VOLUME)),
    st.fixed_dictionaries(
        {},
        optional={
            "counter_name": TEXT,
            "counter_type": st.sampled_from(["gauge", "delta", "cumulative"]),
            "counter_unit": TEXT,
            "resource_id": TEXT,
            "user_id": st.none() | TEXT,
            "project_id": st.none() | TEXT,
            "source": st.none() | TEXT,
            "timestamp": TIMESTAMPS,
            "message_id": TEXT,
            "message_signature": st.just("0" * 64) | TEXT,
        },
    ),
    st.dictionaries(TEXT, JSON, max_size=3)
    | st.fixed_dictionaries({"_meter": JSON, "host": JSON}, optional={"a": st.just("\0"), "b": st.just("\\u0000")}),
)


@settings(max_examples=300, deadline=None)
@given(messages=st.lists(MESSAGES, min_size=1, max_size=3))
def test_a_standard_message_is_read_as_every_other_message(messages):
    try:
        body = body_of(*messages)
        read = read_cast(body, KEYS)
    except ValueError:  # an empty name, a volume that is too large, or a time that is not one
        return
    for quick, slow in zip(standard(body) or [], read, strict=False):
        if quick is None:
            continue
        assert as_written(quick.fields) == as_written(slow.fields)
        assert quick.metadata == slow.metadata
        for name in MeteringMessage.__struct_fields__:
            if name not in ("received", "facts"):
                assert repr(getattr(quick, name)) == repr(getattr(slow, name)), name
        assert recorded(quick) == recorded(slow)


def recorded(message):
    """The row of ``message``, or why there is none. The order of the members of a message is not kept."""
    try:
        row = msgspec.structs.asdict(record_of(message))
    except ValueError as error:
        return str(error)
    whole = msgspec.json.decode(row["verbatim_json"]) if row["verbatim_json"] else None
    return row | {"metadata_digest": None, "verbatim_json": whole}


def test_what_meter_publishes_is_standard():
    messages = [outgoing(sample(metadata=metadata), KEYS).fields for metadata in ({}, {"a": [1, {"b": None}]})]
    read = standard(body_of(*messages))

    assert read is not None
    assert [message.fields for message in read] == [dict(each.fields) for each in read_cast(body_of(*messages), KEYS)]
    assert [message.facts.digest for message in read] == [
        facts_of(b"{}").digest,
        facts_of(b'{"a":[1,{"b":null}]}').digest,
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"counter_name": ""},
        {"counter_name": "x" * 513},
        {"counter_name": 5},
        {"counter_type": "sum"},
        {"counter_volume": True},
        {"counter_volume": "1"},
        {"counter_volume": None},
        {"resource_id": None},
        {"user_id": 5},
        {"timestamp": "2026-11-22T17:00:59" + "0" * 60},
        {"message_signature": None},
        {"user_name": "ann"},
        {"monotonic_time": 1.5},
    ],
)
def test_a_cast_with_another_form_of_message_is_not_one_of_standard_messages(changes):
    assert standard_cast(body_of(fields_of(), fields_of(**changes))) is None


def test_a_cast_without_batch_signature_is_not_one_of_standard_messages():
    assert standard_cast(cast([fields_of()])) is None


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[", b"\xff", cast([])[:-1], seal({"event_type": "metering", "payload": []}), b"[" * 5000]
)
def test_a_body_that_is_no_cast_is_not_one_of_standard_messages(body):
    assert standard_cast(body) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"counter_volume": MAX_VOLUME * 2},
        {"timestamp": "yesterday"},
        {"resource_metadata": None},
        {"resource_metadata": [1]},
        {"resource_metadata": {"long": "x" * MAX_METADATA}},
        {"counter_volume": 2**70},
    ],
)
def test_an_unusual_message_is_left_to_the_reader_of_all_messages(changes):
    assert standard(body_of(fields_of(**changes))) == [None]


def test_an_altered_message_is_not_accepted():
    for name, value in fields_of().items():
        content = open_envelope(body_of(fields_of()))
        other = {"resource_metadata": {"host": "b"}, "counter_volume": 2, "counter_type": "delta"}
        changed = other.get(name, "2026-11-18T12:00:01" if name == "timestamp" else f"{value}x")
        content["args"]["data"][0][name] = changed
        assert standard(seal(content)) == [None], name


def test_a_time_outside_of_those_that_the_batch_states_is_not_accepted():
    assert standard(body_of(fields_of(), first="2026-11-18T12:00:00", last="2026-11-18T12:00:00")) != [None]
    assert standard(body_of(fields_of(), first="2026-11-18T12:00:01")) == [None]
    assert standard(body_of(fields_of(), last="2026-11-18T11:59:59")) == [None]


@pytest.mark.parametrize("text", [b"{", b'{"a":01}', b'{"a":"\\ud800"}', b'{"a":1e999}', b"[1]", b"null"])
def test_nothing_is_known_of_what_is_not_a_mapping(text):
    assert facts_of(text) is None
    assert MetadataCache().get(text) is None


def test_facts_have_the_digests_of_signature_and_store():
    text = b'{"b": 1.50, "a": "\\u0000"}'
    facts = facts_of(text)
    assert canonical_form({"resource_metadata": {"b": 1.5, "a": "\0"}}).endswith(facts.canonical_digest)
    assert (facts.text, facts.has_nul) == ('{"b":1.5,"a":"\\u0000"}', True)


def test_the_cache_of_metadata_is_limited_in_bytes_and_keeps_what_is_used():
    cache = MetadataCache(max_bytes=2_000)
    used = b'{"used":1}'
    first = cache.get(used)
    for number in range(200):
        cache.get(b'{"number":%d,"text":"%b"}' % (number, b"x" * 50))
        assert cache.get(used) is first
    assert cache.remembered_bytes <= 2_000
