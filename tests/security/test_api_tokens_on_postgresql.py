"""Tokens that ``meter-token`` makes: the database has no token, and a revocation takes effect without a restart."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from meter.api import StaticTokens
from meter.api import StoredTokens
from meter.api_token import digest_of
from meter.api_token import id_of
from meter.commands.command import EXIT_USAGE
from meter.commands.command import UNAVAILABLE
from meter.commands.command import CommandError
from meter.commands.tokens import Options
from meter.commands.tokens import work
from meter.interfaces import Unavailable
from meter.store import PostgresStore
from tests.api_client import SAMPLES
from tests.api_client import ApiClient
from tests.waiting import until


class Database:
    """A database with the schema, and the command on it."""

    def __init__(self, server: Any, directory: Any) -> None:
        self.server = server
        self.dsn = server.dsn()
        self._config = directory / "meter.toml"
        self.configure(f'[store]\ndsn = "{self.dsn}"\n[signing]\nkey = "k"\n[api.auth]\nmode = "tokens"\n')

    def configure(self, text: str) -> None:
        self._config.write_text(text)

    async def meter_token(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit status, output and errors of the command."""
        options = Options()
        options.parseOptions(["--config", str(self._config), *arguments])
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                status = await work(reactor, options)
            except CommandError as error:
                return EXIT_USAGE, out.getvalue(), str(error)
            except Unavailable as error:
                return UNAVAILABLE, out.getvalue(), str(error)
        return status, out.getvalue(), errors.getvalue()

    async def report(self, command: str, *arguments: str) -> Any:
        status, out, errors = await self.meter_token(command, "--json", *arguments)
        assert (status, errors) == (0, "")
        return json.loads(out)


@pytest_twisted.async_yield_fixture
async def database(postgresql: Any, tmp_path: Any) -> AsyncIterator[Database]:
    found = Database(postgresql, tmp_path)
    store = PostgresStore(reactor, found.dsn, clock=reactor, migrate=True, readers=1, writers=1, reads_tokens=True)
    store.startService()
    await until(lambda: store.readiness().ready and store.tokens.ready)
    await store.write(SAMPLES)
    found.store = store  # type: ignore[attr-defined]
    yield found
    await store.stopService()


@pytest.fixture
def api(database: Any) -> ApiClient:
    """An API that reads the tokens only when it is notified of a change."""
    auth = StoredTokens(database.store.tokens, StaticTokens([]), reactor, max_unchecked_seconds=300)
    client = ApiClient(auth=auth)
    client.auth = auth  # type: ignore[attr-defined]
    return client


def status(api: ApiClient, token: str) -> int:
    return api("/v2/samples", headers={"X-Auth-Token": token}).status


@pytest_twisted.ensureDeferred
async def test_created_token_works_at_once_and_a_revoked_one_no_more(database: Any, api: ApiClient) -> None:
    await api.auth.refresh()  # type: ignore[attr-defined]
    made = await database.report("create", "--project", "blue", "--user", "ann")
    assert made["id"] == id_of(made["token"])
    await until(lambda: status(api, made["token"]) == 200)
    seen = api("/v2/samples", headers={"X-Auth-Token": made["token"]}).json
    assert {sample["project_id"] for sample in seen} == {"blue"}
    admin = await database.report("create", "--admin")
    await until(lambda: status(api, admin["token"]) == 200)
    assert len(api("/v2/samples", headers={"X-Auth-Token": admin["token"]}).json) == 4

    assert await database.report("revoke", made["id"]) == {"revoked": [made["id"]], "revoked_before": []}
    await until(lambda: status(api, made["token"]) == 401)
    assert status(api, admin["token"]) == 200
    assert await database.report("revoke", made["id"]) == {"revoked": [], "revoked_before": [made["id"]]}


@pytest_twisted.ensureDeferred
async def test_database_and_list_have_no_token(database: Any) -> None:
    made = await database.report("create", "--project", "blue")
    [(row,)] = database.server.execute("SELECT to_jsonb(t)::text FROM api_token t", database.dsn)
    assert made["id"] in row
    secret = made["token"].rpartition("_")[2]
    assert digest_of(made["token"]).hex() in row
    for text in (row, (await database.meter_token("list"))[1], (await database.meter_token("list", "--json"))[1]):
        assert secret not in text
        assert made["token"] not in text


@pytest_twisted.ensureDeferred
async def test_ended_tokens_are_listed_until_they_are_purged(database: Any) -> None:
    valid = await database.report("create", "--admin", "--days", "1", "--who", "carl")
    revoked = await database.report("create", "--project", "blue")
    expired = await database.report("create", "--project", "blue", "--expires", "2090-01-01")
    await database.report("revoke", "--who", "dora", revoked["id"])
    database.server.execute(
        f"UPDATE api_token SET expires_at = now() - interval '1 day' WHERE id = '{expired['id']}'", database.dsn
    )
    listed = {each["id"]: each for each in (await database.report("list"))["tokens"]}
    assert {id: each["state"] for id, each in listed.items()} == {
        valid["id"]: "valid",
        revoked["id"]: "revoked",
        expired["id"]: "expired",
    }
    assert (listed[valid["id"]]["created_by"], listed[revoked["id"]]["revoked_by"]) == ("carl", "dora")
    assert (listed[valid["id"]]["admin"], listed[revoked["id"]]["project_id"]) == (True, "blue")
    assert await database.report("purge") == {"purged_tokens": 0}
    assert await database.report("purge", "--days", "0.5") == {"purged_tokens": 1}
    assert await database.report("purge", "--days", "0") == {"purged_tokens": 1}
    assert [each["id"] for each in (await database.report("list"))["tokens"]] == [valid["id"]]


