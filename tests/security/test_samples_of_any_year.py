"""A sample of whatever year leaves pages and lists of others as they are: nothing fails, and every answer is that of the samples."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest_twisted
from twisted.internet import reactor

from meter.query import SampleFilter
from meter.store.query import newest_weeks
from meter.testing import MemoryStore
from tests.integration.test_store_newest_weeks import HOUR
from tests.integration.test_store_newest_weeks import MANY
from tests.integration.test_store_newest_weeks import NOW
from tests.integration.test_store_newest_weeks import WEEK
from tests.integration.test_store_newest_weeks import same_answers
from tests.integration.test_store_rollups import running
from tests.packed import pack_all_blocking
from tests.store_messages import message

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
EXTREME = (FIRST, FIRST + HOUR, datetime(1970, 1, 1, tzinfo=UTC), LAST - WEEK, LAST)


@pytest_twisted.ensureDeferred
async def test_answers_are_those_of_the_samples(postgresql, monkeypatch):
    monkeypatch.setattr(newest_weeks, "SPARED_WEEKS", 0)
    monkeypatch.setattr(newest_weeks, "KNOWN_SECONDS", 0.0)
    memory, dsn = MemoryStore(reactor), postgresql.dsn()
    async with running(dsn) as store:

        async def both(messages) -> None:
            for each in (store, memory):
                await each.write(messages)

        for n in range(12):
            await both([message("cpu", n, at=NOW - n * WEEK, resource_id="live", project_id="pa")])
        for at in EXTREME:
            await both([message("disk", 1, at=at, resource_id=name, project_id="pb") for name in ("ended", "live")])
        await same_answers(store, memory)
        await store.maintenance.finalize(NOW)
        await same_answers(store, memory)
        pack_all_blocking(dsn)
        await same_answers(store, memory)
        for at in EXTREME:
            filters = [
                SampleFilter(end=at),
                SampleFilter(start=at),
                SampleFilter(start=at, end=at + min(HOUR, LAST - at)),
            ]
            for filter in filters:
                for limit in (1, MANY):
                    answers = [[s.message_id for s in await each.samples(filter, limit)] for each in (store, memory)]
                    assert answers[0] == answers[1], filter
                    assert await store.resources(filter, limit) == await memory.resources(filter, limit), filter
        await both([message("disk", 2, at=FIRST + timedelta(minutes=1), resource_id="ended", project_id="pb")])
        await same_answers(store, memory)
