"""The contract of IStore: the same tests for the in-memory store and for PostgreSQL."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace as replaced
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from datetime import timezone
from pathlib import Path

import msgspec
import pytest
import pytest_twisted
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from meter.ceilometer_signature import signature
from meter.interfaces import IStore
from meter.interfaces import RequestError
from meter.message import MeteringMessage
from meter.message import parse_timestamp
from meter.query import Aggregate
from meter.query import And
from meter.query import Comparison
from meter.query import In
from meter.query import Marker
from meter.query import MetadataMatch
from meter.query import Not
from meter.query import Or
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.query import WriteResult
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.store import PostgresStore
from meter.stored_batch import verify_stored_batch
from meter.testing import MemoryStore
from tests.archived import before_reads
from tests.packed import TABLES as PACKED_TABLES
from tests.sample_pages import compare_pages
from tests.signed import received_together
from tests.signed import stored_message
from tests.spread import server_and_dsn
from tests.store_messages import KEYS
from tests.store_messages import NOON
from tests.store_messages import after
from tests.store_messages import as_written
from tests.store_messages import message
from tests.waiting import until

ALL = SampleFilter()
BATCH_TABLES = ("unstored_entry", "signed_batch")
DIMENSION_TABLES = ("meter", "resource", '"user"', "project", "source", "run", "series", "metadata", "wire_format")
VECTORS = json.loads((Path(__file__).parents[1] / "data/signature-vectors.json").read_text())


@pytest.fixture(scope="module")
def database(request):
    """One database for all tests of this module: creating one takes longer than truncating its tables."""
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest.fixture(params=["memory", "postgresql", "packed", "archived", "spread"])
def store(request):
    if request.param == "memory":
        store = MemoryStore(reactor)
        compare_pages(store)
        yield store
        return
    server, dsn = server_and_dsn(request, request.param)
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1)
    compare_pages(store)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready)))
    with before_reads(request, dsn):
        yield store
    pytest_twisted.blockon(store.stopService())
    server.execute(f"TRUNCATE sample, {', '.join(BATCH_TABLES + DIMENSION_TABLES + PACKED_TABLES)}", dsn)


def equals(**fields):
    return SampleFilter(equals=fields)


def test_store_provides_istore(store):
    verifyObject(IStore, store)


@pytest_twisted.ensureDeferred
async def test_sample_has_the_fields_of_its_message(store):
    sent = message(
        "disk.read.bytes",
        12.5,
        type="cumulative",
        unit="B",
        metadata={"flavor": {"name": "m1", "vcpus": 2}, "tags": ["a", None]},
    )

    began = datetime.fromtimestamp(reactor.seconds(), UTC)
    assert await store.write([sent]) == WriteResult(stored=1, duplicates=0)
    ended = datetime.fromtimestamp(reactor.seconds(), UTC)

    [sample] = await store.samples(ALL, 10)
    assert (sample.message_id, sample.name, sample.type, sample.unit) == (
        sent.message_id,
        "disk.read.bytes",
        "cumulative",
        "B",
    )
    assert (sample.volume, sample.timestamp) == (12.5, NOON)
    assert (sample.resource_id, sample.user_id, sample.project_id, sample.source) == ("r1", "u1", "p1", "test")
    assert sample.metadata == {"flavor": {"name": "m1", "vcpus": 2}, "tags": ["a", None]}
    assert (sample.signature, sample.scheme, sample.key_id) == ("", "meter", "key-1")
    assert began <= sample.recorded_at <= ended


@pytest_twisted.ensureDeferred
async def test_message_written_several_times_is_stored_once(store):
    first, second = message(), message()

    assert await store.write([first, second, first]) == WriteResult(stored=2, duplicates=1)
    assert await store.write([second, first]) == WriteResult(stored=0, duplicates=2)

    assert len(await store.samples(ALL, 10)) == 2


@pytest_twisted.ensureDeferred
async def test_empty_batch_stores_nothing(store):
    assert await store.write([]) == WriteResult(stored=0, duplicates=0)


@pytest_twisted.ensureDeferred
async def test_absent_owner_is_not_an_empty_owner(store):
    await store.write([message(user_id=None, project_id=None), message(user_id="")])

    [sample] = await store.samples(equals(user_id=None), 10)
    assert (sample.user_id, sample.project_id) == (None, None)
    assert [sample.user_id for sample in await store.samples(equals(user_id=""), 10)] == [""]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (message(resource_id="r\0"), "NUL"),
        (message(metadata={"note": "a\0b"}), "NUL"),
        (message(metadata={"deep": [{"a\0b": 1}]}), "NUL"),
        (
            replace(message(), received={**message().fields, "resource_metadata": {"x": "\ud800"}}, facts=None),
            "surrogate",
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_batch_with_one_unstorable_message_stores_the_rest(store, bad, reason):
    result = await store.write([message(), bad, message()])

    assert (result.stored, result.duplicates) == (2, 0)
    [refusal] = result.refused
    assert refusal.index == 1
    assert reason in refusal.reason


# --- one id is one fact --------------------------------------------------------------------------------------------

AN_ID = "0195d3f0-1111-7abc-8def-000000000001"
MONDAY = datetime(2026, 11, 16, tzinfo=UTC)
LONG_AGO = datetime(1999, 11, 15, tzinfo=UTC)
"""A Monday in a week without a partition of its own."""

DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)
IDS = (AN_ID, "no UUID ❄", AN_ID.upper())


def fact(**changes):
    return message(**{"message_id": AN_ID, "volume": 3, **changes})


async def one_after_the_other(store, *sent):
    """Write each message as a batch; return the outcome of each: "stored", "duplicate" or a refusal."""
    results = [await store.write([each]) for each in sent]
    return [outcome(result) for result in results]


def outcome(result):
    return "stored" if result.stored else "duplicate" if result.duplicates else result.refused[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"other": "metadata"}},
        {"source": "another"},
        {"source": None},
        {"volume": 3.0},
        {"at": NOON.astimezone(timezone(timedelta(hours=5)))},
    ],
    ids=repr,
)
@pytest.mark.parametrize("message_id", IDS)
@pytest_twisted.ensureDeferred
async def test_message_that_repeats_a_fact_is_a_duplicate(store, message_id, changes):
    first, again = fact(message_id=message_id), fact(message_id=message_id, **changes)

    assert await one_after_the_other(store, first, again) == ["stored", "duplicate"]
    assert await stored_message(store, message_id) == first.fields
    assert len(await store.samples(ALL, 10)) == 1


@pytest_twisted.ensureDeferred
async def test_timestamp_in_another_time_zone_is_a_duplicate(store):
    first = fact()
    again = resent(first, timestamp="2026-11-18T14:00:00+02:00")

    assert await one_after_the_other(store, first, again) == ["stored", "duplicate"]


def resent(sent, **changes):
    """Return ``sent`` as received, signed with other values of some fields."""
    fields = {name: value for name, value in {**sent.fields, **changes}.items() if name != "message_signature"}
    return received({**fields, "message_signature": signature(fields, b"a secret of the tests")})


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"name": "cpus"}, "meter"),
        ({"type": "delta"}, "type"),
        ({"unit": "s"}, "unit"),
        ({"resource_id": "r2"}, "resource_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"project_id": "p2"}, "project_id"),
        ({"volume": 3.5}, "volume"),
        ({"at": 0.000001}, "timestamp"),
        ({"at": -3600}, "timestamp"),
        ({"at": 7 * 86400}, "timestamp"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("message_id", IDS)
@pytest_twisted.ensureDeferred
async def test_message_with_a_taken_id_and_another_fact_is_refused_naming_the_difference(
    store, message_id, changes, label
):
    first, other = fact(message_id=message_id), fact(message_id=message_id, **changes)

    stored, refusal = await one_after_the_other(store, first, other)

    assert (stored, refusal.kind) == ("stored", "conflict")
    assert message_id in refusal.reason
    assert f"{label} " in refusal.reason
    others = {"meter", "type", "unit", "resource_id", "user_id", "project_id", "volume", "timestamp"} - {label}
    assert not [each for each in others if f"{each} " in refusal.reason]
    assert await stored_message(store, message_id) == first.fields
    assert len(await store.samples(ALL, 10)) == 1


ANY = ["timestamp", "volume", "user_id", "project_id"]


@pytest.mark.parametrize(
    ("may_differ", "changes", "expected"),
    [
        (["timestamp"], {"at": 0.25}, "duplicate"),
        (["timestamp"], {"at": 6 * 86400}, "duplicate"),
        (["timestamp"], {"at": 0.25, "volume": 4}, "conflict"),
        (ANY, {"at": 0.25, "volume": 4, "user_id": None, "project_id": "p2"}, "duplicate"),
        (ANY, {"at": 0.25, "resource_id": "r2"}, "conflict"),
        (ANY, {"name": "cpus"}, "conflict"),
        (ANY, {"unit": "s"}, "conflict"),
        (["resource_id", "meter", "unit", "type"], {"resource_id": "r2"}, "conflict"),
        *(
            (rubbish, {"at": 0.25}, "conflict")
            for rubbish in (None, "timestamp", [], [7, None, ["timestamp"]], {"timestamp": 1})
        ),
    ],
    ids=repr,
)
@pytest_twisted.ensureDeferred
async def test_fields_that_either_message_declares_variable_do_not_conflict(store, may_differ, changes, expected):
    for number, batches in enumerate((lambda *sent: [[each] for each in sent], lambda *sent: [[*sent]])):
        ids = [f"{number} {order}" for order in "ab"]
        pairs = [
            [fact(message_id=id), fact(message_id=id, metadata={"_meter": {"may_differ": may_differ}}, **changes)]
            for id in ids
        ]
        for id, pair in zip(ids, (pairs[0], pairs[1][::-1]), strict=True):
            results = [await store.write(batch) for batch in batches(*pair)]
            assert sum(result.stored for result in results) == 1
            assert sum(result.duplicates for result in results) == (expected == "duplicate")
            assert [each.kind for result in results for each in result.refused] == ["conflict"] * (
                expected == "conflict"
            )
            assert await stored_message(store, id) == pair[0].fields


@pytest.mark.parametrize("monday", [MONDAY, LONG_AGO], ids=["partition", "default partition"])
@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        (timedelta(0), 7 * DAY - INSTANT, "conflict"),
        (timedelta(0), -INSTANT, "conflict"),
        (timedelta(0), -7 * DAY, "conflict"),
        (timedelta(0), 14 * DAY - INSTANT, "conflict"),
        (7 * DAY - INSTANT, -7 * DAY, "conflict"),
        (timedelta(0), -7 * DAY - INSTANT, "stored"),
        (timedelta(0), 14 * DAY, "stored"),
        (7 * DAY - INSTANT, 14 * DAY, "stored"),
        (timedelta(0), 3000 * DAY, "stored"),
    ],
    ids=repr,
)
@pytest_twisted.ensureDeferred
async def test_id_is_unique_within_its_week_and_the_adjacent_weeks(store, monday, first, other, expected):
    sent = [fact(at=monday + first), fact(at=monday + other)]

    for one, two in (sent, [resent(each, message_id="other") for each in reversed(sent)]):
        outcomes = await one_after_the_other(store, one, two, two, one)
        assert [getattr(each, "kind", each) for each in outcomes] == [
            "stored",
            expected,
            "conflict" if expected == "conflict" else "duplicate",
            "duplicate",
        ]


@pytest.mark.parametrize(
    "ends", [("0001-01-01T00:00:00", "0001-01-08T00:00:00"), ("9999-12-31T23:59:59.999999", "9999-12-24T00:00:00")]
)
@pytest_twisted.ensureDeferred
async def test_first_and_last_week_of_the_calendar_have_one_adjacent_week(store, ends):
    one, two = (resent(fact(), timestamp=each) for each in ends)

    stored, refusal, again = await one_after_the_other(store, one, two, one)

    assert (stored, refusal.kind, again) == ("stored", "conflict", "duplicate")


@pytest_twisted.ensureDeferred
async def test_batch_with_one_id_twice_stores_the_first_and_refuses_another_fact(store):
    later, earlier = fact(at=60), fact(at=0)
    batch = [
        message(),
        later,
        earlier,
        fact(at=60, metadata={"sent": "twice"}),
        message(),
        later,
        fact(at=30 * 86400),
    ]

    result = await store.write(batch)

    assert (result.stored, result.duplicates) == (4, 2)
    assert [(each.index, each.kind) for each in result.refused] == [(2, "conflict")]
    times = {each.timestamp for each in await store.samples(equals(message_id=AN_ID), 10)}
    assert times == {after(60), after(30 * 86400)}


@pytest_twisted.ensureDeferred
async def test_conflict_in_one_batch_is_found_across_adjacent_weeks(store):
    batch = [fact(at=MONDAY - INSTANT), fact(at=MONDAY), message(at=MONDAY - INSTANT), message(at=MONDAY)]

    result = await store.write(batch)

    assert (result.stored, result.duplicates, [each.index for each in result.refused]) == (3, 0, [1])


@pytest_twisted.ensureDeferred
async def test_repetition_of_an_unstorable_message_is_refused_alike(store):
    bad = fact(metadata={"note": "a\0b"})

    result = await store.write([bad, message(), bad])

    assert (result.stored, result.duplicates) == (1, 0)
    assert [(each.index, each.kind) for each in result.refused] == [(0, "unstorable"), (2, "unstorable")]


@pytest_twisted.ensureDeferred
async def test_unstorable_message_does_not_take_its_id(store):
    result = await store.write([fact(metadata={"note": "a\0b"}), fact(volume=4)])

    assert (result.stored, [each.index for each in result.refused]) == (1, [0])
    assert (await store.sample(AN_ID, ALL)).volume == 4


@pytest_twisted.ensureDeferred
async def test_message_of_an_id_used_twice_is_the_newest_that_matches_the_filter(store):
    old, new = fact(project_id="p1"), fact(at=30 * 86400, project_id="p2")
    assert await one_after_the_other(store, old, new) == ["stored", "stored"]

    assert await stored_message(store, AN_ID) == new.fields
    assert await stored_message(store, AN_ID, equals(project_id="p1")) == old.fields
    assert (await store.sample(AN_ID, equals(project_id="p1"))).timestamp == old.timestamp
    assert await stored_message(store, AN_ID, equals(project_id="p3")) is None


# --- exactness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["case"] for vector in VECTORS])
@pytest_twisted.ensureDeferred
async def test_message_is_returned_exactly_as_signed_and_verifies(store, vector):
    fields = vector["message"]
    keys = Keyring([SigningKey("theirs", vector["secret"].encode(), schemes=("ceilometer",))])
    sent = received(fields, keys)

    result = await store.write([sent])

    assert result == WriteResult(1, 0)
    answer = await stored_message(store, fields["message_id"])
    assert as_written(answer) == as_written(fields)
    assert (sent.key_id, received(answer, keys).key_id) == ("theirs", "theirs")
    [sample] = await store.samples(ALL, 10)
    assert (sample.signature, sample.scheme) == (fields["message_signature"], "ceilometer")


def received(fields, keys=KEYS) -> MeteringMessage:
    from meter.message import read

    return read(fields, keys)


# --- signed batches ------------------------------------------------------------------------------------------------


def batch_of(*volumes, first_id=0):
    """Return messages that were signed together, with volumes and ids."""
    return received_together(
        [
            Sample(
                name="cpu",
                type="gauge",
                unit="ns",
                volume=volume,
                resource_id=f"r{n}",
                timestamp=after(n),
                resource_metadata={"n": n},
                message_id=str(uuid.UUID(int=first_id + n)),
            )
            for n, volume in enumerate(volumes)
        ],
        KEYS,
    )


async def findings(store, sent):
    """Return the stored proof of ``sent``, and what verifying its batch finds."""
    proof = await store.proof(sent.message_id)
    return proof, verify_stored_batch(proof.batch, KEYS.get(proof.batch.key_id))


async def assert_proved(store, *sent, unstored=()):
    for each in sent:
        proof, found = await findings(store, each)
        assert (proof.scheme, proof.key_id, proof.position) == ("meter", "key-1", each.entry.position)
        assert (proof.batch.id, proof.batch.mac) == (each.entry.batch.id, each.entry.batch.mac)
        assert "message_signature" not in proof.message
        assert (set(found.problems), found.missing, found.damage) == ({None}, [], None)
        assert (found.digests, found.signature_matches) == (each.entry.batch.digests, True)
        assert [(entry.position, entry.reason) for entry in proof.batch.unstored] == list(unstored)


@pytest_twisted.ensureDeferred
async def test_every_message_of_a_batch_is_proved_by_all_of_it(store):
    sent = batch_of(1, 1.5, 10**25, -0.0)
    assert await store.write(sent) == WriteResult(4, 0)
    await assert_proved(store, *sent)


@pytest_twisted.ensureDeferred
async def test_batch_that_is_written_in_parts_in_any_order_is_proved_once_it_is_complete(store):
    sent = batch_of(1, 2, 3, 4)
    await store.write([sent[2], sent[0]])
    _, found = await findings(store, sent[2])
    assert (found.missing, found.digests) == ([1, 3], None)

    await store.write([sent[3], sent[1]])
    await assert_proved(store, *sent)


@pytest_twisted.ensureDeferred
async def test_batch_that_is_delivered_again_changes_nothing(store):
    sent = batch_of(1, 2, 3)
    await store.write(sent)
    assert await store.write(sent) == WriteResult(0, 3)
    assert await store.write([*sent, *sent]) == WriteResult(0, 6)
    await assert_proved(store, *sent)


@pytest_twisted.ensureDeferred
async def test_duplicates_in_another_batch_keep_the_first_proof_and_leave_the_others_provable(store):
    first, again = batch_of(1, 2), batch_of(1, 2, 3)
    await store.write(first)
    assert await store.write(again) == WriteResult(1, 2)
    await assert_proved(store, *first)
    await assert_proved(store, again[2], unstored=[(0, "duplicate"), (1, "duplicate")])
    # Once more: it is known already.
    assert await store.write(again) == WriteResult(0, 3)
    await assert_proved(store, again[2], unstored=[(0, "duplicate"), (1, "duplicate")])


@pytest_twisted.ensureDeferred
async def test_batch_of_duplicates_only_changes_nothing(store):
    first, again = batch_of(1, 2), batch_of(1, 2)
    await store.write(first)
    assert await store.write(again) == WriteResult(0, 2)
    await assert_proved(store, *first)


@pytest_twisted.ensureDeferred
async def test_refused_messages_leave_the_others_of_their_batch_provable(store):
    await store.write(batch_of(7))  # the id of the first with another volume
    sent = batch_of(1, 2, 3, 4)
    result = await store.write([sent[0], sent[1], sent[3]], [sent[2].entry])
    assert (result.stored, [each.kind for each in result.refused]) == (2, ["conflict"])
    await assert_proved(store, sent[1], sent[3], unstored=[(0, "refused"), (2, "refused")])


def with_positions(message, positions):
    entry = msgspec.structs.replace(message.entry, batch=replace(message.entry.batch, positions=positions))
    return msgspec.structs.replace(message, entry=entry)


@pytest.mark.parametrize("positions", [(1,), None])
@pytest_twisted.ensureDeferred
async def test_refused_message_that_is_sent_again_and_stored_is_not_stated_to_be_refused(store, positions):
    sent = batch_of(1, 2)
    await store.write(sent[:1], [sent[1].entry])
    await store.write([with_positions(sent[1], positions)])
    await assert_proved(store, *sent)


@pytest_twisted.ensureDeferred
async def test_message_that_is_stored_in_its_place_is_not_stated_to_be_refused(store):
    sent = batch_of(1, 2)
    await store.write(sent, [sent[1].entry])
    await store.write([], [sent[0].entry, with_positions(sent[1], (1,)).entry])
    await assert_proved(store, *sent)


@pytest_twisted.ensureDeferred
async def test_same_batch_with_and_without_positions_in_one_transaction_is_not_stated_to_be_a_duplicate(store):
    sent = batch_of(1, 2)
    again = [with_positions(each, (0, 1)) for each in sent]
    assert await store.write([*sent, *again]) == WriteResult(2, 2)
    assert await store.write([*again, *sent]) == WriteResult(0, 4)
    await assert_proved(store, *sent)


@pytest_twisted.ensureDeferred
async def test_batches_are_told_apart_by_their_signature_not_only_by_their_id(store):
    one, other = batch_of(1, 2), batch_of(3, 4, first_id=10)
    same_id = [
        replace(each, entry=replace(each.entry, batch=replace(each.entry.batch, id=one[0].entry.batch.id)))
        for each in other
    ]
    assert await store.write([*one, *same_id]) == WriteResult(4, 0)
    await assert_proved(store, *one)


@pytest.mark.parametrize("timestamp", ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "1969-12-31 23:59:59Z"])
@pytest_twisted.ensureDeferred
async def test_extreme_timestamps_are_stored(store, timestamp):
    at = parse_timestamp(timestamp, "timestamp")
    sent = replace(message(at=at), received={**message(at=at).fields, "timestamp": timestamp})

    await store.write([sent])

    [sample] = await store.samples(SampleFilter(start=at, end=at, through_end=True), 10)
    assert sample.timestamp == at
    assert (await stored_message(store, sent.message_id))["timestamp"] == timestamp


@pytest_twisted.ensureDeferred
async def test_unknown_message_id_finds_nothing(store):
    assert await stored_message(store, "cb2e9b5a-9f0a-4a0e-8f5a-9c5d5c5f0d11") is None
    assert await stored_message(store, "no uuid at all") is None
    assert await store.sample("no uuid at all", ALL) is None


@pytest_twisted.ensureDeferred
async def test_message_id_may_be_any_text(store):
    for message_id in ("snowflake ❄ 7", "CB2E9B5A-9F0A-4A0E-8F5A-9C5D5C5F0D11", "x" * 512):
        await store.write([message(message_id=message_id, volume=3)])

        found = await store.sample(message_id, ALL)
        assert (found.message_id, found.volume) == (message_id, 3)
        assert (await stored_message(store, message_id))["message_id"] == message_id


@pytest_twisted.ensureDeferred
async def test_sample_is_found_by_id_if_it_matches_the_filter(store):
    sent = message(project_id="p1")
    await store.write([sent, message()])

    assert (await store.sample(sent.message_id, ALL)).message_id == sent.message_id
    assert (await store.sample(sent.message_id, equals(project_id="p1"))).message_id == sent.message_id
    assert await store.sample(sent.message_id, equals(project_id="p2")) is None


# --- samples -------------------------------------------------------------------------------------------------------


async def volumes(store, filter, limit=10):
    return [sample.volume for sample in await store.samples(filter, limit)]


@pytest_twisted.ensureDeferred
async def test_samples_are_the_newest_within_the_limit(store):
    await store.write([message(volume=n, at=n * 3600 * 24) for n in (3, 1, 4, 2, 0)])

    assert await volumes(store, ALL) == [4, 3, 2, 1, 0]
    assert await volumes(store, ALL, 2) == [4, 3]
    assert await volumes(store, equals(resource_id="r1"), 2) == [4, 3]


@pytest.mark.parametrize(("project_id", "resources"), [("few", 3), ("many", 40), ("nobody's", 0)])
@pytest_twisted.ensureDeferred
async def test_pages_are_the_same_for_few_and_for_many_series(store, project_id, resources):
    await store.write(
        [
            message(volume=n, at=n % 7, resource_id=f"{owner}-{n % count}", project_id=owner, metadata={"n": n % 2})
            for owner, count in (("few", 3), ("many", 40))
            for n in range(120)
        ]
    )
    owned = SampleFilter(equals={"project_id": project_id})
    either = Or((Comparison("resource_id", "=", f"{project_id}-1"), Comparison("volume", "<", 20)))
    for filter, expected in (
        (owned, range(120)),
        (replaced(owned, start=after(1), end=after(6)), [n for n in range(120) if 1 <= n % 7 < 6]),
        (replaced(owned, metadata=(MetadataMatch("n", 1),)), range(1, 120, 2)),
        (replaced(owned, expression=either), [n for n in range(120) if n < 20 or n % max(resources, 1) == 1]),
    ):
        everything = await store.samples(filter, 1000)
        assert sorted(sample.volume for sample in everything) == (list(expected) if resources else [])
        order = [(sample.timestamp, sample.message_id) for sample in everything]
        assert order == sorted(order, reverse=True)
        paged, marker = [], None
        while page := await store.samples(filter, 7, (), marker):
            paged += page
            marker = Marker(page[-1].timestamp, page[-1].message_id)
        assert paged == everything


@pytest_twisted.ensureDeferred
async def test_samples_are_selected_by_meter_resource_and_owner(store):
    await store.write(
        [
            message("cpu", 1, resource_id="a", project_id="p", user_id="u", source="s"),
            message("cpu", 2, resource_id="b", project_id="q", user_id="v", source="t"),
            message("ram", 3, resource_id="b", project_id="q", user_id="v", source="t"),
        ]
    )

    for filter, expected in (
        (equals(meter="ram"), {3}),
        (equals(meter="cpu"), {1, 2}),
        (equals(resource_id="b"), {2, 3}),
        (equals(resource_id="b", meter="cpu"), {2}),
        (equals(project_id="p"), {1}),
        (equals(user_id="v"), {2, 3}),
        (equals(source="s"), {1}),
        (equals(source=None), set()),
        (equals(resource_id=None), set()),
        (equals(meter="disk"), set()),
    ):
        assert set(await volumes(store, filter)) == expected


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"start": after(1)}, [3, 2, 1]),
        ({"start": after(1), "after_start": True}, [3, 2]),
        ({"end": after(2)}, [1, 0]),
        ({"end": after(2), "through_end": True}, [2, 1, 0]),
        ({"start": after(1), "end": after(3)}, [2, 1]),
        ({"start": after(3), "end": after(1)}, []),
    ],
)
@pytest_twisted.ensureDeferred
async def test_samples_are_selected_by_time(store, bounds, expected):
    await store.write([message(volume=n, at=n) for n in range(4)])

    assert await volumes(store, SampleFilter(**bounds)) == expected


METADATA = {
    "size": 0,
    "text": "0",
    "off": False,
    "half": 0.5,
    "none": None,
    "flavor": {"name": "m1.tiny", "extra": {"a.b": "dotted"}},
    "tags": ["x", {"k": "y"}],
    "os.type": "linux",
    "when": "2026-11-18T12:00:00",
}


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("size", 0, True),
        ("size", "0", False),
        ("size", False, False),
        ("text", "0", True),
        ("text", 0, False),
        ("off", False, True),
        ("off", 0, False),
        ("off", True, False),
        ("half", 0.5, True),
        ("none", "None", False),
        ("flavor.name", "m1.tiny", True),
        ("flavor.name", "m1.huge", False),
        ("flavor.extra.a.b", "dotted", True),
        ("tags[0]", "x", True),
        ("tags[1]", "x", False),
        ("tags[1].k", "y", True),
        ("tags", "x", False),
        ("os.type", "linux", True),
        ("missing.altogether", 1, False),
        ("when", NOON, True),
        ("when", after(1), False),
        ("text", "'; DROP TABLE sample; --%s", False),
        ("'; DROP TABLE sample; --%s", "0", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_metadata_match_compares_types_too(store, key, value, found):
    await store.write([message(metadata=METADATA), message(metadata={})])

    assert len(await store.samples(SampleFilter(metadata=(MetadataMatch(key, value),)), 10)) == found


# --- meters and resources ------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_meters_are_sorted_and_described_by_their_newest_sample(store):
    await store.write(
        [
            message("ram", unit="MiB", resource_id="b"),
            message("cpu", resource_id="b", project_id="old", at=0),
            message("cpu", resource_id="b", project_id="new", at=2),
            message("cpu", resource_id="b", project_id="old", at=1),
            message("cpu", resource_id="a", user_id=None),
        ]
    )

    meters = await store.meters(ALL, 10, False)

    assert [(meter.name, meter.resource_id, meter.project_id, meter.user_id) for meter in meters] == [
        ("cpu", "a", "p1", None),
        ("cpu", "b", "new", "u1"),
        ("ram", "b", "p1", "u1"),
    ]
    assert [meter.unit for meter in meters] == ["ns", "ns", "MiB"]
    assert len(await store.meters(ALL, 2, False)) == 2
    assert [meter.resource_id for meter in await store.meters(equals(project_id="old"), 10, False)] == ["b"]


@pytest_twisted.ensureDeferred
async def test_meter_of_a_resource_is_listed_once_per_type_and_unit(store):
    await store.write(
        [
            message("ram", type="gauge", unit="MB", resource_id="a", at=0, project_id="old"),
            message("ram", type="gauge", unit="MB", resource_id="a", at=1, project_id="new"),
            message("ram", type="gauge", unit="MiB", resource_id="a", at=2, user_id=None),
            message("ram", type="delta", unit="MiB", resource_id="a", at=3),
            message("ram", type="gauge", unit="MB", resource_id="b", at=4),
        ]
    )

    meters = await store.meters(ALL, 10, False)

    assert [(meter.resource_id, meter.type, meter.unit) for meter in meters] == [
        ("a", "delta", "MiB"),
        ("a", "gauge", "MB"),
        ("a", "gauge", "MiB"),
        ("b", "gauge", "MB"),
    ]
    assert [(meter.project_id, meter.user_id) for meter in meters[1:3]] == [("new", "u1"), ("p1", None)]
    assert len(await store.meters(ALL, 2, False)) == 2
    assert [resource.meters for resource in await store.resources(ALL, 10)] == [("ram", "ram", "ram"), ("ram",)]
    early = SampleFilter(end=after(2.5))
    assert [resource.meters for resource in await store.resources(early, 10)] == [("ram", "ram")]


@pytest_twisted.ensureDeferred
async def test_unique_meters_have_no_resource_owner_or_source(store):
    await store.write([message("cpu", resource_id="a"), message("cpu", resource_id="b"), message("ram", unit="MiB")])

    meters = await store.meters(ALL, 10, True)

    assert [(meter.name, meter.unit) for meter in meters] == [("cpu", "ns"), ("ram", "MiB")]
    assert {(meter.resource_id, meter.user_id, meter.project_id, meter.source) for meter in meters} == {(None,) * 4}


@pytest_twisted.ensureDeferred
async def test_resources_are_sorted_and_described_by_their_newest_sample(store):
    await store.write(
        [
            message("ram", resource_id="b", at=7, project_id="new", metadata={"n": 7}),
            message("cpu", resource_id="b", at=1, project_id="old", metadata={"n": 1}),
            message("cpu", resource_id="b", at=5, project_id="old", metadata={"n": 5}),
            message("cpu", resource_id="a", project_id=None),
        ]
    )

    a, b = await store.resources(ALL, 10)

    assert (a.resource_id, a.project_id, a.meters) == ("a", None, ("cpu",))
    assert (b.resource_id, b.project_id, b.meters) == ("b", "new", ("cpu", "ram"))
    assert (b.first_sample, b.last_sample, b.metadata) == (after(1), after(7), {"n": 7})
    assert len(await store.resources(ALL, 1)) == 1


@pytest_twisted.ensureDeferred
async def test_resource_is_described_by_samples_in_the_range_only(store):
    await store.write([message(resource_id="r", at=n, metadata={"n": n}) for n in range(5)])
    await store.write([message(resource_id="elsewhen", at=9)])

    [resource] = await store.resources(SampleFilter(start=after(1), end=after(4)), 10)

    assert (resource.first_sample, resource.last_sample, resource.metadata) == (after(1), after(3), {"n": 3})


# --- statistics ----------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_statistics_without_samples_have_no_rows(store):
    assert list(await store.statistics(StatisticsQuery(filter=ALL))) == []


@pytest_twisted.ensureDeferred
async def test_statistics_have_one_row_per_unit(store):
    await store.write([message(volume=n, at=n) for n in (1, 2, 6)])
    await store.write([message(volume=5, unit="s", at=9)])

    nanoseconds, seconds = await store.statistics(StatisticsQuery(filter=equals(meter="cpu")))

    assert (nanoseconds.unit, nanoseconds.values) == ("ns", {"max": 6, "min": 1, "avg": 3, "sum": 9, "count": 3})
    assert (nanoseconds.period, nanoseconds.group) == (0, {})
    assert (nanoseconds.period_start, nanoseconds.period_end) == (after(1), after(6))
    assert (nanoseconds.first, nanoseconds.last) == (after(1), after(6))
    assert (seconds.unit, seconds.values["sum"]) == ("s", 5)


@pytest_twisted.ensureDeferred
async def test_windows_start_with_the_range_and_empty_windows_are_omitted(store):
    await store.write([message(volume=n, at=n) for n in (5, 14, 15, 40)])

    rows = await store.statistics(StatisticsQuery(filter=SampleFilter(start=after(-5), end=after(100)), period=10))

    assert [(row.period_start, row.period_end, row.values["sum"]) for row in rows] == [
        (after(5), after(15), 19),
        (after(15), after(25), 15),
        (after(35), after(45), 40),
    ]
    assert [(row.first, row.last) for row in rows] == [(after(5), after(14)), (after(15),) * 2, (after(40),) * 2]
    assert {row.period for row in rows} == {10}


@pytest_twisted.ensureDeferred
async def test_windows_of_a_range_without_start_begin_at_the_first_sample(store):
    await store.write([message(volume=n, at=n) for n in (3.5, 13.4, 13.5)])

    rows = await store.statistics(StatisticsQuery(filter=ALL, period=10))

    assert [(row.period_start, row.values["count"]) for row in rows] == [(after(3.5), 2), (after(13.5), 1)]


@pytest_twisted.ensureDeferred
async def test_statistics_are_the_oldest_rows_within_the_limit(store):
    await store.write([message(volume=n, at=n) for n in (5, 15, 25)])

    rows = await store.statistics(StatisticsQuery(filter=ALL, period=10, limit=2))

    assert [row.values["sum"] for row in rows] == [5, 15]


@pytest_twisted.ensureDeferred
async def test_statistics_are_grouped_by_owner_and_by_metadata(store):
    await store.write(
        [
            message(volume=1, resource_id="b", project_id="q", metadata={"flavor": {"name": "small"}}),
            message(volume=2, resource_id="a", project_id="p", metadata={"flavor": {"name": "large"}}),
            message(volume=4, resource_id="a", project_id=None, metadata={"flavor": {"name": "large"}}),
            message(volume=8, resource_id="a", project_id="p", metadata={}),
        ]
    )

    async def sums(*groupby):
        query = StatisticsQuery(filter=ALL, groupby=groupby, aggregates=(Aggregate("sum"),))
        return {tuple(row.group[name] for name in groupby): row.values["sum"] for row in await store.statistics(query)}

    assert await sums("resource_id") == {("a",): 14, ("b",): 1}
    assert await sums("project_id") == {("p",): 10, ("q",): 1, (None,): 4}
    assert await sums("metadata.flavor.name") == {("small",): 1, ("large",): 6, (None,): 8}
    assert await sums("resource_id", "metadata.flavor.name") == {("b", "small"): 1, ("a", "large"): 6, ("a", None): 8}
    assert await sums("source") == {("test",): 15}


@pytest_twisted.ensureDeferred
async def test_groups_of_a_window_are_sorted(store):
    await store.write([message(at=at, resource_id=resource_id) for at in (0, 60) for resource_id in ("ä", "b", "a")])

    rows = await store.statistics(StatisticsQuery(filter=ALL, period=60, groupby=("resource_id",)))

    assert [(row.period_start, row.group["resource_id"]) for row in rows] == [
        (start, resource_id) for start in (after(0), after(60)) for resource_id in ("a", "b", "ä")
    ]


@pytest_twisted.ensureDeferred
async def test_statistics_have_the_requested_aggregates(store):
    await store.write([message(volume=n, resource_id=f"r{n}", user_id=None, at=n) for n in (2, 4, 4, 4, 5, 5, 7, 9)])
    aggregates = (
        Aggregate("stddev"),
        Aggregate("cardinality", "resource_id"),
        Aggregate("cardinality", "user_id"),
        Aggregate("max"),
    )

    [row] = await store.statistics(StatisticsQuery(filter=ALL, aggregates=aggregates))

    assert row.values == {
        "stddev": pytest.approx(2.0),
        "cardinality/resource_id": 5,
        "cardinality/user_id": 0,
        "max": 9,
    }


@pytest_twisted.ensureDeferred
async def test_statistics_have_the_first_and_the_last_volume_of_each_window_and_the_longest_polling_interval(store):
    every_minute, hourly = {"_meter": {"interval": 60}}, {"_meter": {"interval": 3600}}
    await store.write(
        [
            message(volume=5, at=1, metadata=every_minute),
            message(volume=3, at=1, resource_id="r2", metadata=every_minute),
            message(volume=7, at=9, metadata=hourly),
            message(volume=8, at=9, resource_id="r2", metadata=hourly),
            message(volume=-2, at=12, resource_id="r2"),
            message(volume=-3, at=13, resource_id="r2"),
        ]
    )
    ends = Aggregate("first"), Aggregate("last"), Aggregate("polling_interval")

    assert await compute_statistics(store, *ends, period=10) == [(3, 8, 3600), (-2, -3, 0)]
    assert await compute_statistics(store, *ends, groupby=("resource_id",)) == [(5, 7, 3600), (3, -3, 3600)]
    assert await compute_statistics(store, *ends, INCREASE) == [(3, -3, 3600, 2 + 5 - 2 - 3)]


@pytest_twisted.ensureDeferred
async def test_statistics_aggregate_matching_samples_only(store):
    await store.write([message(volume=n, at=n, metadata={"n": n}) for n in range(3)])

    [row] = await store.statistics(
        StatisticsQuery(filter=SampleFilter(metadata=(MetadataMatch("n", 2),), end=after(60)))
    )

    assert row.values["sum"] == 2


@pytest_twisted.ensureDeferred
async def test_statistics_span_years(store):
    await store.write([message(volume=1, at=datetime(year, 6, 1, tzinfo=UTC)) for year in (1999, 2026, 2199)])

    [row] = await store.statistics(StatisticsQuery(filter=ALL))

    assert row.values["count"] == 3


@pytest_twisted.ensureDeferred
async def test_too_long_period_is_refused(store):
    await store.write([message()])

    with pytest.raises(RequestError):
        await store.statistics(StatisticsQuery(filter=ALL, period=10**15))


# --- expressions, orders, pages ------------------------------------------------------------------------------------


RICH = {"n": 3, "text": "3", "on": True, "none": None, "os.type": "linux", "tags": ["x"], "when": "2026-11-18T12:00:00"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (Comparison("meter", "=", "cpu"), {1, 2}),
        (Comparison("meter", "!=", "cpu"), {3}),
        (Comparison("resource_id", "<", "b"), {1}),
        (Comparison("resource_id", ">=", "b"), {2, 3}),
        (Comparison("resource_id", "~", "^[ab]$"), {1, 2}),
        (Comparison("resource_id", "~", "ä"), {3}),
        (Comparison("user_id", "=", "u1"), {1, 2}),
        (Comparison("user_id", "!=", "u1"), {3}),
        (Comparison("user_id", "!=", "nobody"), {1, 2, 3}),
        (Comparison("user_id", "~", ""), {1, 2}),
        (Comparison("project_id", ">", "p"), {1, 2, 3}),
        (Comparison("source", "=", "test"), {1, 2, 3}),
        (Comparison("type", "=", "gauge"), {1, 2}),
        (Comparison("unit", "=", "GB"), {3}),
        (Comparison("volume", "=", 2), {2}),
        (Comparison("volume", ">", 1.5), {2, 3}),
        (Comparison("volume", "!=", 2.0), {1, 3}),
        (Comparison("timestamp", "=", after(2)), {2}),
        (Comparison("timestamp", "<=", after(2)), {1, 2}),
        (Comparison("timestamp", "!=", after(2)), {1, 3}),
        (Comparison("recorded_at", "<", NOON), set()),
        (Comparison("message_id", "=", "cb2e9b5a-9f0a-4a0e-8f5a-9c5d5c5f0d11"), {1}),
        (Comparison("message_id", "!=", "cb2e9b5a-9f0a-4a0e-8f5a-9c5d5c5f0d11"), {2, 3}),
        (Comparison("message_id", "=", "unknown to all"), set()),
        (Comparison("metadata.n", "=", 3), {1}),
        (Comparison("metadata.n", "=", 3.0), {1}),
        (Comparison("metadata.n", "=", "3"), set()),
        (Comparison("metadata.n", "!=", 3), {2, 3}),
        (Comparison("metadata.n", "<", 4), {1, 2}),
        (Comparison("metadata.n", ">", "0"), set()),
        (Comparison("metadata.text", ">", "2"), {1}),
        (Comparison("metadata.text", "~", "[0-9]"), {1}),
        (Comparison("metadata.n", "~", "[0-9]"), set()),
        (Comparison("metadata.on", "=", True), {1}),
        (Comparison("metadata.on", "=", 1), set()),
        (Comparison("metadata.none", "!=", "None"), {1, 2, 3}),
        (Comparison("metadata.os.type", "=", "linux"), {1}),
        (Comparison("metadata.tags[0]", "=", "x"), {1}),
        (Comparison("metadata.when", "=", NOON), {1}),
        (Comparison("metadata.'; DROP TABLE sample; --%s", "=", "x"), set()),
        (In("resource_id", ("a", "b", "c")), {1, 2}),
        (In("volume", (1, 3.0)), {1, 3}),
        (In("metadata.n", (1, 3)), {1, 2}),
        (In("resource_id", ()), set()),
        (Not(In("resource_id", ("a", "b"))), {3}),
        (Not(Comparison("user_id", "=", "u1")), {3}),
        (Not(Comparison("user_id", "<", "z")), {3}),
        (And((Comparison("meter", "=", "cpu"), Comparison("volume", ">", 1))), {2}),
        (Or((Comparison("unit", "=", "GB"), Comparison("volume", "<", 2))), {1, 3}),
        (Not(Or((Comparison("unit", "=", "GB"), Comparison("volume", "<", 2)))), {2}),
        (And(()), {1, 2, 3}),
        (Or(()), set()),
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_samples_are_selected_by_an_expression(store, expression, expected):
    await store.write(
        [
            message(volume=1, at=1, resource_id="a", metadata=RICH, message_id="cb2e9b5a-9f0a-4a0e-8f5a-9c5d5c5f0d11"),
            message(volume=2, at=2, resource_id="b", metadata={"n": 1}),
            message("disk", 3, at=3, resource_id="ä", type="delta", unit="GB", user_id=None),
        ]
    )

    assert set(await volumes(store, SampleFilter(expression=expression))) == expected


@pytest.mark.parametrize(
    "expression", [Comparison("wings", "=", 1), Comparison("metadata.", "=", 1), Comparison("resource_id", "~", "(")]
)
@pytest_twisted.ensureDeferred
async def test_invalid_expression_is_refused(store, expression):
    await store.write([message()])

    with pytest.raises(RequestError):
        await store.samples(SampleFilter(expression=expression), 10)


@pytest_twisted.ensureDeferred
async def test_deeply_nested_expression_is_evaluated(store):
    await store.write([message(volume=1), message(volume=2)])
    expression = Comparison("volume", "=", 1)
    for _ in range(40):
        expression = Not(expression)

    assert await volumes(store, SampleFilter(expression=expression)) == [1]


@pytest_twisted.ensureDeferred
async def test_expression_applies_to_every_kind_of_query(store):
    await store.write([message(volume=n, at=n, resource_id=f"r{n}") for n in range(4)])
    some = SampleFilter(expression=Comparison("volume", ">=", 2))

    assert [meter.resource_id for meter in await store.meters(some, 10, False)] == ["r2", "r3"]
    assert len(await store.meters(some, 10, True)) == 1
    assert [resource.resource_id for resource in await store.resources(some, 10)] == ["r2", "r3"]
    [row] = await store.statistics(StatisticsQuery(filter=some))
    assert row.values["sum"] == 5


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((Order("timestamp"),), [1, 2, 3, 4]),
        ((Order("volume", descending=True),), [4, 3, 2, 1]),
        ((Order("resource_id"), Order("volume", descending=True)), [3, 1, 4, 2]),
        ((Order("user_id"), Order("timestamp")), [2, 3, 4, 1]),
        ((Order("user_id", descending=True), Order("timestamp", descending=True)), [1, 4, 3, 2]),
        ((Order("meter"),), [4, 3, 2, 1]),
        ((Order("type"), Order("unit"), Order("source"), Order("project_id"), Order("recorded_at")), [4, 3, 2, 1]),
        ((Order("metadata.n"),), None),
        ((Order("wings"),), None),
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_samples_are_in_the_requested_order_and_then_newest_first(store, order, expected):
    await store.write(
        [
            message(volume=1, at=1, resource_id="a", user_id=None),
            message(volume=2, at=2, resource_id="b", user_id="u"),
            message(volume=3, at=3, resource_id="a", user_id="u"),
            message(volume=4, at=4, resource_id="b", user_id="v"),
        ]
    )

    if expected is None:
        with pytest.raises(RequestError):
            await store.samples(ALL, 10, order)
    else:
        assert [sample.volume for sample in await store.samples(ALL, 10, order)] == expected
        assert [sample.volume for sample in await store.samples(ALL, 2, order)] == expected[:2]


@pytest_twisted.ensureDeferred
async def test_pages_continue_after_a_marker_while_samples_are_added(store):
    await store.write([message(volume=n, at=n // 3) for n in range(10)])
    seen, after_that = [], None
    while True:
        page = await store.samples(ALL, 4, (), after_that)
        await store.write([message(volume=99, at=100)])
        if not page:
            break
        seen += page
        after_that = Marker(page[-1].timestamp, page[-1].message_id)

    assert sorted(sample.volume for sample in seen) == list(range(10))
    assert [sample.timestamp for sample in seen] == sorted((sample.timestamp for sample in seen), reverse=True)
    with pytest.raises(RequestError):
        await store.samples(ALL, 4, (Order("volume"),), after_that)


@pytest_twisted.ensureDeferred
async def test_query_as_of_a_time_excludes_later_recorded_samples(store):
    await store.write([message(volume=1)])
    [first] = await store.samples(ALL, 10)
    until_then = SampleFilter(as_of=first.recorded_at)
    await later_than(first.recorded_at)
    await store.write([message(volume=2)])

    assert await volumes(store, until_then) == [1]
    [row] = await store.statistics(StatisticsQuery(filter=until_then))
    assert row.values["count"] == 1
    assert sorted(await volumes(store, ALL)) == [1, 2]
    assert await volumes(store, SampleFilter(as_of=NOON)) == []


async def later_than(then):
    await until(lambda: datetime.now(UTC) > then)


@pytest_twisted.ensureDeferred
async def test_subscriber_is_called_for_stored_samples_until_it_unsubscribes(store):
    calls = []
    unsubscribe = store.subscribe_to_commits(lambda: calls.append(None))
    sent = message()

    await store.write([sent])
    await until(lambda: calls)
    unsubscribe()
    await store.write([message()])

    assert len(calls) == 1


# --- aggregates that understand meters -----------------------------------------------------------------------------


async def compute_statistics(store, *aggregates, **query):
    """Return the rows of statistics, each as its values in the order of the aggregates."""
    rows = await store.statistics(StatisticsQuery(filter=ALL, aggregates=aggregates, **query))
    return [tuple(row.values[aggregate.label] for aggregate in aggregates) for row in rows]


INCREASE, RATE, INTEGRAL = Aggregate("increase"), Aggregate("rate"), Aggregate("integral")


@pytest_twisted.ensureDeferred
async def test_increase_and_rate_handle_a_counter_reset_without_extrapolation(store):
    await store.write([message(volume=n, at=at) for at, n in ((0, 100), (10, 160), (20, 5), (30, 25))])

    assert await compute_statistics(store, INCREASE, RATE) == [(60 + 5 + 20, pytest.approx(85 / 30))]


@pytest_twisted.ensureDeferred
async def test_increase_and_rate_are_summed_over_resources(store):
    await store.write([message(volume=n, at=n, resource_id="a") for n in (0, 10)])
    await store.write([message(volume=5 * n, at=n, resource_id="b") for n in (3, 7)])
    await store.write([message(volume=1000, at=4, resource_id="once")])

    assert await compute_statistics(store, INCREASE, RATE) == [(10 + 20, pytest.approx(1 + 5))]
    assert await compute_statistics(store, INCREASE, RATE, groupby=("resource_id",)) == [(10, 1), (20, 5), (0, 0)]


@pytest_twisted.ensureDeferred
async def test_increase_between_two_windows_belongs_to_the_later_window(store):
    await store.write([message(volume=n, at=n) for n in (0, 8, 12, 19, 31)])

    rows = await compute_statistics(store, INCREASE, RATE, period=10)

    assert rows == [(8, 1), (4 + 7, 1), (12, 1)]
    assert await compute_statistics(store, INCREASE) == [(31,)]


@pytest_twisted.ensureDeferred
async def test_integral_carries_each_volume_forward_to_the_next_sample(store):
    hour = 3600
    await store.write([message(volume=n, at=at * hour) for at, n in ((0, 10), (1, 20), (3, 7))])
    await store.write([message(volume=2, at=at * hour, resource_id="b") for at in (0, 0.5)])

    assert await compute_statistics(store, INTEGRAL) == [(pytest.approx(10 + 40 + 1),)]
    assert await compute_statistics(store, INTEGRAL, period=hour) == [
        (pytest.approx(10 + 1),),
        (pytest.approx(40),),
        (pytest.approx(0),),
    ]


@pytest_twisted.ensureDeferred
async def test_step_between_two_groups_is_counted_once(store):
    for at, n, size in ((0, 0, "small"), (3600, 10, "small"), (7200, 30, "large"), (10800, 60, "large")):
        await store.write([message(volume=n, at=at, metadata={"size": size})])

    rows = await compute_statistics(store, INCREASE, INTEGRAL, groupby=("metadata.size",))

    assert sorted(rows) == [(10, pytest.approx(10)), (50, pytest.approx(30))]
    assert await compute_statistics(store, INCREASE, INTEGRAL) == [(60, pytest.approx(40))]


@pytest.mark.parametrize(("param", "expected"), [("0", 1), ("50", 2.5), ("100", 4), ("95", 3.85), ("12.5", 1.375)])
@pytest_twisted.ensureDeferred
async def test_percentile_interpolates_between_neighbours(store, param, expected):
    await store.write([message(volume=n, at=n) for n in (3, 1, 4, 2)])

    assert await compute_statistics(store, Aggregate("percentile", param)) == [(pytest.approx(expected),)]


@pytest.mark.parametrize(
    "aggregate", [Aggregate("percentile"), Aggregate("percentile", "101"), Aggregate("percentile", "x")]
)
@pytest_twisted.ensureDeferred
async def test_invalid_percentile_is_refused(store, aggregate):
    await store.write([message()])

    with pytest.raises(RequestError):
        await compute_statistics(store, aggregate)


COUNTERS = {
    case["name"]: case for case in json.loads((Path(__file__).parents[1] / "data/cases/counters.json").read_text())
}


def counted(case, metadata_of):
    """Return the samples of a case: the counter at each poll, with the metadata that ``metadata_of`` returns for the poll."""
    return [
        message(
            volume=poll.get("value", sum(poll[disk] for disk in ("vda", "vdb") if disk in poll)),
            at=poll["minute"] * 60,
            type="cumulative",
            metadata=metadata_of(poll),
        )
        for poll in case["polls"]
    ]


def by_host(poll):
    return {"instance_host": poll["host"], "host": "a digest"}


def declared(poll):
    return {"_meter": {"run": f"{poll['host']}/1", "interval": 300}}


def disks(poll):
    return {"_meter": {"run": "hv1/1/" + "+".join(sorted({"vda", "vdb"} & {*poll})), "interval": 300}}


@pytest_twisted.ensureDeferred
async def test_live_migration_keeps_the_increase_with_or_without_a_first_poll_on_the_new_host(store):
    sent = counted(COUNTERS["live migration"], by_host)
    resumed = [each for each in sent if each.metadata["instance_host"] == "hv1" or each.volume]
    assert len(resumed) < len(sent)

    await store.write(resumed)
    assert await compute_statistics(store, INCREASE) == [(5,)]
    await store.write(sent)
    assert await compute_statistics(store, INCREASE) == [(5,)]


@pytest.mark.parametrize(("case", "metadata_of"), [("live migration", declared), ("disk detached", disks)])
@pytest_twisted.ensureDeferred
async def test_steps_stay_within_declared_runs(store, case, metadata_of):
    await store.write(counted(COUNTERS[case], metadata_of))

    assert await compute_statistics(store, INCREASE) == [(COUNTERS[case]["increase"],)]


@pytest_twisted.ensureDeferred
async def test_counter_without_a_run_is_reset_when_it_drops(store):
    await store.write(counted(COUNTERS["plain restart"], lambda poll: {}))

    assert await compute_statistics(store, INCREASE, RATE) == [(8, pytest.approx(8 / 600))]


@pytest_twisted.ensureDeferred
async def test_integral_carries_a_volume_over_three_intervals_between_runs(store):
    hour = 3600
    for at, volume, run in ((0, 512, "first"), (1, 512, "first"), (9, 512, "second"), (10, 512, "second")):
        await store.write(
            [message(volume=volume, at=at * hour, metadata={"_meter": {"run": run, "interval": 300, "x": at}})]
        )

    assert await compute_statistics(store, INTEGRAL) == [(pytest.approx(512 * (1 + 0.25 + 1)),)]


@pytest_twisted.ensureDeferred
async def test_samples_of_other_runs_in_between_do_not_end_a_run(store):
    hour = 3600
    polled = {"_meter": {"run": "exists", "interval": 300}}
    for at, metadata in ((0, polled), (30, {}), (31, {"_meter": {"run": "other"}}), (50, polled), (60, {})):
        await store.write([message(volume=2, at=at * hour, metadata=metadata)])

    assert await compute_statistics(store, INTEGRAL) == [(pytest.approx(2 * (50 + 0.25)),)]
    until = StatisticsQuery(filter=SampleFilter(end=after(50 * hour)), aggregates=(INTEGRAL,))
    [row] = await store.statistics(until)
    assert row.values["integral"] == pytest.approx(2 * (0.25 + 1))


@pytest.mark.parametrize(
    "rubbish",
    [
        *(None, "text", [], {"run": "x" * 10_000, "interval": -1}, {"run": 7, "interval": "300"}),
        *({"run": True, "interval": True}, {"interval": 1e300}, {"interval": 10**400}, {"run": "", "interval": 0}),
    ],
    ids=lambda each: repr(each)[:40],
)
@pytest_twisted.ensureDeferred
async def test_sample_with_an_invalid_run_or_interval_is_stored_without(store, rubbish):
    sent = [message(volume=n, at=at, metadata={"_meter": rubbish}) for at, n in ((0, 7), (7200, 3))]

    assert await store.write(sent) == WriteResult(2, 0)
    assert await compute_statistics(store, INCREASE, INTEGRAL) == [(3, pytest.approx(14))]
    assert await stored_message(store, sent[0].message_id) == sent[0].fields


@pytest_twisted.ensureDeferred
async def test_lists_have_a_resource_with_several_runs_once(store):
    runs = [{"_meter": {"run": f"{n % 5}", "interval": 300 + n % 2}, "n": n} for n in range(20)]
    await store.write([message(name, n, at=n, metadata=runs[n]) for n in range(20) for name in ("cpu", "ram")])

    [resource] = await store.resources(ALL, 10)
    assert (resource.meters, resource.metadata) == (("cpu", "ram"), runs[19])
    assert (resource.first_sample, resource.last_sample) == (NOON, after(19))
    assert [meter.name for meter in await store.meters(ALL, 10, False)] == ["cpu", "ram"]
    [resource] = await store.resources(SampleFilter(start=after(3), end=after(8)), 10)
    assert (resource.first_sample, resource.last_sample, resource.metadata) == (after(3), after(7), runs[7])
    assert await volumes(store, SampleFilter(equals={"meter": "cpu"}), 3) == [19, 18, 17]


@pytest_twisted.ensureDeferred
async def test_run_can_be_selected_like_any_metadata(store):
    await store.write([message(volume=n, at=n, metadata={"_meter": {"run": f"{n}"}}) for n in range(3)])

    assert await volumes(store, SampleFilter(expression=Comparison("metadata._meter.run", "=", "1"))) == [1]
