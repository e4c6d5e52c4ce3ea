"""Questions as of a moment have one answer for ever, and followers hear of commits whatever happens to their connection."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from meter.interfaces import RequestError
from meter.query import SampleFilter
from meter.store.write.record import record_of
from tests.integration.test_store_rollups import running
from tests.store_messages import message
from tests.waiting import until


@pytest_twisted.ensureDeferred
async def test_a_question_as_of_a_moment_waits_for_what_is_being_written(postgresql):
    gate = Deferred()
    written = []
    async with running(postgresql.dsn()) as store:

        async def slowly(session):
            written.append(await store._sample_writer._store(session, [record_of(message())]))
            await gate

        writing = Deferred.fromCoroutine(store._writers.run(slowly))
        await until(lambda: written)
        asked = Deferred.fromCoroutine(store.samples(SampleFilter(as_of=datetime.now(UTC)), 10))
        seen = []
        asked.addCallback(seen.extend)
        await store.samples(SampleFilter(), 10)  # who asks for the present does not wait
        assert not asked.called

        gate.callback(None)
        await writing
        await asked
        assert len(seen) == 1


@pytest_twisted.ensureDeferred
async def test_what_will_be_recorded_is_not_known(postgresql):
    async with running(postgresql.dsn()) as store:
        with pytest.raises(RequestError, match="yet to come"):
            await store.samples(SampleFilter(as_of=datetime.now(UTC) + timedelta(hours=1)), 10)


@pytest_twisted.ensureDeferred
async def test_who_follows_is_told_when_the_connection_comes_back(postgresql):
    dsn = postgresql.dsn()
    heard = []
    async with running(dsn) as store, running(dsn, readers=0) as other:
        await until(lambda: store._commit_listener.ready)
        store.follow(lambda: heard.append(None))
        await other.write([message()])
        await until(lambda: len(heard) == 1)

        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'meter follower'",
            dsn,
        )
        await until(lambda: len(heard) == 2)
