"""Signing keys with real daemons: rotation without a gap, keys that end, unsigned samples, and verifying what is stored."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import uuid
from datetime import UTC
from datetime import datetime
from pathlib import Path

import msgpack
import pytest_twisted

from meter.bus.batches import batch_publications
from meter.query import SampleFilter
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.store import PostgresStore
from tests.signed import outgoing
from tests.system.daemons import until
from tests.system.test_spine import publish
from tests.system.test_spine import sample
from tests.waiting import until as until_true

METER_VERIFY = str(Path(sys.executable).with_name("meter-verify"))
WITHOUT_KEY = """
[meter]
state_dir = "{directory}/state"
[status]
listen = "tcp:{status_port}:interface=127.0.0.1"
"""
OLD = '[[signing.keys]]\nid = "2025"\nkey = "last year\'s secret"\n'
NEW = '[[signing.keys]]\nid = "2026"\nkey = "this year\'s secret"\n'
ENDED = f"{OLD}not_after = 2026-01-01T00:00:00Z\n"
OLD_KEY = SigningKey("2025", b"last year's secret")
STORED = 'meter_collected_samples_total{outcome="stored"}'
DEAD = 'meter_dead_letters_total{reason="unverified"}'


def meter_verify(daemon, *arguments, status=0):
    """Run the command with a daemon's configuration; return the rows that it names, and the counts."""
    ran = subprocess.run(
        [METER_VERIFY, "--config", str(daemon.config_file), "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == status, ran.stdout + ran.stderr
    *rows, counts = [json.loads(line) for line in ran.stdout.splitlines()] or [{}]
    return rows, counts


async def stored_samples(dsn):
    """What ``IStore`` says is stored."""
    from twisted.internet import reactor

    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, writers=0)
    store.startService()
    try:
        await until_true(lambda: store.readiness().ready)
        return await store.samples(SampleFilter(), 10_000)
    finally:
        await store.stopService()


def body(*samples, keys=None):
    """Return a signed batch of ``samples`` as ``publish`` takes it."""
    [publication] = batch_publications([outgoing(each, keys or Keyring([OLD_KEY])) for each in samples])
    return {"exchange": "metering", "routing_key": publication.routing_key, "body": publication.body.decode()}


def counted(verified=0, unsigned=0, failed=0, missing=0, batches=0, **by_key):
    """Return the counts that ``meter-verify`` prints; all keys here sign batches."""
    by_scheme = {"meter": verified} if verified else {}
    states = {"verified": verified, "unsigned": unsigned, "voided": 0, "failed": failed, "missing": missing}
    return {**states, "by_key": by_key, "by_scheme": by_scheme, "batches": batches}


@pytest_twisted.ensureDeferred
async def test_a_key_is_rotated_without_a_gap(furnished):
    compute = '[compute]\nlibvirt_uri = "test:///default"\n[polling]\ninterval_seconds = 0.5\n'
    collector = furnished.daemon("meter-collector", NEW + OLD, base=WITHOUT_KEY).start().until_ready()
    not_yet = furnished.daemon("meter-compute", OLD + compute, base=WITHOUT_KEY).start()
    already = furnished.daemon("meter-compute", NEW + OLD + compute, base=WITHOUT_KEY).start()

    def both():
        _, counts = meter_verify(collector)
        return set(counts["by_key"]) == {"2025", "2026"} and counts

    counts = until(both, "samples signed with each key")
    for agent in (not_yet, already):
        agent.stop()

    assert (counts["failed"], counts["unsigned"]) == (0, 0)
    assert collector.metric(DEAD) == 0
    assert {each.key_id for each in await stored_samples(furnished.store)} == {"2025", "2026"}
    collector.stop()
    after = furnished.daemon("meter-collector", NEW + ENDED, base=WITHOUT_KEY)
    rows, counts = meter_verify(after, status=1)
    assert counts["failed"] == len(rows) > 0
    assert {each["reason"] for each in rows} >= {rows[0]["reason"]}
    assert "key 2025, which signed the batch, does not cover" in rows[0]["reason"]


@pytest_twisted.ensureDeferred
async def test_a_key_that_has_ended_signs_nothing_measured_later_and_proves_what_was_measured_before(furnished):
    collector = furnished.daemon("meter-collector", NEW + ENDED, base=WITHOUT_KEY).start().until_ready()
    before = sample(1, timestamp=datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC))
    later = sample(2, timestamp=datetime(2026, 1, 1, tzinfo=UTC))

    publish(furnished.bus, [body(before), body(later)])
    until(lambda: collector.metric(STORED) == 1 and collector.metric(DEAD) == 1, "one stored, one dead")

    [stored] = await stored_samples(furnished.store)
    assert (stored.volume, stored.key_id) == (1, "2025")
    assert meter_verify(collector) == ([], counted(verified=1, batches=1, **{"2025": 1}))


