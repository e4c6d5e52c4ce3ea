"""Whoever can write to an archive server can make answers wrong, but not unnoticed: ``meter-verify`` reads archived samples there."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from meter.commands import row_verifier
from meter.commands.range_verifier import RangeVerifier
from meter.commands.range_verifier import VerifiedRange
from meter.commands.row_verifier import RowVerifier
from meter.store import Verification
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.store_messages import KEYS
from tests.store_messages import message

ROWS = "UPDATE meter_archive.packed_samples SET {change} WHERE series_id = (SELECT min(series_id) FROM meter_archive.packed_samples)"

ALTERATIONS = [
    "volumes[7] = 0",
    "volumes[7] = volumes[8], volumes[8] = volumes[7]",
    "time_offsets[7] = time_offsets[7] + 1",
    "message_ids[7] = gen_random_uuid()",
    "metadata_ids[7] = metadata_ids[7] + 1",
]


@pytest.mark.timeout(120)
@pytest_twisted.ensureDeferred
async def test_altered_samples_on_an_archive_server_are_found(
    postgresql: Any, archive_postgresql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_verifier, "BATCH_WRITING_SECONDS", 0.0)
    dsn, archive_dsn = postgresql.dsn_with_schema(), archive_postgresql.dsn()
    add_server(dsn, archive_dsn)
    stored = [
        message(at=OLD + timedelta(seconds=n), resource_id=f"r{n % 2}", volume=n, metadata={"n": n % 3})
        for n in range(40)
    ]
    async with running(dsn) as store:
        await store.write(stored)
    await deferToThread(pack_all_blocking, dsn)
    assert await deferToThread(archive_all, dsn) == 40

    async def verdicts() -> list[tuple[bool, str]]:
        verification = Verification(reactor, dsn, clock=reactor)
        await verification.open()
        try:
            rows = RowVerifier(verification, KEYS, reactor, accept_unsigned=False)
            verifier = RangeVerifier(verification, rows, VerifiedRange(OLD, OLD + timedelta(days=1), None))
            return [(row is None, verdict.state) async for page in verifier.findings() for row, verdict in page]
        finally:
            verification.close()

    assert await verdicts() == [(False, "verified")] * 40
    archive_postgresql.execute("CREATE TABLE kept AS SELECT * FROM meter_archive.packed_samples", archive_dsn)
    for change in ALTERATIONS:
        archive_postgresql.execute(ROWS.format(change=change), archive_dsn)
        states = [state for _, state in await verdicts()]
        assert "failed" in states, change
        archive_postgresql.execute(
            "DELETE FROM meter_archive.packed_samples; INSERT INTO meter_archive.packed_samples SELECT * FROM kept",
            archive_dsn,
        )
    assert await verdicts() == [(False, "verified")] * 40
