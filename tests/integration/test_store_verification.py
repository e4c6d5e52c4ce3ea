"""What is stored is verified again on a real PostgreSQL, and whatever is changed there is named."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.ceilometer_signature import signature
from meter.commands import row_verifier
from meter.commands.range_verifier import RangeVerifier
from meter.commands.range_verifier import VerifiedRange
from meter.commands.row_verifier import RowVerifier
from meter.message import read
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.store import PostgresStore
from meter.store import Verification
from tests.signed import received_together
from tests.store_messages import NOON
from tests.store_messages import after
from tests.store_messages import message
from tests.waiting import until

VECTORS = json.loads((Path(__file__).parents[1] / "data/signature-vectors.json").read_text())
SECRET = VECTORS[0]["secret"].encode()
KEYS = Keyring(
    [
        SigningKey("key-1", b"a secret of the tests"),
        SigningKey("ceilometer", SECRET, schemes=("ceilometer",)),
    ],
    accept_unsigned=True,
)
# All vectors have the same id, of which the store would accept one.
CEILOMETERS = [each["message"] | {"message_id": str(uuid.UUID(int=n))} for n, each in enumerate(VECTORS)]
CEILOMETERS = [each | {"message_signature": signature(each, SECRET)} for each in CEILOMETERS]
THEIRS = [read(fields, KEYS) for fields in [VECTORS[0]["message"], *CEILOMETERS]]
UNSIGNED = read({**message("lamp", 5, at=50).fields, "message_signature": ""}, KEYS)


def sample(name, volume, *, at, **changes):
    fields = {"type": "gauge", "unit": "ns", "resource_id": "r1", "user_id": "u1", "project_id": "p1", **changes}
    return Sample(name=name, volume=volume, timestamp=after(at), **fields)


OURS = [
    *received_together(
        [
            sample("cpu", 1, at=0, resource_metadata={"a": {"b": [1, 1.0, True, None, "ü", 1e23, 10**25]}}),
            sample("cpu", 1.0, at=1, resource_metadata={"state": "active"}),
            sample("cpu", 10**25, at=2, resource_id="large"),
            sample("cpu", 2**53 + 1, at=3),
            sample("cpu", 0.1, at=4, message_id="no UUID"),
        ],
        KEYS,
    ),
    *received_together([sample("disk", -1.5e29, at=5, user_id=None, project_id=None)], KEYS),
    *received_together(
        [
            sample("net", 5, at=6, resource_metadata={"_meter": {"run": "hv1/1", "interval": 300}}),
            sample("net", 5, at=7, type="cumulative", resource_metadata={"instance_host": "hv1"}),
        ],
        KEYS,
    ),
]
MESSAGES = [*OURS, *THEIRS, UNSIGNED]


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


@pytest_twisted.async_yield_fixture
async def stored(database, postgresql):
    """A store with a few odd messages; yields a function that executes SQL on it."""
    store = PostgresStore(reactor, database, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    await until(lambda: store.readiness().ready)
    result = await store.write(MESSAGES)
    assert result.stored == len(MESSAGES)
    yield lambda statement: postgresql.execute(statement, database)
    await store.stopService()
    postgresql.execute(
        'TRUNCATE sample, unstored_entry, signed_batch, meter, resource, "user", project, source, run, series, metadata,'
        " wire_format RESTART IDENTITY",
        database,
    )


@pytest.fixture
def look(database, monkeypatch):
    """Returns the verdicts on the rows of a range, each with its row."""

    monkeypatch.setattr(row_verifier, "BATCH_WRITING_SECONDS", 0.0)

    async def look(start=None, end=None, meter=None, page_rows=3, keys=KEYS, accept_unsigned=True):
        verification = Verification(reactor, database, clock=reactor)
        await verification.open()
        verifier = RowVerifier(verification, keys, reactor, accept_unsigned=accept_unsigned)
        try:
            verified = VerifiedRange(start, end, meter)
            findings = RangeVerifier(verification, verifier, verified, page_rows).findings()
            return [found async for page in findings for found in page]
        finally:
            verification.close()

    return look


def states(looked):
    return [found.state for _, found in looked]


@pytest_twisted.ensureDeferred
async def test_all_signed_samples_are_verified_in_the_order_of_time(stored, look):
    looked = await look()
    assert sorted(states(looked)) == ["unsigned", *["verified"] * (len(OURS) + len(THEIRS))]
    times = [(row.timestamp, row.message_id) for row, _ in looked]
    assert times == sorted(times)
    found = Counter((verdict.key_id, verdict.scheme) for _, verdict in looked)
    assert found == {("key-1", "meter"): len(OURS), ("ceilometer", "ceilometer"): len(THEIRS), (None, None): 1}


@pytest.mark.parametrize("page_rows", [1, 2, 1000])
@pytest_twisted.ensureDeferred
async def test_pages_of_any_size_contain_each_row_once(stored, look, page_rows):
    ids = [row.message_id for row, _ in await look(page_rows=page_rows)]
    assert len(set(ids)) == len(ids) == len(MESSAGES)


UNIQUE_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indisunique AND (indrelid = 'voided_sample'::regclass
    OR indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'sample'::regclass))
"""

