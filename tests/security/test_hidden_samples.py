"""Somebody who can write to the database, without a signing key, hides no samples by moving them to the voided ones."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue

from meter.sample import Sample
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from meter.store.maintenance import voiding
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import running
from tests.signed import received_together

KEYS = Keyring([SigningKey("default", b"k")])
MESSAGES = received_together(
    [
        Sample(
            name="cpu",
            type="gauge",
            unit="ns",
            volume=n,
            resource_id="vm",
            project_id="p",
            timestamp=START + n * timedelta(minutes=1),
        )
        for n in range(8)
    ],
    KEYS,
)
IDS = [message.message_id for message in MESSAGES]
HIDE = """
WITH moved AS (DELETE FROM sample WHERE message_id = '{id}' RETURNING *)
INSERT INTO voided_sample SELECT moved.*, now(), 'alice', 'r', {entry} FROM moved
"""


@pytest_twisted.async_yield_fixture
async def database(postgresql, tmp_path):
    """A database with the messages, three of them voided under entry 1; entry 2 is a note."""
    dsn = postgresql.dsn_with_schema()
    file = tmp_path / "meter.toml"
    file.write_text(f'[store]\ndsn = "{dsn}"\n[signing]\nkey = "k"\n')

    async def command(name, *arguments):
        out, errors, status = await getProcessOutputAndValue(
            sys.executable,
            ["-c", f"from meter.commands.{name} import main; main()", "--config", str(file), *arguments],
            env=os.environ,
            reactor=reactor,
        )
        assert not errors
        return status, [json.loads(line) for line in out.decode().splitlines() if line.startswith("{")]

    async def verify(*arguments):
        status, [*found, counts] = await command("verify", "--json", *arguments)
        assert status == bool(found)
        return found, counts

    async def audit():
        _, [report] = await command("audit", "verify", "--json")
        return report["problems"]

    command.execute = lambda statement: postgresql.execute(statement, dsn)
    command.verify, command.audit = verify, audit
    async with running(dsn) as store:
        await store.write(MESSAGES)
        await command("db", "void", "--json", "--reason", "r", *IDS[:3])
        await command("audit", "note", "nothing")
        yield command


@pytest_twisted.ensureDeferred
async def test_voided_samples_that_the_log_explains_are_counted(database):
    found, counts = await database.verify()
    assert (found, counts["voided"], counts["verified"], counts["batches"]) == ([], 3, 5, 1)
    await database("db", "unvoid", "--json", "--reason", "r", IDS[1])
    found, counts = await database.verify()
    assert (found, counts["voided"], counts["verified"]) == ([], 2, 6)
    await database("db", "unvoid", "--json", "--reason", "r", "--entry", "1")
    await database("db", "void", "--json", "--reason", "r", "--meter", "cpu")
    found, counts = await database.verify()
    assert (found, counts["voided"], counts["verified"], await database.audit()) == ([], 8, 0, [])


@pytest.mark.parametrize(
    ("entry", "row", "whole"),
    [
        (
            1,
            "audit entry 1, which the voided sample names, did not void it",
            "explains 3 voided samples, and 4 name it",
        ),
        (2, "audit entry 2, which is missing, or is not of the action void", "1 voided samples name audit entry 2"),
        (9, "audit entry 9, which is missing, or is not of the action void", "1 voided samples name audit entry 9"),
        (0, "without an entry of the audit log", "1 voided samples name no audit entry"),
        (-1, "voided under audit entry -1, which is missing", "1 voided samples name no audit entry"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_sample_hidden_under_any_entry_is_found(database, entry, row, whole):
    database.execute(HIDE.format(id=IDS[5], entry=entry))
    [in_all, of_row], counts = await database.verify()
    assert (whole in in_all["reason"], in_all["message_id"]) == (True, None)
    assert (row in of_row["reason"], of_row["message_id"], of_row["state"]) == (True, IDS[5], "failed")
    assert (counts["voided"], counts["failed"], counts["verified"]) == (3, 1, 4)
    assert any(whole in each for each in await database.audit())
    found, _ = await database.verify("--to", "2020-01-01")
    assert [whole in each["reason"] for each in found] == [True]


@pytest_twisted.ensureDeferred
async def test_sample_exchanged_for_a_voided_one_is_found(database):
    database.execute(HIDE.format(id=IDS[5], entry=1))
    database.execute(f"DELETE FROM voided_sample WHERE message_id = '{IDS[0]}'")
    problems = await database.audit()
    assert problems == ["the 3 voided samples that name audit entry 1 are not those that it voided"]
    found, _ = await database.verify()
    assert [each["message_id"] for each in found if "did not void it" in each["reason"]] == [IDS[5]]


@pytest_twisted.ensureDeferred
async def test_sample_that_was_restored_and_is_hidden_again_is_found(database):
    await database("db", "unvoid", "--json", "--reason", "r", IDS[0])
    database.execute(HIDE.format(id=IDS[0], entry=1))
    assert await database.audit() == ["audit entry 1 explains 2 voided samples, and 3 name it"]
    found, _ = await database.verify()
    assert [each["message_id"] for each in found if "did not void it" in each["reason"]] == [IDS[0]]


@pytest_twisted.ensureDeferred
async def test_restoring_samples_explains_none_that_was_hidden(database):
    for id in IDS[5:7]:
        database.execute(HIDE.format(id=id, entry=1))
    await database("db", "unvoid", "--json", "--reason", "hidden", IDS[5])
    assert await database.audit() == ["audit entry 1 explains 3 voided samples, and 4 name it"]
    await database("db", "unvoid", "--json", "--reason", "hidden", IDS[6])
    assert await database.audit() == []
    assert (await database.verify())[0] == []


@pytest_twisted.ensureDeferred
async def test_altered_or_invented_entry_explains_nothing(database):
    database.execute("ALTER TABLE audit_entry DISABLE TRIGGER ALL")
    database.execute("UPDATE audit_entry SET reason = 'other' WHERE seq = 1")
    found, counts = await database.verify()
    assert counts["failed"] == 3
    assert all("audit entry 1, which was altered, or its signing key is missing" in each["reason"] for each in found)
    database.execute(
        "INSERT INTO audit_entry SELECT 3, at, who, action, reason, replace(details, '\"samples\":3', '\"samples\":1'), key_id,"
        " previous, hash FROM audit_entry WHERE seq = 1"
    )
    database.execute(HIDE.format(id=IDS[5], entry=3))
    found, _ = await database.verify()
    assert [each["message_id"] for each in found if "entry 3" in each["reason"]] == [None, IDS[5]]


@pytest_twisted.ensureDeferred
async def test_more_samples_than_an_entry_lists_are_explained_and_an_exchanged_one_is_found(database):
    database.execute(
        "INSERT INTO sample SELECT timestamp, recorded_at, gen_random_uuid(), volume, metadata_id, series_id, wire_format_id,"
        f" signature, verbatim_json FROM sample, generate_series(0, {voiding.MAX_LISTED_IDS}) WHERE message_id = '{IDS[7]}'"
    )
    await database("db", "void", "--json", "--reason", "flood", "--meter", "cpu")
    assert await database.audit() == []
    database.execute("DELETE FROM voided_sample WHERE ctid = (SELECT max(ctid) FROM voided_sample)")
    database.execute(
        "INSERT INTO voided_sample SELECT timestamp, recorded_at, gen_random_uuid(), volume, metadata_id, series_id,"
        " wire_format_id, signature, verbatim_json, batch_id, batch_position, voided_at, voided_by, reason, audit_seq"
        " FROM voided_sample WHERE audit_seq = 3 LIMIT 1"
    )
    [problem] = await database.audit()
    assert problem.endswith("voided samples that name audit entry 3 are not those that it voided")


@pytest_twisted.ensureDeferred
async def test_voided_sample_that_was_altered_or_deleted_is_found(database):
    database.execute(f"UPDATE voided_sample SET volume = 99 WHERE message_id = '{IDS[1]}'")
    [found], counts = await database.verify()
    assert (found["message_id"], "altered" in found["reason"], counts["voided"]) == (IDS[1], True, 2)
    database.execute(f"DELETE FROM voided_sample WHERE message_id = '{IDS[1]}'")
    found, counts = await database.verify()
    assert {each["state"] for each in found} == {"failed", "missing"}
    assert await database.audit() == ["audit entry 1 explains 3 voided samples, and 2 name it"]
    database.execute(f"INSERT INTO retention_cutoff VALUES ('', '{START + timedelta(hours=1)}')")
    assert (await database.verify())[0] == []
