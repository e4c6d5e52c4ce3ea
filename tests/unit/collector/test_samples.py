"""The sample consumer: what it stores, what it dead-letters, and when it acknowledges a delivery."""

import json

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.defer import fail
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.archive_unavailable import ArchiveUnavailable
from meter.archive_unavailable import PartlyStored
from meter.batch_signature import sign_batch
from meter.bus.dead_letters import DeadLetterPublisher
from meter.ceilometer_signature import signature
from meter.collector.samples import SampleConsumer
from meter.daemon.metrics import CollectingMetrics
from meter.daemon.metrics import exposition
from meter.daemon.metrics import metrics_registry
from meter.interfaces import Delivery
from meter.interfaces import IPublisher
from meter.interfaces import Unavailable
from meter.message import cast
from meter.message import open_envelope
from meter.query import Refusal
from meter.query import SampleFilter
from meter.query import WriteResult
from meter.signing_keys import keyring
from meter.stored_batch import verify_stored_batch
from meter.testing import MemoryStore

KEYS = keyring(["secret"])


def message(number=1, **changes):
    fields = {
        "source": "openstack",
        "counter_name": "cpu",
        "counter_type": "cumulative",
        "counter_unit": "ns",
        "counter_volume": number,
        "user_id": None,
        "project_id": "p",
        "resource_id": "r",
        "timestamp": "2026-11-22T17:00:59",
        "resource_metadata": {},
        "message_id": f"00000000-0000-4000-8000-{number:012}",
    } | changes
    return fields | {"message_signature": signature(fields, b"secret")}


@implementer(IPublisher)
class DeadQueue:
    def __init__(self):
        self.dead_letters = []
        self.away = False

    async def publish(self, publication):
        if self.away:
            raise Unavailable("no broker")
        self.dead_letters.append(publication)

    def reasons(self):
        return [letter.headers["meter-reason"] for letter in self.dead_letters]


class Collector:
    def __init__(self, **limits):
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.dead = DeadQueue()
        self.registry = metrics_registry("test")
        limits = {"batch_samples": 1000, "batch_seconds": 0.05} | limits
        self.intake = SampleConsumer(
            self.store,
            KEYS,
            DeadLetterPublisher(self.dead, self.clock),
            self.clock,
            metrics=CollectingMetrics(self.registry),
            **limits,
        )

    def take(self, body):
        done = Deferred.fromCoroutine(
            self.intake.receive(Delivery(body=body, exchange="metering", routing_key="metering.cpu"))
        )
        done.addErrback(lambda failure: failure.value)
        for _ in range(500):
            if done.called:
                break
            self.clock.advance(0.05)
        return done

    async def volumes(self):
        return sorted(row.volume for row in await self.store.samples(SampleFilter(), 10_000))


@pytest_twisted.ensureDeferred
async def test_verified_samples_are_stored():
    collector = Collector()

    assert await collector.take(cast([message(1), message(2)])) is None

    assert await collector.volumes() == [1, 2]
    assert collector.dead.dead_letters == []


@pytest_twisted.ensureDeferred
async def test_batch_with_one_bad_signature_stores_the_rest():
    batch = [message(number) for number in range(1, 101)]
    batch[49] |= {"counter_volume": 51}  # one digit changed after signing
    collector = Collector()

    await collector.take(cast(batch))

    assert await collector.volumes() == [n for n in range(1, 101) if n != 50]
    [letter] = collector.dead.dead_letters
    assert "the signature does not match" in letter.headers["meter-reason"]
    assert letter.headers["meter-kind"] == "unverified"
    assert letter.headers["meter-meter"] == "cpu"
    [inside] = json.loads(json.loads(letter.body)["oslo.message"])["args"]["data"]
    assert inside["message_id"] == "00000000-0000-4000-8000-000000000050"


@pytest_twisted.ensureDeferred
async def test_conflicting_sample_is_dead_lettered_and_the_first_stays():
    collector = Collector()

    await collector.take(cast([message(1)]))
    await collector.take(cast([message(1, counter_volume=1000), message(2)]))

    assert await collector.volumes() == [1, 2]
    [letter] = collector.dead.dead_letters
    assert letter.headers["meter-kind"] == "conflict"
    assert "volume" in letter.headers["meter-reason"]


@pytest_twisted.ensureDeferred
async def test_sample_that_the_store_refuses_is_dead_lettered_with_the_reason():
    collector = Collector()

    await collector.take(cast([message(1), message(2, resource_metadata={"a": "\0"})]))

    assert await collector.volumes() == [1]
    assert collector.dead.reasons()[0].startswith("the store refuses it:")


