"""Verification of packed rows: whatever is changed in them, or in the index of their ids, is found and named, and nothing stops it."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.commands import row_verifier
from meter.commands.range_verifier import RangeVerifier
from meter.commands.range_verifier import VerifiedRange
from meter.commands.row_verifier import RowVerifier
from meter.commands.verify import _json_line
from meter.commands.verify import _line
from meter.sample_identity import week_of
from meter.store import Verification
from meter.store.packing.packed_rows import ARRAYS
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_rollups import running
from tests.packing import pack_all
from tests.store_messages import KEYS
from tests.store_messages import message

WEEK = str(week_of(OLD))
LATE = message("late", at=OLD, resource_id="r1")

NOT_WHOLE = "row 0: an array is missing, has not exactly 6 elements, or has one without a value"
NOT_BOUNDED = "row 0: its number of samples, their first and last times or their order are not those of its arrays"
REPEATED = "row 1: it has samples that the row before it has, too, or is not in order after it"

DAMAGE = {
    **{
        f"{array}[2] = NULL": NOT_WHOLE
        for array in ("time_offsets", "recorded_times", "message_ids", "volumes", "metadata_ids")
    },
    "batch_ids[2] = NULL": NOT_WHOLE,
    "wire_format_ids[2] = NULL": NOT_WHOLE,
    "volumes = volumes[:5]": NOT_WHOLE,
    "message_ids = message_ids || message_ids[:1]": NOT_WHOLE,
    "time_offsets = NULL": NOT_WHOLE,
    "recorded_times = NULL": NOT_WHOLE,
    "signatures_left = message_ids": NOT_WHOLE,
    "count = 5": NOT_WHOLE.replace("6", "5"),
    ", ".join(f"{array} = {array}[:5]" for array in ARRAYS): NOT_WHOLE,
    "first = first + interval '1 second'": NOT_BOUNDED,
    "last = last - interval '1 second'": NOT_BOUNDED,
    "last_recorded = first": NOT_BOUNDED,
    "step = step + 1": NOT_BOUNDED,
    "least_offset = least_offset - 1": NOT_BOUNDED,
    "greatest_offset = greatest_offset + 1": NOT_BOUNDED,
    "time_offsets[2] = time_offsets[2] + 2000000000": NOT_BOUNDED,
    "message_ids[2] = gen_random_uuid()": "1 ids are not in packed_message_id",
    "step = 9223372036854775807": "it cannot be read",
}
"""Changes of a packed row, and what is said of them."""


@pytest.fixture
def damaged(postgresql, monkeypatch):
    """Returns what verification says of packed samples, once ``statement`` has changed them, and undoes that."""

    monkeypatch.setattr(row_verifier, "BATCH_WRITING_SECONDS", 0.0)

    async def damaged(dsn, statement, meter=None):
        tables = ("packed_samples", "packed_week", "packed_message_id")
        for table in tables:
            postgresql.execute(
                f"CREATE TABLE kept_{table} AS SELECT * FROM {table}; {statement * (table == tables[-1])}", dsn
            )
        verification = Verification(reactor, dsn, clock=reactor)
        await verification.open()
        try:
            rows = RowVerifier(verification, KEYS, reactor, accept_unsigned=False)
            findings = RangeVerifier(verification, rows, VerifiedRange(OLD, OLD + timedelta(days=1), meter)).findings()
            found = [each async for page in findings for each in page]
        finally:
            verification.close()
            for table in tables:
                postgresql.execute(
                    f"DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}; DROP TABLE kept_{table}", dsn
                )
        for each in found:
            assert _line(*each)
            assert json.loads(_json_line(*each))
        return [verdict.reason for row, verdict in found if row is None], [verdict.state for _, verdict in found]

    return damaged


@pytest_twisted.ensureDeferred
async def test_damage_of_a_packed_row_is_named(postgresql, damaged):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await store.write([message(at=OLD + timedelta(seconds=n), resource_id=f"r{n % 2}") for n in range(12)])
        await pack_all(dsn)
    assert await damaged(dsn, "") == ([], ["verified"] * 12)
    [[series]] = postgresql.execute("SELECT min(series_id) FROM packed_samples", dsn)
    of_row = f"packed week {WEEK}, meter cpu, resource r0, series {series}, "

    for change, said in DAMAGE.items():
        reasons, states = await damaged(dsn, f"UPDATE packed_samples SET {change} WHERE series_id = {series}")
        assert [reason for reason in reasons if reason.startswith(of_row + said)], (change, reasons)
        assert "failed" in states
        unreadable = any(reason.startswith("not all samples of the range can be read") for reason in reasons)
        assert unreadable == (said == "it cannot be read"), change
        assert unreadable or states.count("verified") >= 6, change  # those of the other row

    doubled = (
        "CREATE TABLE doubled AS SELECT * FROM packed_samples; UPDATE doubled SET part = 1;"
        f"INSERT INTO packed_samples SELECT * FROM doubled WHERE series_id = {series}; DROP TABLE doubled"
    )
    assert (await damaged(dsn, doubled))[0] == [of_row + REPEATED]
    reasons, _ = await damaged(dsn, "DELETE FROM packed_message_id")
    assert reasons == [
        f"packed week {WEEK}, meter cpu, resource r{n}, series {series + n}, 6 ids are not in packed_message_id"
        for n in (0, 1)
    ]
    lost = [f"packed week {WEEK}: packed_week has no row of it, so its ids are not found"]
    assert (await damaged(dsn, "DELETE FROM packed_week"))[0] == lost
    assert (await damaged(dsn, f"UPDATE packed_samples SET count = 5 WHERE series_id = {series}", "disk"))[0] == []