VOIDED = """
INSERT INTO voided_sample (timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature,
    verbatim_json, batch_id, batch_position, audit_seq, voided_at, voided_by, reason)
SELECT timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json, batch_id,
    batch_position, 1, now(), 'operator', 'a test' FROM sample
"""


@pytest.fixture
def without_unique_indexes(stored):
    """Drops the unique indexes of samples, so that a row can be copied."""
    indexes = stored(UNIQUE_INDEXES)
    assert len(indexes) > 2
    for name, _ in indexes:
        stored(f"DROP INDEX {name}")
    yield
    stored("TRUNCATE sample, voided_sample")
    for _, definition in indexes:
        stored(definition)


@pytest.mark.parametrize("page_rows", [1, 2, 3, 4, 1000])
@pytest_twisted.ensureDeferred
async def test_copies_of_a_row_are_each_read_once_wherever_a_page_ends(stored, look, without_unique_indexes, page_rows):
    for at in ("at1", "at7"):
        for _ in range(4):
            stored(copy(id="message_id", at=f"{AT[at]} LIMIT 1"))
    stored(VOIDED)
    looked = await look(page_rows=page_rows)
    rows = Counter((row.timestamp, row.audit_seq is not None) for row, _ in looked)
    assert sum(rows.values()) == 2 * (len(MESSAGES) + 8)
    for number, copies in ((0, 1), (1, 5), (7, 5)):
        assert [rows[after(number), voided] for voided in (False, True)] == [copies, copies]


UNREADABLE_TIMES = ["-infinity", "0044-01-01 BC", "0043-01-01 BC", "10000-01-01", "20000-01-01", "infinity"]


@pytest.mark.parametrize("page_rows", [1, 2, 1000])
@pytest_twisted.ensureDeferred
async def test_rows_and_batches_with_times_that_python_does_not_have_are_each_read_once(stored, look, page_rows):
    # Their ids are in the opposite order of their times.
    for number, time in enumerate(UNREADABLE_TIMES):
        stored(
            f"UPDATE sample SET timestamp = '{time}', message_id = '{uuid.UUID(int=2**127 - number)}'"
            f" WHERE {AT[f'at{number}']}"
        )
        stored(
            "INSERT INTO signed_batch (id, uuid, key_id, first, last, mac, checks) OVERRIDING SYSTEM VALUE"
            f" SELECT {900 - number}, gen_random_uuid(), key_id, '{time}', '{time}', mac, checks FROM signed_batch LIMIT 1"
        )
    looked = await look(page_rows=page_rows)
    ids = Counter(row.message_id for row, verdict in looked if row is not None and verdict.state != "missing")
    assert len(ids) == len(MESSAGES)
    assert set(ids.values()) == {1}
    assert sum("all rows of the batch" in (verdict.reason or "") for _, verdict in looked) == len(UNREADABLE_TIMES)


@pytest_twisted.ensureDeferred
async def test_range_includes_its_start_and_excludes_its_end_and_may_be_of_one_meter(stored, look):
    assert [row.timestamp for row, _ in await look(after(1), after(5))] == [after(n) for n in (1, 2, 3, 4)]
    assert [row.meter for row, _ in await look(NOON, after(60), "disk")] == ["disk"]
    assert await look(meter="no such meter") == []


ALTERED = "altered or added"
AT = {f"at{number}": f"timestamp = '{after(number).isoformat()}'" for number in range(8)}
COPY = """
INSERT INTO sample (timestamp, recorded_at, message_id, volume, metadata_id, series_id, wire_format_id, signature, verbatim_json,
    batch_id, batch_position)
SELECT timestamp, recorded_at, {id}, {volume}, metadata_id, series_id, wire_format_id, signature, verbatim_json, {batch}, {position}
FROM sample WHERE {at}
"""
COPIED = {
    "id": "gen_random_uuid()",
    "volume": "volume",
    "batch": "batch_id",
    "position": "batch_position",
    "at": AT["at1"],
}


def copy(**changes):
    return COPY.format(**COPIED | changes)