@pytest.mark.parametrize("body", [b"", b"\xff", b"{}", b'{"method": "record_metering_data"}', b"[" * 5000])
def test_undecodable_delivery_is_dead_lettered_as_a_whole(body):
    collector = Collector()

    collector.take(body)

    [letter] = collector.dead.dead_letters
    assert letter.headers["meter-kind"] == "undecodable"
    assert letter.headers["meter-exchange"] == "metering"


def test_empty_delivery_returns_at_once():
    assert Collector().take(cast([])).called


@pytest_twisted.ensureDeferred
async def test_delivery_returns_after_the_commit():
    collector, commit = Collector(), Deferred()
    write = collector.store.write

    async def slow(messages, refused_entries):
        await commit
        return await write(messages, refused_entries)

    collector.store.write = slow
    done = collector.take(cast([message(1)]))

    assert not done.called
    commit.callback(None)
    assert done.called


@pytest.mark.parametrize("what", ["store", "dead letters"])
def test_delivery_is_requeued_while_store_or_bus_is_unavailable(what):
    collector = Collector()
    if what == "store":
        collector.store.unavailable = "no database"
    else:
        collector.dead.away = True

    done = collector.take(cast([message(1), message(2) | {"counter_volume": 9}]))

    assert isinstance(done.result, Unavailable)


@pytest_twisted.ensureDeferred
async def test_redelivery_stores_nothing_twice():
    collector = Collector()
    await collector.take(cast([message(1)]))
    await collector.take(cast([message(1), message(2)]))

    assert await collector.volumes() == [1, 2]
    text = exposition(collector.registry).decode()
    assert 'meter_collected_samples_total{outcome="duplicate"} 1.0' in text
    assert 'meter_collected_samples_total{outcome="stored"} 2.0' in text


def test_deliveries_that_arrive_together_share_a_transaction():
    collector, sizes = Collector(batch_samples=3), []
    write = collector.store.write

    async def counted(messages, refused_entries):
        sizes.append(len(messages))
        return await write(messages, refused_entries)

    collector.store.write = counted
    done = [
        Deferred.fromCoroutine(collector.intake.receive(Delivery(body=cast([message(n)]), exchange="", routing_key="")))
        for n in range(1, 6)
    ]
    assert sizes == [3]
    collector.clock.advance(0.05)

    assert sizes == [3, 2]
    assert all(each.called for each in done)


def test_samples_wait_for_the_end_of_a_transaction_while_two_are_in_progress():
    collector, written = Collector(batch_samples=10), []

    def write(messages, refused_entries):
        written.append((len(messages), Deferred()))
        return written[-1][1]

    collector.store.write = write
    done = []
    for number in range(1, 7):
        body = cast([message(number)])
        done.append(Deferred.fromCoroutine(collector.intake.receive(Delivery(body=body, exchange="", routing_key=""))))
        collector.clock.advance(0.05)
    assert [size for size, _ in written] == [1, 1]

    written[0][1].callback(WriteResult(1, 0))
    assert [size for size, _ in written] == [1, 1, 4]
    written[1][1].errback(Unavailable("no store"))
    written[2][1].callback(WriteResult(4, 0))

    assert [each.called for each in done] == [True] * 6
    assert [size for size, _ in written] == [1, 1, 4]
    done[1].addErrback(lambda failure: failure.trap(Unavailable))


def test_only_deliveries_with_a_message_that_needs_an_archive_wait_while_its_server_is_away():
    collector, committed = Collector(batch_samples=10), []
    away = ArchiveUnavailable("cold", "2026-01-05", "2026-03-02", "no route to host")

    def write(messages, refused_entries):
        return fail(PartlyStored(away, WriteResult(3, 0), [1]))

    collector.store.write = write
    collector.intake._after_commit = lambda messages, result: committed.append([*messages])
    bodies = [cast([message(1)]), cast([message(2), message(3)]), cast([message(4)])]
    done = [
        Deferred.fromCoroutine(collector.intake.receive(Delivery(body=body, exchange="", routing_key="")))
        for body in bodies
    ]
    collector.clock.advance(0.05)

    outcomes = []
    for each in done:
        each.addBoth(outcomes.append)
    assert [getattr(each, "type", None) for each in outcomes] == [None, PartlyStored, None]
    assert "the archive server cold, which has the weeks of 2026-01-05 to 2026-03-02" in str(outcomes[1].value)
    assert [len(each) for each in committed] == [3]


