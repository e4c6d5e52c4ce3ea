"""An archive server that is away, or has lost its samples, does not tell a tenant which ids are those of samples of others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.archive_unavailable import ArchiveUnavailable
from meter.archive_unavailable import SamplesLost
from meter.query import Comparison
from meter.query import Order
from meter.query import SampleFilter
from tests.archived import add_server
from tests.archived import archive_all
from tests.integration.test_archive_lost import NEXT_WEEK
from tests.integration.test_archive_lost import recorded_as_lost
from tests.integration.test_db_archive import in_process
from tests.integration.test_store_packing import NOW
from tests.integration.test_store_packing import OLD
from tests.integration.test_store_packing import varied
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking

RECORDED = Comparison("recorded_at", ">=", OLD)

pytestmark = pytest.mark.timeout(120)


@pytest_twisted.ensureDeferred
async def test_id_of_another_project_is_answered_as_one_that_nobody_has(
    postgresql: Any, archive_postgresql: Any, tmp_path: Any, capsys: Any
) -> None:
    dsn = postgresql.dsn_with_schema()
    add_server(dsn, archive_postgresql.dsn())
    stored = varied(300, project_id="theirs")
    async with running(dsn, readers=1) as store:
        await store.write(stored)
        await store.maintenance.finalize(NOW)
        await deferToThread(pack_all_blocking, dsn)
        await deferToThread(archive_all, dsn, before=NEXT_WEEK)
        id_ = stored[107].message_id
        mine, theirs = (SampleFilter(equals={"project_id": project}) for project in ("mine", "theirs"))
        found = await store.sample(id_, theirs)
        assert found is not None
        assert await store.sample(id_, mine) is None

        await deferToThread(archive_postgresql.stop)
        try:
            for lost in (False, True):
                if lost:
                    await recorded_as_lost(in_process(dsn, tmp_path / "meter.toml", capsys))
                assert await store.sample(id_, mine) is None
                assert await store.proof(id_, mine) is None
                assert await store.samples(replace(mine, expression=RECORDED), 10) == []
                assert await store.samples(mine, 10) == []
                assert await store.samples(mine, 10, [Order("timestamp")]) == []
                with pytest.raises(SamplesLost if lost else ArchiveUnavailable):
                    await store.sample(id_, theirs)
        finally:
            await deferToThread(archive_postgresql.start)