# Each change, what is said about it, and of how many rows or messages.
CHANGES = [
    ("UPDATE sample SET volume = 2 WHERE {at1}", ALTERED, 1),
    ("UPDATE sample SET volume = 2 WHERE {at2}", "differs from the column volume", 1),
    ("UPDATE sample SET timestamp = timestamp + interval '1 s' WHERE {at1}", ALTERED, 1),
    ("UPDATE sample SET timestamp = timestamp - interval '1 year' WHERE {at2}", "outside the times", 1),
    ("UPDATE metadata SET text = replace(text, 'active', 'paused')", ALTERED, 1),
    ("UPDATE metadata SET document = '{{}}' WHERE text LIKE '%active%'", "the metadata that queries read", 1),
    ("UPDATE metadata SET text = 'no JSON' WHERE text LIKE '%active%'", "no message can be restored", 1),
    ("DELETE FROM metadata WHERE text LIKE '%active%'", "refers to a missing row of metadata", 1),
    ("DELETE FROM resource WHERE name = 'large'", "refers to a missing row of resource", 1),
    ("DELETE FROM series WHERE id = (SELECT series_id FROM sample WHERE {at2})", "meter, resource", 1),
    (
        "DELETE FROM wire_format WHERE id = (SELECT wire_format_id FROM sample WHERE {at1})",
        "a missing row of wire_format",
        None,
    ),
    ("DELETE FROM project WHERE name = 'p1'", ALTERED, None),
    ("DELETE FROM \"user\" WHERE name = 'u1'", ALTERED, None),
    ("DELETE FROM source WHERE name = 'test'", ALTERED, None),
    ("UPDATE resource SET name = 'small' WHERE name = 'large'", "differs from the column resource", 1),
    ("UPDATE resource SET name = 'other' WHERE name = 'r1'", ALTERED, None),
    ("UPDATE meter SET name = 'tape' WHERE name = 'disk'", ALTERED, 1),
    ("UPDATE meter SET type = 'delta' WHERE name = 'disk'", ALTERED, 1),
    ("UPDATE meter SET unit = 'MB' WHERE name = 'disk'", ALTERED, 1),
    ("UPDATE sample SET signature = '' WHERE message_id = '{theirs}'", "is missing", 1),
    (
        "UPDATE sample SET signature = decode(repeat('00', 32), 'hex') WHERE message_id = '{theirs}'",
        "does not match",
        1,
    ),
    ("UPDATE sample SET message_id = gen_random_uuid() WHERE {at1}", ALTERED, 1),
    ("UPDATE sample SET message_id = gen_random_uuid() WHERE {at4}", "the column message_id", 1),
    ("UPDATE sample SET verbatim_json = '{{}}' WHERE {at1}", "counter_volume", 1),
    ("UPDATE sample SET verbatim_json = '{{' WHERE {at1}", "no message can be restored", 1),
    ("UPDATE wire_format SET text = '[]'", "no message can be restored", None),
    ("UPDATE wire_format SET text = replace(text, 'key-1', 'ceilometer')", "and its row names ceilometer", len(OURS)),
    ("UPDATE run SET name = 'hv2/1' WHERE name = 'hv1/1'", "differs from the column run", 1),
    ("UPDATE run SET name = 'hv2' WHERE name = 'hv1'", "differs from the column run", 1),
    ("DELETE FROM run WHERE name = 'hv1/1'", "differs from the column run", 1),
    ("UPDATE series SET run_kind = 1 WHERE run_kind = 2", "differs from the column run", 1),
    ("UPDATE series SET polling_interval = 9 WHERE polling_interval = 300", "differs from the column interval", 1),
    # removed
    ("DELETE FROM sample WHERE {at1}", "message 1 of the batch", 1),
    ("DELETE FROM sample WHERE {at1} OR {at3}", "is gone", 2),
    (
        "DELETE FROM signed_batch WHERE id = (SELECT batch_id FROM sample WHERE {at5})",
        "the record of its signed batch is missing",
        1,
    ),
    # added, copied and moved
    (copy(), ALTERED, 1),
    (copy(volume="volume + 1"), ALTERED, 1),
    (copy(position="7"), "the batch was signed with 5 messages, and this is number 7", 1),
    (copy(position="-1"), "this is number -1", 1),
    (copy(batch="4711"), "the record of its signed batch is missing", 1),
    (copy(batch="0", position="0"), "is missing", 1),
    ("UPDATE sample SET batch_position = 1 - batch_position WHERE {at0} OR {at1}", ALTERED, 2),
    (
        "UPDATE sample SET batch_id = (SELECT batch_id FROM sample WHERE {at6}), batch_position = 0 WHERE {at5}",
        ALTERED,
        1,
    ),
    ("UPDATE sample SET batch_id = 0, batch_position = 0 WHERE {at5}", "the signature that key key-1 verified", 1),
    # the record of the batch
    (
        "UPDATE signed_batch SET mac = decode(repeat('00', 32), 'hex') WHERE id = {batch5}",
        "record of the batch was altered",
        1,
    ),
    ("UPDATE signed_batch SET uuid = gen_random_uuid() WHERE id = {batch5}", ALTERED, 1),
    (
        "UPDATE signed_batch SET first = first - interval '1 s' WHERE id = {batch5}",
        "record of the batch was altered",
        1,
    ),
    ("UPDATE signed_batch SET last = last + interval '1 s' WHERE id = {batch5}", "record of the batch was altered", 1),
    ("UPDATE signed_batch SET key_id = 'ceilometer' WHERE id = {batch5}", "and the key key-1 signed the batch", 1),
    ("UPDATE signed_batch SET key_id = 'gone' WHERE id = {batch5}", "the key gone, and its row names key-1", 1),
    ("UPDATE signed_batch SET checks = decode('00000000', 'hex') WHERE id = {batch5}", ALTERED, 1),
    ("UPDATE signed_batch SET checks = checks || checks WHERE id = {batch5}", "message 1 of the batch", 1),
    (
        "UPDATE signed_batch SET checks = substr(checks, 1, 4) WHERE id = {batch0}",
        "record of the batch was altered",
        None,
    ),
    # the collector's statements
    (
        "DELETE FROM sample WHERE {at1}; INSERT INTO unstored_entry"
        " VALUES ({batch0}, 1, 'refused', decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'))",
        "is not the collector's",
        1,
    ),
]


