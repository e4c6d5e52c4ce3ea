"""Signing keys with real daemons: rotation without a gap, keys that end, unsigned samples, and verifying what is stored."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from datetime import UTC
from datetime import datetime
from pathlib import Path

import pytest_twisted

from meter.bus.batches import batch_publications
from meter.outgoing import sign
from meter.query import SampleFilter
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.store import PostgresStore
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


def body(one, keys, key_id=None):
    [publication] = batch_publications([sign(one, keys, "test")], key_id)
    return {"exchange": "metering", "routing_key": publication.routing_key, "body": publication.body.decode()}


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
    assert "key 2025, which does not cover" in rows[0]["reason"]


@pytest_twisted.ensureDeferred
async def test_a_key_that_has_ended_signs_nothing_measured_later_and_proves_what_was_measured_before(furnished):
    collector = furnished.daemon("meter-collector", NEW + ENDED, base=WITHOUT_KEY).start().until_ready()
    keys = Keyring([OLD_KEY])
    before = sample(1, timestamp=datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC))
    later = sample(2, timestamp=datetime(2026, 1, 1, tzinfo=UTC))

    publish(furnished.bus, [body(before, keys, "2025"), body(later, keys, "2025")])
    until(lambda: collector.metric(STORED) == 1 and collector.metric(DEAD) == 1, "one stored, one dead")

    [stored] = await stored_samples(furnished.store)
    assert (stored.volume, stored.key_id) == (1, "2025")
    assert meter_verify(collector) == ([], {"verified": 1, "unsigned": 0, "failed": 0, "by_key": {"2025": 1}})


@pytest_twisted.ensureDeferred
async def test_unsigned_samples_are_stored_only_where_the_configuration_says_so(furnished):
    unsigned = body(sample(1), Keyring([OLD_KEY]))
    content = json.loads(json.loads(unsigned["body"])["oslo.message"])
    content["args"]["data"][0].pop("message_signature")
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
    assert meter_verify(lenient) == ([], {"verified": 0, "unsigned": 1, "failed": 0, "by_key": {}})
    [row], counts = meter_verify(strict, status=1)
    assert (row["state"], row["message_id"], counts["unsigned"]) == ("unsigned", str(uuid.UUID(int=1)), 1)


def test_rows_that_somebody_changed_are_named(furnished, postgresql):
    collector = furnished.daemon("meter-collector", OLD, base=WITHOUT_KEY).start().until_ready()
    samples = [
        sample(n, resource_metadata={"state": f"s{n}"}, timestamp=datetime(2026, 11, n, tzinfo=UTC))
        for n in range(1, 10)
    ]
    publish(furnished.bus, [body(each, Keyring([OLD_KEY]), "2025") for each in samples])
    until(lambda: collector.metric(STORED) == 9, "the samples")
    collector.stop()
    assert meter_verify(collector)[1]["verified"] == 9

    for statement in (
        "UPDATE sample SET volume = 100 WHERE volume = 2",
        "UPDATE sample SET timestamp = timestamp + interval '1 hour' WHERE volume = 4",
        "UPDATE metadata SET text = replace(text, 's6', 's7') WHERE text LIKE '%s6%'",
    ):
        postgresql.execute(statement, furnished.store)

    rows, counts = meter_verify(collector, status=1)
    assert [(each["message_id"], each["timestamp"]) for each in rows] == [
        (str(uuid.UUID(int=2)), "2026-11-02T00:00:00"),
        (str(uuid.UUID(int=4)), "2026-11-04T01:00:00"),
        (str(uuid.UUID(int=6)), "2026-11-06T00:00:00"),
    ]
    assert {(each["meter"], each["resource_id"]) for each in rows} == {("lamp.power", "lamp")}
    assert counts == {"verified": 6, "unsigned": 0, "failed": 3, "by_key": {"2025": 6}}
    assert meter_verify(collector, "--from", "2026-11-05", "--to", "2026-11-06")[1]["verified"] == 1
    assert meter_verify(collector, "--meter", "other")[1]["verified"] == 0
    text = subprocess.run(
        [METER_VERIFY, "-c", str(collector.config_file)], capture_output=True, text=True, timeout=180, check=False
    ).stdout
    assert f"FAILED    {uuid.UUID(int=2)}  lamp.power  lamp  2026-11-02T00:00:00  the signature does not match" in text
    assert "6 verified, 0 unsigned, 3 failed" in text


def test_without_a_database_or_a_key_verifying_says_so(house, tmp_path):
    house.store = "postgresql://meter@127.0.0.1:1/meter"
    away = house.daemon("meter-collector", OLD, base=WITHOUT_KEY)
    meter_verify(away, status=2)
    meter_verify(house.daemon("meter-collector", base=WITHOUT_KEY), status=3)
    meter_verify(away, "--from", "yesterday", status=3)