def test_delivery_in_a_shared_batch_gets_its_own_refusals():
    collector = Collector()
    bad = message(2, resource_metadata={"a": "\0"})
    for body in (cast([message(1)]), cast([message(3), bad])):
        Deferred.fromCoroutine(collector.intake.receive(Delivery(body=body, exchange="", routing_key="k")))
    collector.clock.advance(0.05)

    [letter] = collector.dead.dead_letters
    assert b"000000000002" in letter.body


def test_large_delivery_yields_to_the_reactor():
    collector, turns = Collector(), []
    collector.clock.callLater(0, turns.append, "another's turn")
    Deferred.fromCoroutine(
        collector.intake.receive(Delivery(body=cast([message(n) for n in range(1, 1001)]), exchange="", routing_key=""))
    )
    assert turns == []
    collector.clock.advance(0)
    assert turns == ["another's turn"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(JSON | st.dictionaries(st.sampled_from(list(message())), JSON).map(lambda d: message() | d), max_size=5)
)
def test_every_entry_is_stored_or_dead_lettered_with_a_reason(entries):
    try:
        body = json.dumps({"method": "record_metering_data", "args": {"data": entries}}).encode()
    except UnicodeEncodeError:
        return
    collector = Collector()

    done = collector.take(body)

    assert done.result is None
    outcomes = exposition(collector.registry).decode()
    assert all(letter.headers["meter-reason"] for letter in collector.dead.dead_letters)
    assert collector.dead.dead_letters or not entries or "meter_collected_samples_total" in outcomes


@pytest_twisted.ensureDeferred
async def test_non_finite_number_makes_one_bad_sample_and_stays_in_its_dead_letter():
    body = cast([message(1), message(2), message(3)]).replace(b'\\"counter_volume\\":2', b'\\"counter_volume\\":NaN')
    collector = Collector()

    await collector.take(body)

    assert await collector.volumes() == [1, 3]
    [letter] = collector.dead.dead_letters
    assert (
        "counter_volume must be a finite number: 0, or from 1e-100 to 1e+30 in magnitude, not nan"
        in letter.headers["meter-reason"]
    )
    assert b'"counter_volume": NaN' in letter.body


@pytest_twisted.ensureDeferred
async def test_unpaired_surrogate_makes_one_bad_sample():
    body = json.dumps({"method": "record_metering_data", "args": {"data": [message(1), message(2)]}})
    collector = Collector()

    await collector.take(body.replace('"p"', '"\\ud800"', 1).encode())

    assert await collector.volumes() == [2]
    [letter] = collector.dead.dead_letters
    assert b'"\\ud800"' in letter.body


@pytest_twisted.ensureDeferred
async def test_transaction_size_is_limited():
    collector, sizes = Collector(batch_samples=100), []
    write = collector.store.write

    async def counted(messages, refused_entries):
        sizes.append(len(messages))
        return await write(messages, refused_entries)

    collector.store.write = counted
    small = Deferred.fromCoroutine(
        collector.intake.receive(
            Delivery(body=cast([message(n) for n in range(900, 950)]), exchange="", routing_key="")
        )
    )
    assert await collector.take(cast([message(n) for n in range(1, 260)])) is None

    assert small.called
    assert sum(sizes) == 50 + 259
    assert max(sizes) <= 100
    assert len(await collector.volumes()) == 309


@pytest_twisted.ensureDeferred
async def test_split_delivery_gets_refusals_of_every_transaction():
    batch = [message(n, resource_metadata={"a": "\0"} if n in (5, 150) else {}) for n in range(1, 201)]
    collector = Collector(batch_samples=100)

    await collector.take(cast(batch))

    assert len(await collector.volumes()) == 198
    [letter] = collector.dead.dead_letters
    assert b"000000000005" in letter.body
    assert b"000000000150" in letter.body
    assert letter.headers["meter-samples"] == 2


# --- signed batches ------------------------------------------------------------------------------------------------


def unsigned(number, **changes):
    return {name: value for name, value in message(number, **changes).items() if name != "message_signature"}


def batch_of(messages):
    return sign_batch(messages, "key-1", b"secret")


async def proof_of(collector, number):
    return await collector.store.proof(message(number)["message_id"])


@pytest_twisted.ensureDeferred
async def test_signed_batch_is_stored_with_the_places_of_its_messages():
    messages = [unsigned(n) for n in (1, 2, 3)]
    collector = Collector()

    await collector.take(cast(messages, batch_of(messages)))

    proof = await proof_of(collector, 2)
    assert (proof.scheme, proof.key_id, proof.position) == ("meter", "key-1", 1)
    found = verify_stored_batch(proof.batch, KEYS.keys[0])
    assert (found.problems, found.missing, found.signature_matches) == ([None] * 3, [], True)


