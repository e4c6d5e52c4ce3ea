"""``meter-verify``: results for rows, reports, and options."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC
from datetime import datetime

import pytest
import pytest_twisted
from msgspec import structs
from twisted.python import usage

from meter.commands.verify import Options
from meter.commands.verify import verdict
from meter.commands.verify import verify_rows
from meter.signing_keys import keyring
from meter.store import StoredRow
from meter.store.write.record import record_of
from tests.store_messages import KEYS
from tests.store_messages import message

SENT = message("cpu", 5, message_id="00000000-0000-4000-8000-000000000001")
RECORD = record_of(SENT)
ROW = StoredRow(
    message_id=SENT.message_id,
    timestamp=SENT.timestamp,
    meter="cpu",
    resource_id="r1",
    key_id=SENT.key_id,
    fields=SENT.fields,
    damage=None,
    record=RECORD,
)


async def rows(*given):
    for each in given:
        yield each


def result_of(row, **more):
    return verdict(row, KEYS, accept_unsigned=True)


def test_unchanged_row_is_verified():
    assert (result_of(ROW).state, result_of(ROW).key_id) == ("verified", "key-1")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (replace(ROW, fields=SENT.fields | {"counter_volume": 6}), "the signature does not match"),
        (replace(ROW, fields=SENT.fields | {"timestamp": "never"}), "timestamp must be a time"),
        (replace(ROW, fields=None, damage="no message can be restored"), "no message can be restored"),
        (replace(ROW, damage="the metadata that queries read differ"), "the metadata that queries read"),
        (replace(ROW, record=structs.replace(RECORD, volume=6.0)), "differs from the column volume"),
        (replace(ROW, timestamp=datetime(2026, 1, 1, tzinfo=UTC)), "differs from the column timestamp"),
    ],
)
def test_changed_row_fails_with_a_reason(row, reason):
    found = result_of(row)
    assert found.state == "failed"
    assert reason in found.reason


def test_metadata_in_another_notation_are_equal():
    sent = message("cpu", 5, metadata={"a": 1e22})
    record = structs.replace(record_of(sent), metadata='{"a": 1e+22}')
    row = replace(ROW, message_id=sent.message_id, fields=sent.fields, record=record)
    assert result_of(row).state == "verified"


@pytest_twisted.ensureDeferred
async def test_failed_rows_are_reported_and_all_rows_counted(capsys):
    bad = replace(ROW, resource_id="a\nb\x1b[2J", fields=SENT.fields | {"counter_volume": 6})
    tally = await verify_rows(rows(ROW, bad, ROW), KEYS, accept_unsigned=False, as_json=False)
    assert (tally.states, tally.reported) == ({"verified": 2, "unsigned": 0, "failed": 1}, 1)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"FAILED    {SENT.message_id}  cpu  a b\\x1b[2J  2026-11-18T12:00:00  the signature")

    await verify_rows(rows(bad), keyring(["other"]), accept_unsigned=False, as_json=True)
    assert json.loads(capsys.readouterr().out)["state"] == "failed"


@pytest.mark.parametrize("words", [["--from", "yesterday"], ["--to", "2026-13-01"], ["--limit", "5"], ["extra"]])
def test_invalid_command_line_is_refused(words):
    with pytest.raises(usage.UsageError):
        Options().parseOptions(words)


def test_times_without_an_offset_are_utc():
    options = Options()
    options.parseOptions(["--from", "2026-11-22", "--to", "2026-11-22T12:00:00+02:00"])
    assert options["from"] == datetime(2026, 11, 22, tzinfo=UTC)
    assert options["to"] == datetime(2026, 11, 22, 10, tzinfo=UTC)
