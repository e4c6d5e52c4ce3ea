"""What is stored is verified again on a real PostgreSQL, and whatever is changed there is named."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.ceilometer_signature import signature
from meter.commands.verify import verdict
from meter.message import read
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.store import PostgresStore
from meter.store import Verification
from tests.store_messages import NOON
from tests.store_messages import after
from tests.store_messages import message
from tests.waiting import until

VECTORS = json.loads((Path(__file__).parents[1] / "data/signature-vectors.json").read_text())
SECRET = VECTORS[0]["secret"].encode()
KEYS = Keyring(
    [
        SigningKey("old", b"a secret of the tests"),
        SigningKey("ceilometer", SECRET),
    ],
    accept_unsigned=True,
)
# All vectors have the same id, of which the store would accept one.
CEILOMETERS = [each["message"] | {"message_id": str(uuid.UUID(int=n))} for n, each in enumerate(VECTORS)]
CEILOMETERS = [each | {"message_signature": signature(each, SECRET)} for each in CEILOMETERS]
UNSIGNED = {**message("lamp", 5, at=50).fields, "message_signature": ""}

MESSAGES = [
    message("cpu", 1, at=0, metadata={"a": {"b": [1, 1.0, True, None, "ü", 1e23, 10**25]}}),
    message("cpu", 1.0, at=1, metadata={"state": "active"}),
    message("cpu", 10**25, at=2, resource_id="large"),
    message("cpu", 2**53 + 1, at=3),
    message("cpu", 0.1, at=4, message_id="no UUID"),
    message("disk", -1.5e300, at=5, user_id=None, project_id=None),
    message("net", 5, at=6, metadata={"_meter": {"run": "hv1/1", "interval": 300}}),
    message("net", 5, at=7, type="cumulative", metadata={"instance_host": "hv1"}),
]


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn()


@pytest_twisted.async_yield_fixture
async def stored(database, postgresql):
    """A store with a few odd messages; yields a function that executes SQL on it."""
    store = PostgresStore(reactor, database, clock=reactor, migrate=True, readers=0, writers=1)
    store.startService()
    await until(lambda: store.readiness().ready)
    known = [each.fields for each in MESSAGES] + [VECTORS[0]["message"], *CEILOMETERS, UNSIGNED]
    result = await store.write([read(fields, KEYS) for fields in known])
    assert result.stored == len(known)
    yield lambda statement: postgresql.execute(statement, database)
    await store.stopService()
    postgresql.execute(
        'TRUNCATE sample, meter, resource, "user", project, source, run, series, metadata, wire_format RESTART IDENTITY',
        database,
    )


@pytest.fixture
def look(database):
    """Returns the rows of a range, each with its verdict."""

    async def look(start=None, end=None, meter=None, page_rows=3):
        verification = Verification(reactor, database, clock=reactor)
        await verification.open()
        try:
            rows = [row async for row in verification.rows(start, end, meter, page_rows)]
        finally:
            verification.close()
        return [(row, verdict(row, KEYS, accept_unsigned=True)) for row in rows]

    return look


def states(looked):
    return [found.state for _, found in looked]


@pytest_twisted.ensureDeferred
async def test_all_signed_samples_are_verified_in_the_order_of_time(stored, look):
    looked = await look()
    expected = len(MESSAGES) + len(CEILOMETERS) + 1
    assert sorted(states(looked)) == ["unsigned", *["verified"] * expected]
    times = [(row.timestamp, row.message_id) for row, _ in looked]
    assert times == sorted(times)
    assert {found.key_id for _, found in looked} == {"old", "ceilometer", None}


@pytest.mark.parametrize("page_rows", [1, 2, 1000])
@pytest_twisted.ensureDeferred
async def test_pages_of_any_size_contain_each_row_once(stored, look, page_rows):
    ids = [row.message_id for row, _ in await look(page_rows=page_rows)]
    assert len(set(ids)) == len(ids) == len(MESSAGES) + len(CEILOMETERS) + 2


@pytest_twisted.ensureDeferred
async def test_range_includes_its_start_and_excludes_its_end_and_may_be_of_one_meter(stored, look):
    assert [row.timestamp for row, _ in await look(after(1), after(5))] == [after(n) for n in (1, 2, 3, 4)]
    assert [row.meter for row, _ in await look(NOON, after(60), "disk")] == ["disk"]
    assert await look(meter="no such meter") == []


@pytest.mark.parametrize(
    ("tampering", "reason", "count"),
    [
        ("UPDATE sample SET volume = 2 WHERE timestamp = '{at1}'", "the signature does not match", 1),
        ("UPDATE sample SET volume = 2 WHERE timestamp = '{at2}'", "differs from the column volume", 1),
        ("UPDATE sample SET timestamp = timestamp + interval '1 s' WHERE timestamp = '{at1}'", "does not match", 1),
        ("UPDATE sample SET timestamp = timestamp - interval '1 year' WHERE timestamp = '{at2}'", "timestamp", 1),
        ("UPDATE metadata SET text = replace(text, 'active', 'paused')", "does not match", 1),
        ("UPDATE metadata SET document = '{{}}' WHERE text LIKE '%active%'", "the metadata that queries read", 1),
        ("UPDATE metadata SET text = 'no JSON' WHERE text LIKE '%active%'", "no message can be restored", 1),
        ("DELETE FROM metadata WHERE text LIKE '%active%'", "refers to a missing row of metadata", 1),
        ("DELETE FROM resource WHERE name = 'large'", "refers to a missing row of resource", 1),
        (
            "DELETE FROM series WHERE id = (SELECT series_id FROM sample WHERE timestamp = '{at2}')",
            "meter, resource",
            1,
        ),
        (
            "DELETE FROM wire_format WHERE id = (SELECT wire_format_id FROM sample WHERE timestamp = '{at5}')",
            "a missing row of wire_format",
            2,
        ),
        ("DELETE FROM project WHERE name = 'p1'", "the column project", None),
        ("UPDATE resource SET name = 'small' WHERE name = 'large'", "differs from the column resource", 1),
        ("UPDATE meter SET unit = 'MB' WHERE name = 'disk'", "does not match", 1),
        ("UPDATE sample SET signature = '' WHERE timestamp = '{at1}'", "is missing", 1),
        ("UPDATE sample SET message_id = gen_random_uuid() WHERE timestamp = '{at1}'", "does not match", 1),
        ("UPDATE sample SET message_id = gen_random_uuid() WHERE timestamp = '{at4}'", "the column message_id", 1),
        ("UPDATE sample SET verbatim_json = '{{}}' WHERE timestamp = '{at1}'", "counter_volume", 1),
        ("UPDATE sample SET verbatim_json = '{{' WHERE timestamp = '{at1}'", "no message can be restored", 1),
        ("UPDATE wire_format SET text = '[]'", "no message can be restored", None),
        ("UPDATE run SET name = 'hv2/1' WHERE name = 'hv1/1'", "differs from the column run", 1),
        ("UPDATE run SET name = 'hv2' WHERE name = 'hv1'", "differs from the column run", 1),
        ("DELETE FROM run WHERE name = 'hv1/1'", "differs from the column run", 1),
        ("UPDATE series SET run_kind = 1 WHERE run_kind = 2", "differs from the column run", 1),
        ("UPDATE series SET polling_interval = 9 WHERE polling_interval = 300", "differs from the column interval", 1),
    ],
)
@pytest_twisted.ensureDeferred
async def test_every_change_in_the_database_is_reported(stored, look, tampering, reason, count):
    times = {f"at{number}": after(number).isoformat() for number in range(8)}
    stored(tampering.format(**times))
    failed = [found.reason for _, found in await look() if found.state == "failed"]
    mine = [each for each in failed if reason in each]
    assert len(mine) >= 1
    assert count is None or len(failed) == len(mine) == count, failed


@pytest_twisted.ensureDeferred
async def test_key_removed_from_the_configuration_verifies_nothing(stored, look):
    keys = Keyring([SigningKey("ceilometer", SECRET)], accept_unsigned=True)
    looked = [verdict(row, keys, accept_unsigned=True) for row, _ in await look()]
    assert [found.state for found in looked].count("failed") == len(MESSAGES)


@pytest_twisted.ensureDeferred
async def test_unsigned_sample_is_reported_where_unsigned_samples_are_not_accepted(stored, look):
    [row] = [row for row, found in await look() if found.state == "unsigned"]
    found = verdict(row, KEYS, accept_unsigned=False)
    assert (found.state, found.reason) == ("unsigned", "unsigned, and [signing] does not accept unsigned samples")
