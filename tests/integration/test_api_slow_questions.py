"""A question that takes the database for ever is stopped, told so, and keeps nobody else waiting."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from meter.api import Api
from meter.api import site
from meter.query import SampleFilter
from meter.store import PostgresStore
from tests.asking import SAMPLES
from tests.asking import Answer
from tests.asking import Asking
from tests.asking import message
from tests.waiting import until

A_DAY = 86_400.0
BACKTRACKING = r"^((a+)\2)+$"
"""Has PostgreSQL try every way to divide a text of an odd number of letters into even parts: of a hundred, for years."""


@asynccontextmanager
async def filled(postgresql: Any, **settings: Any) -> AsyncIterator[PostgresStore]:
    """A store that holds what the pattern backtracks in."""
    store = PostgresStore(reactor, postgresql.dsn(), clock=reactor, migrate=True, writers=1, **settings)
    store.startService()
    while not store.readiness().ready:
        await deferLater(reactor, 0.05)
    await store.write(
        [*SAMPLES, message(4, message_id="s4", resource_id="a" * 101, resource_metadata={"name": "a" * 101})]
    )
    yield store
    await store.stopService()


def body_matching(field: str) -> bytes:
    """Return a complex query for what matches the pattern in ``field``."""
    return msgspec.json.encode({"filter": msgspec.json.encode({"=~": {field: BACKTRACKING}}).decode()})


def matching(asking: Asking, field: str) -> Deferred[Answer]:
    """Ask for what matches the pattern in ``field``."""
    headers = {"Content-Type": "application/json"}
    return asking.pending("/v2/query/samples", method="POST", body=body_matching(field), headers=headers)


async def answered(asking: Asking, answer: Deferred[Answer]) -> Answer:
    while not answer.called:
        await deferLater(reactor, 0.005)
        asking.flush()
    return await answer


def searching(postgresql: Any) -> list[int]:
    """Return the processes of the server that look for an answer to a question."""
    found = postgresql.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'meter readers' AND state = 'active'"
    )
    return [process for (process,) in found]


def end_search(postgresql: Any) -> None:
    """Stop the question that is under way as the limit of a statement would."""
    [process] = searching(postgresql)
    postgresql.execute(f"SELECT pg_cancel_backend({process})")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("field", ["resource_id", "metadata.name"])
async def test_a_pattern_that_backtracks_is_stopped(postgresql: Any, field: str) -> None:
    async with filled(postgresql, readers=2, statement_timeout_seconds=1.0) as store:
        stored = Asking(store=store)
        refused = await answered(stored, matching(stored, field))
        assert refused.status == 400
        assert refused.fault.startswith("the query took longer than 1 s")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("field", ["resource_id", "metadata.name"])
async def test_others_are_answered_while_a_pattern_backtracks(postgresql: Any, field: str) -> None:
    async with filled(postgresql, readers=2, statement_timeout_seconds=A_DAY) as store:
        stored = Asking(store=store)
        slow = matching(stored, field)
        for _ in range(5):
            other = await answered(stored, stored.pending("/v2/samples"))
            assert (other.status, len(other.json)) == (200, 5)
        assert not slow.called
        end_search(postgresql)
        assert (await answered(stored, slow)).status == 400

        # Both connections are as good as before.
        again = [stored.pending("/v2/samples") for _ in range(2)]
        assert [(await answered(stored, each)).status for each in again] == [200, 200]


@pytest_twisted.ensureDeferred
async def test_while_all_connections_are_busy_a_question_waits_so_long_only(postgresql: Any) -> None:
    async with filled(postgresql, readers=1, statement_timeout_seconds=A_DAY, longest_wait_seconds=0.3) as store:
        asking = Asking(store=store)
        slow = matching(asking, "resource_id")
        asking.flush()
        refused = await answered(asking, asking.pending("/v2/samples"))
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert "all 1 connections of the store readers have been busy for 0.3 s" in refused.fault
        assert not slow.called
        end_search(postgresql)
        assert (await answered(asking, slow)).status == 400
        assert (await answered(asking, asking.pending("/v2/samples"))).status == 200


@pytest_twisted.ensureDeferred
async def test_postgresql_is_told_when_the_client_of_a_slow_question_hangs_up(postgresql: Any) -> None:
    async with filled(postgresql, readers=1, statement_timeout_seconds=A_DAY) as store:
        port: Any = reactor.listenTCP(0, site(Api(store, reactor), reactor), interface="127.0.0.1")  # type: ignore[attr-defined]
        body = body_matching("resource_id")
        request = b"POST /v2/query/samples HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        client.sendall(request % (len(body), body))
        await until(lambda: searching(postgresql))
        client.close()
        await until(lambda: not searching(postgresql))
        assert len(await store.samples(SampleFilter(), 10)) == 5
        await port.stopListening()