@pytest_twisted.ensureDeferred
async def test_rejected_entry_is_recorded_as_unstored_if_it_is_as_it_was_signed_and_verifies_when_replayed_alone():
    messages = [unsigned(1), unsigned(2), unsigned(3), unsigned(4, counter_type="x")]
    batch = batch_of(messages)
    sent = [messages[0], messages[1] | {"counter_volume": 20}, messages[2], messages[3]]
    collector = Collector()

    await collector.take(cast(sent, batch))

    assert await collector.volumes() == [1, 3]
    proof = await proof_of(collector, 1)
    assert [(each.position, each.reason, each.digest) for each in proof.batch.unstored] == [
        (3, "refused", batch.digest(3))
    ]
    found = verify_stored_batch(proof.batch, KEYS.keys[0])
    assert (found.missing, found.damage, found.signature_matches) == ([1], None, None)
    kinds = sorted(letter.headers["meter-kind"] for letter in collector.dead.dead_letters)
    assert kinds == ["invalid", "unverified"]
    for letter in list(collector.dead.dead_letters):
        assert open_envelope(letter.body)["_meter_batch_signature"]["positions"] in ([1], [3])
        await collector.take(letter.body)  # what was altered is refused again, however often it is replayed
    assert await collector.volumes() == [1, 3]


@pytest_twisted.ensureDeferred
async def test_dead_letter_of_a_refused_message_verifies_and_is_stored_when_replayed_alone():
    messages = [unsigned(n) for n in (1, 2, 3)]
    batch = batch_of(messages)
    collector, limited = Collector(), Collector()
    write = limited.store.write

    async def refusing(written, refused_entries=()):
        """Refuse the second message, as a store may for a reason that passes."""
        kept = [each for each in written if each.volume != 2]
        refused = [each.entry for each in written if each.volume == 2]
        result = await write(kept, (*refused_entries, *refused))
        refusals = [Refusal(index, "not now") for index, each in enumerate(written) if each.volume == 2]
        return WriteResult(result.stored, result.duplicates, tuple(refusals))

    limited.store.write = refusing
    await limited.take(cast(messages, batch))
    [letter] = limited.dead.dead_letters
    assert letter.headers["meter-kind"] == "unstorable"
    limited.store.write = write

    await limited.take(letter.body)
    await collector.take(letter.body)

    assert await limited.volumes() == [1, 2, 3]
    assert await collector.volumes() == [2]
    proof = await proof_of(limited, 2)
    assert proof.position == 1
    found = verify_stored_batch(proof.batch, KEYS.keys[0])
    assert (found.problems, found.missing, found.damage, found.signature_matches) == ([None] * 3, [], None, True)


@pytest_twisted.ensureDeferred
async def test_repeat_of_a_message_in_another_batch_is_recorded_as_a_duplicate():
    messages = [unsigned(n) for n in (1, 2)]
    collector = Collector()
    await collector.take(cast(messages[:1], batch_of(messages[:1])))
    await collector.take(cast(messages, batch_of(messages)))

    batch = (await proof_of(collector, 2)).batch
    assert [(each.position, each.reason) for each in batch.unstored] == [(0, "duplicate")]
    found = verify_stored_batch(batch, KEYS.keys[0])
    assert (found.missing, found.damage, found.signature_matches) == ([], None, True)


@pytest_twisted.ensureDeferred
async def test_redelivery_of_a_batch_records_nothing_as_unstored():
    messages = [unsigned(n) for n in (1, 2)]
    body = cast(messages, batch_of(messages))
    collector = Collector()
    await collector.take(body)
    await collector.take(body)

    assert (await proof_of(collector, 2)).batch.unstored == []


@pytest.mark.parametrize(
    "change",
    [
        {"mac": "AAAA"},
        {"mac": None},
        {"id": "\ud800"},
        {"first": "\ud800"},
        {"last": "never"},
        {"key_id": "\ud800" * 60},
        {"digests": "x" * 1_000_000},
        {"positions": [0, 10**400]},
        {"version": 2},
    ],
)
def test_malformed_batch_signature_makes_one_dead_letter_of_the_delivery(change):
    messages = [unsigned(n) for n in (1, 2)]
    signature = batch_of(messages).to_json() | change
    content = {"method": "record_metering_data", "args": {"data": messages}, "_meter_batch_signature": signature}
    collector = Collector()

    done = collector.take(json.dumps(content).encode())

    assert done.result is None
    [letter] = collector.dead.dead_letters
    assert letter.headers["meter-kind"] == "unverified"
    assert len(letter.headers["meter-reason"]) <= 500