@pytest.mark.parametrize(("change", "reason", "count"), CHANGES, ids=[change for change, _, _ in CHANGES])
@pytest_twisted.ensureDeferred
async def test_every_change_in_the_database_is_reported(stored, look, change, reason, count):
    batches = {f"batch{n}": stored(f"SELECT batch_id FROM sample WHERE {AT[f'at{n}']}")[0][0] for n in (0, 5)}
    stored(change.format(theirs=uuid.UUID(int=0), **AT, **batches))
    reported = [verdict.reason for _, verdict in await look() if verdict.state in ("failed", "missing")]
    mine = [each for each in reported if reason in each]
    assert len(mine) >= 1, reported
    assert count is None or len(mine) == count, reported


@pytest_twisted.ensureDeferred
async def test_rows_that_nobody_changed_are_verified_beside_one_that_was(stored, look):
    stored(f"UPDATE sample SET volume = 2 WHERE {AT['at1']}")
    assert Counter(states(await look())) == {"verified": len(OURS) + len(THEIRS) - 1, "failed": 1, "unsigned": 1}


@pytest_twisted.ensureDeferred
async def test_whole_batch_that_was_deleted_with_its_record_is_not_noticed_as_documented(stored, look):
    stored(f"DELETE FROM signed_batch WHERE id = (SELECT batch_id FROM sample WHERE {AT['at5']})")
    stored(f"DELETE FROM sample WHERE {AT['at5']}")
    assert set(states(await look())) == {"verified", "unsigned"}


LOST = "DELETE FROM sample WHERE batch_id = (SELECT batch_id FROM sample WHERE {})"


@pytest.mark.parametrize("page_rows", [1, 2, 1000])
@pytest_twisted.ensureDeferred
async def test_batch_none_of_whose_rows_exist_is_reported_by_its_record(stored, look, page_rows):
    stored(LOST.format(AT["at5"]))
    stored(LOST.format(AT["at0"]))
    missing = [(row, verdict.count) for row, verdict in await look(page_rows=page_rows) if verdict.state == "missing"]
    assert sorted(missing, key=lambda each: each[1]) == [(None, 1), (None, 5)]


@pytest_twisted.ensureDeferred
async def test_lost_batch_is_reported_in_each_range_that_its_times_touch_and_in_no_other(stored, look):
    stored(LOST.format(AT["at0"]))  # from second 0 to 4

    async def lost(*range):
        return [verdict.state for _, verdict in await look(*range)].count("missing")

    assert [await lost(after(2), after(3)), await lost(None, after(1)), await lost(after(4), None)] == [1, 1, 1]
    assert [await lost(None, NOON), await lost(after(5), None)] == [0, 0]