@pytest_twisted.ensureDeferred
async def test_unsigned_samples_are_stored_only_where_the_configuration_says_so(furnished):
    unsigned = body(sample(1))
    content = json.loads(json.loads(unsigned["body"])["oslo.message"])
    del content["args"]["data"][0]["message_signature"], content["_meter_batch_signature"]
    unsigned["body"] = json.dumps(content)

    strict = furnished.daemon("meter-collector", OLD, base=WITHOUT_KEY).start().until_ready()
    publish(furnished.bus, [unsigned])
    until(lambda: strict.metric(DEAD) == 1, "the dead letter")
    strict.stop()
    assert list(await stored_samples(furnished.store)) == []

    lenient = furnished.daemon("meter-collector", f"[signing]\naccept_unsigned = true\n{OLD}", base=WITHOUT_KEY)
    lenient.start().until_ready()
    publish(furnished.bus, [unsigned])
    until(lambda: lenient.metric(STORED) == 1, "the sample")

    [stored] = await stored_samples(furnished.store)
    assert (stored.key_id, stored.signature) == (None, "")
    assert meter_verify(lenient) == ([], counted(unsigned=1))
    [row], counts = meter_verify(strict, status=1)
    assert (row["state"], row["message_id"], counts["unsigned"]) == ("unsigned", str(uuid.UUID(int=1)), 1)


def test_rows_that_somebody_changed_are_named(furnished, postgresql):
    collector = furnished.daemon("meter-collector", OLD, base=WITHOUT_KEY).start().until_ready()
    samples = [
        sample(n, resource_metadata={"state": f"s{n}"}, timestamp=datetime(2026, 11, n, tzinfo=UTC))
        for n in range(1, 10)
    ]
    publish(furnished.bus, [body(*samples[:5]), body(*samples[5:])])
    until(lambda: collector.metric(STORED) == 9, "the samples")
    collector.stop()
    assert meter_verify(collector) == ([], counted(verified=9, batches=2, **{"2025": 9}))

    for statement in (
        "UPDATE sample SET volume = 100 WHERE volume = 2",
        "UPDATE sample SET batch_position = 7 WHERE volume = 4",
        "UPDATE metadata SET text = replace(text, 's6', 's7') WHERE text LIKE '%s6%'",
        "DELETE FROM sample WHERE volume = 8",
    ):
        postgresql.execute(statement, furnished.store)

    rows, counts = meter_verify(collector, status=1)
    assert sorted((each["state"], each["timestamp"]) for each in rows) == [
        *[("failed", f"2026-11-0{n}T00:00:00") for n in (2, 4, 6)],
        # Each is shown by a row of its batch; what was altered is not missing.
        ("missing", "2026-11-01T00:00:00"),
        ("missing", "2026-11-06T00:00:00"),
    ]
    reasons = {each["timestamp"][9]: each["reason"] for each in rows if each["state"] == "failed"}
    assert reasons["2"] == reasons["6"] == "the row was altered or added: it is not the message that was signed"
    assert reasons["4"] == "the row was added: the batch was signed with 5 messages, and this is number 7"
    missing = [each["reason"] for each in rows if each["state"] == "missing"]
    assert {reason.partition(" of the batch")[0] for reason in missing} == {"message 2", "message 3"}
    assert {(each["meter"], each["resource_id"]) for each in rows} == {("lamp.power", "lamp")}
    assert counts == counted(verified=5, failed=3, missing=2, batches=2, **{"2025": 5})
    assert meter_verify(collector, "--meter", "other")[1]["verified"] == 0
    text = subprocess.run(
        [METER_VERIFY, "-c", str(collector.config_file)], capture_output=True, text=True, timeout=180, check=False
    ).stdout
    assert f"FAILED    {uuid.UUID(int=2)}  lamp.power  lamp  2026-11-02T00:00:00  the row was altered or added" in text
    counts = "5 verified, 0 unsigned, 0 voided, 3 failed, 2 missing"
    assert f"{counts}\nverified by signature: 5 by Meter's signature of their batch\n" in text


