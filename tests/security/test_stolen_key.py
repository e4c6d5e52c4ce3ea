"""Samples of a stolen key are found by its id, and voided."""

from __future__ import annotations

from datetime import timedelta

import pytest_twisted
from twisted.internet import reactor

from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import signature
from meter.message import read
from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.store import Act
from meter.store import Administration
from meter.store import Selection
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import running
from tests.signed import received_together
from tests.store_messages import message

OURS = SigningKey("ours", b"ours")
STOLEN = SigningKey('stolen "é"', b"stolen", schemes=("meter", "ceilometer"))
KEYS = Keyring([OURS, STOLEN])


def batch(key, count):
    samples = [
        Sample(name="cpu", type="gauge", unit="ns", volume=n, resource_id="vm", timestamp=START + timedelta(minutes=n))
        for n in range(count)
    ]
    return received_together(samples, Keyring([key]))


def with_ceilometers_signature(key):
    fields = {**message("disk", 5, at=START).fields, "source": "openstack"}
    return read({**fields, SIGNATURE_FIELD: signature(fields, key.secret)}, KEYS)


@pytest_twisted.ensureDeferred
async def test_samples_of_a_stolen_key_are_counted_and_voided_and_no_others(postgresql):
    ours, stolen, alone = batch(OURS, 4), batch(STOLEN, 3), with_ceilometers_signature(STOLEN)
    assert (alone.key_id, alone.scheme) == (STOLEN.id, "ceilometer")
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await store.write([*ours, *stolen, alone])
        # A wire format that was altered hides nothing: the record of the batch names the key, too.
        postgresql.execute("UPDATE wire_format SET text = 'no JSON' WHERE text LIKE '%ours%'", dsn)
        administration = Administration(reactor, dsn, clock=reactor)
        await administration.open()
        try:
            who = {"who": "alice", "reason": "stolen", "keys": [OURS]}
            later = Selection(key_id=STOLEN.id, start=START + timedelta(minutes=1))
            counts = [
                (await administration.void(selection, Act(**who, dry_run=True))).samples
                for selection in (Selection(key_id=STOLEN.id), later, Selection(key_id=OURS.id), Selection(key_id="x"))
            ]
            assert counts == [4, 2, 4, 0]
            done = await administration.void(Selection(key_id=STOLEN.id), Act(**who))
            assert (done.samples, '"key_id":"stolen' in done.entry.details) == (4, True)
        finally:
            administration.close()
        ids = postgresql.execute("SELECT message_id::text FROM voided_sample", dsn)
        assert {id for [id] in ids} == {each.message_id for each in [*stolen, alone]}


def test_key_alone_selects_samples():
    assert Selection(key_id="stolen").names_samples
    assert not Selection(start=START).names_samples