@pytest_twisted.ensureDeferred
async def test_lost_batch_that_is_explained_or_may_have_expired_is_not_reported(stored, look):
    [[batch]] = stored(f"SELECT batch_id FROM sample WHERE {AT['at5']}")
    entry = OURS[5].entry
    stored(LOST.format(AT["at5"]))
    stored(
        f"INSERT INTO unstored_entry VALUES ({batch}, 0, 'duplicate',"
        f" '\\x{entry.digest.hex()}', '\\x{entry.unstored_mac('duplicate').hex()}')"
    )
    assert "missing" not in states(await look())
    stored("DELETE FROM unstored_entry")
    assert "missing" in states(await look())
    stored(f"INSERT INTO retention_cutoff VALUES ('disk', '{after(6).isoformat()}')")
    try:
        assert "missing" not in states(await look())
    finally:
        stored("DELETE FROM retention_cutoff")


@pytest_twisted.ensureDeferred
async def test_key_removed_from_the_configuration_verifies_nothing(stored, look):
    keys = Keyring([SigningKey("ceilometer", SECRET, schemes=("ceilometer",))], accept_unsigned=True)
    assert states(await look(keys=keys)).count("failed") == len(OURS)


@pytest_twisted.ensureDeferred
async def test_key_that_has_another_id_now_verifies_what_it_signed_under_the_old_one(stored, look):
    keys = Keyring([SigningKey("2027", b"new"), replace(KEYS.keys[0], id="2026"), KEYS.keys[1]], accept_unsigned=True)
    looked = await look(keys=keys)
    assert Counter(states(looked)) == {"verified": len(OURS) + len(THEIRS), "unsigned": 1}
    assert Counter(found.key_id for _, found in looked if found.scheme == "meter") == {"2026": len(OURS)}
    stored(f"DELETE FROM sample WHERE {AT['at1']}")
    stored(f"UPDATE sample SET volume = 2 WHERE {AT['at6']}")
    assert Counter(states(await look(keys=keys))) == {
        "verified": len(OURS) + len(THEIRS) - 2,
        "unsigned": 1,
        "missing": 1,
        "failed": 1,
    }


@pytest_twisted.ensureDeferred
async def test_key_without_the_scheme_fails_its_batches(stored, look):
    keys = Keyring([replace(KEYS.keys[0], schemes=("ceilometer",)), KEYS.keys[1]], accept_unsigned=True)
    assert states(await look(keys=keys)).count("failed") == len(OURS)


@pytest_twisted.ensureDeferred
async def test_key_that_may_not_sign_the_meter_any_more_fails_its_rows(stored, look):
    keys = Keyring([replace(KEYS.keys[0], meters=("cpu", "net")), KEYS.keys[1]], accept_unsigned=True)
    [(row, verdict)] = [(row, found) for row, found in await look(keys=keys) if found.state == "failed"]
    assert (row.meter, verdict.reason) == (
        "disk",
        "key key-1, which signed the batch, may not sign samples of the meter disk",
    )


@pytest_twisted.ensureDeferred
async def test_unsigned_sample_is_reported_where_unsigned_samples_are_not_accepted(stored, look):
    [verdict] = [found for _, found in await look(accept_unsigned=False) if found.state == "unsigned"]
    assert verdict.reason == "unsigned, and [signing] does not accept unsigned samples"


UNREADABLE = [
    "UPDATE sample SET timestamp = timestamp - interval '1 year' WHERE {at5}",
    "UPDATE sample SET timestamp = 'infinity' WHERE {at5}",
    "UPDATE sample SET timestamp = '0044-01-01 BC' WHERE {at5}",
    "UPDATE signed_batch SET last = 'infinity' WHERE id = (SELECT batch_id FROM sample WHERE {at5})",
    "UPDATE signed_batch SET first = '0044-01-01 BC' WHERE id = (SELECT batch_id FROM sample WHERE {at5})",
    "UPDATE metadata SET text = repeat('[', 5000) || repeat(']', 5000), document = 'null' WHERE text LIKE '%active%'",
    "UPDATE wire_format SET text = repeat('[', 5000)",
    "UPDATE signed_batch SET checks = '' WHERE id = (SELECT batch_id FROM sample WHERE {at5})",
    "INSERT INTO unstored_entry SELECT batch_id, -1, 'refused', '', '' FROM sample WHERE {at0}",
    "INSERT INTO unstored_entry SELECT batch_id, 32000, 'é', '', '' FROM sample WHERE {at0}",
]


@pytest.mark.parametrize("change", UNREADABLE)
@pytest_twisted.ensureDeferred
async def test_value_that_cannot_be_read_is_reported_and_ends_no_verification(stored, look, change):
    before = len(await look())
    stored(change.format(**AT))
    looked = await look()
    assert len(looked) >= before
    assert {"failed", "missing"} & set(states(looked))
