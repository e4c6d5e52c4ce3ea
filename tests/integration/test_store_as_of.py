"""Queries as of a time have one result for ever, and commit subscriptions survive a lost connection."""

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
async def test_query_as_of_a_time_waits_for_writers_in_progress(postgresql):
    gate = Deferred()
    written = []
    async with running(postgresql.dsn_with_schema()) as store:

        async def slowly(session):
            written.append(await store._sample_writer._store(session, [record_of(message())]))
            await gate

        writing = Deferred.fromCoroutine(store._writers.run(slowly))
        await until(lambda: written)
        querying = Deferred.fromCoroutine(store.samples(SampleFilter(as_of=datetime.now(UTC)), 10))
        found = []
        querying.addCallback(found.extend)
        await store.samples(SampleFilter(), 10)  # a query without as_of does not wait
        assert not querying.called

        gate.callback(None)
        await writing
        await querying
        assert len(found) == 1


@pytest_twisted.ensureDeferred
async def test_query_as_of_a_future_time_is_refused(postgresql):
    async with running(postgresql.dsn_with_schema()) as store:
        with pytest.raises(RequestError, match="is in the future"):
            await store.samples(SampleFilter(as_of=datetime.now(UTC) + timedelta(hours=1)), 10)


@pytest_twisted.ensureDeferred
async def test_subscriber_is_called_when_the_connection_is_restored(postgresql):
    dsn = postgresql.dsn_with_schema()
    calls = []
    async with running(dsn) as store, running(dsn, readers=0) as other:
        await until(lambda: store._commit_listener.ready)
        store.subscribe_to_commits(lambda: calls.append(None))
        await other.write([message()])
        await until(lambda: len(calls) == 1)

        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'meter commit listener'",
            dsn,
        )
        await until(lambda: len(calls) == 2)
