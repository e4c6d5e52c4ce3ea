"""The API hands closed statements out of PostgreSQL as it does out of memory, and ``meter-rate export`` writes the same."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

from meter.rating.exports.focus_check import focus_problems
from meter.rating.statements.annex import annex_line
from meter.store import PostgresStore
from tests.api_client import ApiClient
from tests.api_client import Response
from tests.closed_statements import annex_rows
from tests.closed_statements import close_both
from tests.closed_statements import shared_statement
from tests.statement_documents import signed
from tests.unit.api.auth.test_visibility import TOKENS
from tests.waiting import until

METER_RATE = Path(sys.executable).with_name("meter-rate")

SHARED = "/v2/statements/2026-11.acme"
PATHS = [
    "/v2/statements",
    "/v2/statements?project_id=blue&limit=1",
    "/v2/statements?period=2026-10",
    SHARED,
    f"{SHARED}?format=csv",
    f"{SHARED}?format=html",
    f"{SHARED}?format=focus",
    f"{SHARED}/annex",
    "/v2/statements/2026-11.b%252Fue",
    "/v2/statements/nothing",
]


@pytest_twisted.async_yield_fixture
async def dsn(postgresql: Any) -> AsyncIterator[str]:
    """A database with two closed statements. The annex has the hash that its statement names."""
    dsn = postgresql.dsn_with_schema()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, rating_connections=1)
    store.startService()
    await until(lambda: store.readiness().ready and store.rating.ready)
    await close_both(store)
    await store.stopService()
    yield dsn


async def response(api: ApiClient, who: str, path: str) -> Response:
    pending = api.pending(path, headers={"X-Auth-Token": f"{who}-token"})
    while not pending.called:
        await deferLater(reactor, 0.005)
        api.flush()
    return await pending


@pytest_twisted.ensureDeferred
async def test_both_stores_give_the_same_responses(dsn: str) -> None:
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, readers=1, writers=0)
    store.startService()
    await until(lambda: store.readiness().ready)
    in_memory = ApiClient(auth=TOKENS)
    await close_both(in_memory.store)
    stored = ApiClient(auth=TOKENS, store=store)
    try:
        for who in ("admin", "blue", "green"):
            for path in PATHS:
                ours, theirs = await response(stored, who, path), await response(in_memory, who, path)
                assert (who, path, ours.status, ours.body) == (who, path, theirs.status, theirs.body)
        assert (await response(stored, "admin", f"{SHARED}/annex")).body == b"".join(map(annex_line, annex_rows()))
    finally:
        await store.stopService()


@pytest_twisted.ensureDeferred
async def test_command_exports_a_stored_statement(dsn: str, tmp_path: Path) -> None:
    config = tmp_path / "meter.toml"
    config.write_text(f'[meter]\nstate_dir = "{tmp_path}"\n[store]\ndsn = "{dsn}"\n[signing]\nkey = "secret"\n')

    async def export(*words: str) -> bytes:
        arguments = ["--config", str(config), "export", *words]
        output, errors, code = await getProcessOutputAndValue(str(METER_RATE), arguments, os.environ)
        assert (code, errors) == (0, b"")
        return bytes(output)

    assert await export("2026-11.acme", "-f", "annex") == b"".join(map(annex_line, annex_rows()))
    document = tmp_path / "statement.json"
    await export("2026-11.acme", "-f", "json", "-o", str(document))
    table = (await export("2026-11.acme", "-f", "focus", "-a", "stored")).decode()
    assert focus_problems(io.StringIO(table, newline=""), shared_statement()) == []
    assert ",router-1," in table
    assert signed(shared_statement()).signature.encode() in document.read_bytes()
    assert await export(str(document)) == await export("2026-11.acme")
