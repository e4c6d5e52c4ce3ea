"""Slow queries: they are stopped at the statement timeout, and do not block other requests."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from collections.abc import Iterator
from contextlib import asynccontextmanager
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from meter.api import Api
from meter.api import make_site
from meter.query import SampleFilter
from meter.store import PostgresStore
from tests.api_client import SAMPLES
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.api_client import message
from tests.waiting import until

A_DAY = 86_400.0
PATTERN = "^(a+)+$"
LOCKED = {"resource_id": "resource", "metadata.name": "metadata"}
"""The table that a query by a field waits for while another session has locked it."""


@asynccontextmanager
async def filled(dsn: str, **settings: Any) -> AsyncIterator[PostgresStore]:
    """A store with a few samples."""
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, writers=1, **settings)
    store.startService()
    # A connection that is made later empties the caches that keep other requests away from the locked table.
    while not store.readiness().ready or store._readers.generation < settings["readers"]:
        await deferLater(reactor, 0.05)
    await store.write(
        [*SAMPLES, message(4, message_id="s4", resource_id="a" * 101, resource_metadata={"name": "a" * 101})]
    )
    await store.samples(SampleFilter(), 10)  # caches what the other requests need
    yield store
    await store.stopService()


@contextmanager
def locked(dsn: str, field: str) -> Iterator[None]:
    """Make queries by ``field`` take as long as they may."""
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {LOCKED[field]} IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        connection.close()


def body_matching(field: str) -> bytes:
    """Return the body of a complex query that matches the pattern against ``field``."""
    return msgspec.json.encode({"filter": msgspec.json.encode({"=~": {field: PATTERN}}).decode()})


def matching(api: ApiClient, field: str) -> Deferred[Response]:
    """Send a complex query that matches the pattern against ``field``."""
    headers = {"Content-Type": "application/json"}
    return api.pending("/v2/query/samples", method="POST", body=body_matching(field), headers=headers)


async def received(api: ApiClient, pending: Deferred[Response]) -> Response:
    """Return the response to a request sent with ``api.pending``."""
    while not pending.called:
        await deferLater(reactor, 0.005)
        api.flush()
    return await pending


def searching(postgresql: Any) -> list[int]:
    """Return the process ids of the backends that run a query."""
    found = postgresql.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'meter readers' AND state = 'active'"
    )
    return [process for (process,) in found]


def end_search(postgresql: Any) -> None:
    """Cancel the running query, as the statement timeout would."""
    [process] = searching(postgresql)
    postgresql.execute(f"SELECT pg_cancel_backend({process})")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("field", ["resource_id", "metadata.name"])
async def test_slow_query_is_stopped(postgresql: Any, field: str) -> None:
    dsn = postgresql.dsn_with_schema()
    async with filled(dsn, readers=2, statement_timeout_seconds=1.0) as store:
        stored = ApiClient(store=store)
        with locked(dsn, field):
            rejected = await received(stored, matching(stored, field))
        assert rejected.status == 400
        assert rejected.faultstring.startswith("the query took longer than 1 s")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("field", ["resource_id", "metadata.name"])
async def test_other_requests_are_served_during_a_slow_query(postgresql: Any, field: str) -> None:
    dsn = postgresql.dsn_with_schema()
    async with filled(dsn, readers=2, statement_timeout_seconds=A_DAY) as store:
        stored = ApiClient(store=store)
        with locked(dsn, field):
            slow = matching(stored, field)
            for _ in range(5):
                other = await received(stored, stored.pending("/v2/samples"))
                assert (other.status, len(other.json)) == (200, 5)
            assert not slow.called
            end_search(postgresql)
            assert (await received(stored, slow)).status == 400

        # Both connections are still usable.
        again = [stored.pending("/v2/samples") for _ in range(2)]
        assert [(await received(stored, each)).status for each in again] == [200, 200]


@pytest_twisted.ensureDeferred
async def test_query_waits_a_limited_time_for_a_connection(postgresql: Any) -> None:
    dsn = postgresql.dsn_with_schema()
    async with filled(dsn, readers=1, statement_timeout_seconds=A_DAY, max_wait_seconds=0.3) as store:
        api = ApiClient(store=store)
        with locked(dsn, "resource_id"):
            slow = matching(api, "resource_id")
            api.flush()
            rejected = await received(api, api.pending("/v2/samples"))
            assert (rejected.status, rejected.headers["retry-after"]) == (503, "5")
            assert not slow.called
            end_search(postgresql)
            assert (await received(api, slow)).status == 400
        assert (await received(api, api.pending("/v2/samples"))).status == 200


@pytest_twisted.ensureDeferred
async def test_slow_query_is_cancelled_in_postgresql_when_the_client_disconnects(postgresql: Any) -> None:
    dsn = postgresql.dsn_with_schema()
    async with filled(dsn, readers=1, statement_timeout_seconds=A_DAY) as store:
        port: Any = reactor.listenTCP(0, make_site(Api(store, reactor), reactor), interface="127.0.0.1")  # type: ignore[attr-defined]
        body = body_matching("resource_id")
        request = b"POST /v2/query/samples HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        with locked(dsn, "resource_id"):
            client = socket.create_connection(("127.0.0.1", port.getHost().port))
            client.sendall(request % (len(body), body))
            await until(lambda: searching(postgresql))
            client.close()
            await until(lambda: not searching(postgresql))
        assert len(await store.samples(SampleFilter(), 10)) == 5
        await port.stopListening()