def test_a_key_signs_only_with_its_schemes_and_only_its_meters_and_sources(furnished):
    limited = f'{OLD}meters = ["lamp.*"]\nsources = ["test"]\n'
    collector = furnished.daemon("meter-collector", limited, base=WITHOUT_KEY).start().until_ready()
    of_ceilometer = body(sample(4))
    content = json.loads(json.loads(of_ceilometer["body"])["oslo.message"])
    del content["_meter_batch_signature"]
    of_ceilometer["body"] = json.dumps(content)

    publish(
        furnished.bus,
        [body(sample(1)), body(sample(2, name="ip.floating")), body(sample(3, source="other")), of_ceilometer],
    )
    until(lambda: collector.metric(DEAD) == 3 and collector.metric(STORED) == 1, "one stored, three dead")


def test_proof_from_the_api_is_verified_with_nothing_but_python_and_messagepack(furnished):
    collector = furnished.daemon("meter-collector", OLD, base=WITHOUT_KEY).start().until_ready()
    metadata = {"b": [1, 1.0, None, True, {"z": "ü", "a": -(2**40)}], "a": {}, "ü": "x" * 300, "state": "active"}
    samples = [sample(n, resource_metadata={**metadata, "n": n}) for n in range(1, 4)]
    publish(furnished.bus, [body(*samples)])
    until(lambda: collector.metric(STORED) == 3, "the samples")
    api = furnished.daemon(
        "meter-api", OLD + '[api]\nlisten = "tcp:{api_port}:interface=127.0.0.1"\n', base=WITHOUT_KEY
    )
    api.start().until_ready()

    proofs = [api.get(f"/v2/samples/{each.message_id}/proof") for each in samples]

    assert [proof["batch"]["position"] for proof in proofs] == [0, 1, 2]
    for proof in proofs:
        assert (proof["scheme"], proof["key_id"]) == ("meter", "2025")
        assert proves(proof, OLD_KEY.secret)
        assert not proves(proof, b"another secret")
        assert not proves({**proof, "message": {**proof["message"], "counter_volume": 4}}, OLD_KEY.secret)
        assert not proves({**proof, "message": {**proof["message"], "counter_volume": 1.0}}, OLD_KEY.secret)
        assert not proves({**proof, "batch": {**proof["batch"], "position": 5}}, OLD_KEY.secret)


def proves(proof, secret):
    """Return whether ``proof`` is valid, by docs/keys.rst: nothing of Meter is used."""
    batch, position = proof["batch"], proof["batch"]["position"]
    digests, batch_id = base64.b64decode(batch["digests"]), uuid.UUID(batch["id"])

    def derived(info):
        return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\x01", "sha256")

    def in_order(value):
        if isinstance(value, dict):
            return {name: in_order(value[name]) for name in sorted(value, key=str.encode)}
        return [in_order(each) for each in value] if isinstance(value, list) else value

    def encoded(value):
        return msgpack.packb(in_order(value))

    message = {name: value for name, value in proof["message"].items() if name != "message_signature"}
    message["resource_metadata"] = hashlib.sha256(encoded(message["resource_metadata"])).digest()
    salt = hmac.digest(derived(b"meter batch salt 1"), batch_id.bytes, "sha256")
    digest = hashlib.sha256(salt + position.to_bytes(4, "big") + encoded(message)).digest()
    mac = hmac.digest(
        derived(b"meter batch signature 1"), encoded([1, batch["id"], batch["first"], batch["last"], digests]), "sha256"
    )
    return digests[32 * position :][:32] == digest and mac == base64.b64decode(batch["mac"])


def test_without_a_database_or_a_key_verifying_says_so(house, tmp_path):
    house.store = "postgresql://meter@127.0.0.1:1/meter"
    away = house.daemon("meter-collector", OLD, base=WITHOUT_KEY)
    meter_verify(away, status=2)
    meter_verify(house.daemon("meter-collector", base=WITHOUT_KEY), status=3)
    meter_verify(away, "--from", "yesterday", status=3)