@pytest_twisted.ensureDeferred
async def test_revoking_an_unknown_id_revokes_nothing_and_a_token_is_not_taken_for_an_id(database: Any) -> None:
    made = await database.report("create", "--admin")
    code, _, errors = await database.meter_token("revoke", made["id"], "0123456789ab")
    assert (code, "0123456789ab: there is no token with this id; nothing was revoked" in errors) == (3, True)
    code, _, errors = await database.meter_token("revoke", made["token"])
    assert (code, made["id"] in errors, made["token"] in errors) == (3, True, False)
    assert [each["state"] for each in (await database.report("list"))["tokens"]] == ["valid"]


@pytest_twisted.ensureDeferred
async def test_command_says_what_is_wrong(database: Any, postgresql: Any, tmp_path: Any) -> None:
    for arguments in (("create", "--project", ""), ("create", "--admin", "--expires", "2001-01-01")):
        code, out, errors = await database.meter_token(*arguments)
        assert (code, out, bool(errors)) == (3, "", True)
    tmp_path.joinpath("empty").mkdir()
    code, _, errors = await Database(postgresql, tmp_path / "empty").meter_token("list")
    assert (code, "schema version 0" in errors) == (2, True)
    code, out, _ = await database.meter_token("create", "--project", "blue")
    assert (code, out.startswith("token: meter_")) == (0, True)
    code, out, _ = await database.meter_token("list")
    assert (code, out.splitlines()[0].split()[:4]) == (0, ["ID", "STATE", "ADMIN", "PROJECT"])


@pytest_twisted.ensureDeferred
async def test_changes_stand_in_the_audit_log_and_only_changes(database: Any) -> None:
    made = await database.report("create", "--project", "blue", "--who", "carl", "--reason", "ticket 7")
    await database.report("revoke", "--who", "dora", made["id"])
    await database.report("revoke", "--who", "dora", made["id"])
    await database.report("purge")
    await database.report("purge", "--days", "0")
    entries = database.server.execute("SELECT who, action, reason, details FROM audit_entry ORDER BY seq", database.dsn)
    assert [entry[1] for entry in entries] == ["token.create", "token.revoke", "token.purge"]
    assert entries[0][:3] == ("carl", "token.create", "ticket 7")
    assert (entries[1][0], made["id"] in entries[1][3]) == ("dora", True)
    assert not [entry for entry in entries if made["token"] in str(entry)]


@pytest_twisted.ensureDeferred
async def test_host_without_a_signing_key_changes_tokens_only_unrecorded(database: Any, tmp_path: Any) -> None:
    database.configure(f'[meter]\nstate_dir = "{tmp_path}"\n[store]\ndsn = "{database.dsn}"\n')
    code, _, errors = await database.meter_token("create", "--admin")
    assert (code, "needs a signing key" in errors, "--unrecorded" in errors) == (3, True, True)
    code, out, errors = await database.meter_token("create", "--admin", "--unrecorded")
    assert (code, out.startswith("token: meter_"), "NOT RECORDED" in errors) == (0, True, True)
    assert database.server.execute("SELECT count(*) FROM audit_entry", database.dsn) == [(0,)]


@pytest_twisted.ensureDeferred
async def test_only_so_many_tokens_can_be_valid(database: Any) -> None:
    database.server.execute(
        "INSERT INTO api_token (id, sha256, is_admin, created_by)"
        " SELECT n::text, sha256(n::text::bytea), true, 'x' FROM generate_series(1, 10000) n",
        database.dsn,
    )
    code, _, errors = await database.meter_token("create", "--admin")
    assert (code, "10000 valid tokens" in errors) == (3, True)
    tokens = await database.store.tokens.tokens()
    assert len(tokens) == 10_000
    assert await database.store.tokens.tokens() is tokens
    await database.report("revoke", "17")
    assert len(await database.store.tokens.tokens()) == 9_999


@pytest_twisted.ensureDeferred
async def test_change_by_hand_is_seen_at_the_next_reading(database: Any, api: ApiClient) -> None:
    made = await database.report("create", "--project", "blue")
    await until(lambda: status(api, made["token"]) == 200)
    database.server.execute("UPDATE api_token SET project_id = 'red'", database.dsn)
    await api.auth.refresh()  # type: ignore[attr-defined]
    seen = api("/v2/samples", headers={"X-Auth-Token": made["token"]}).json
    assert {sample["project_id"] for sample in seen} == {"red"}
    database.server.execute("DELETE FROM api_token", database.dsn)
    await api.auth.refresh()  # type: ignore[attr-defined]
    assert status(api, made["token"]) == 401
