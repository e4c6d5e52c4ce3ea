"""``meter-token`` and ``meter-api``, each as a process: tokens come and go while the API runs."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed
from tests.system.daemons import BASE
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch
from tests.system.daemons import until
from tests.system.test_api_daemon import APPLE

TOKENS = """
[api.auth]
mode = "tokens"
max_unchecked_seconds = 8.0
refresh_seconds = 2.0
"""


def meter_token(api: Daemon, command: str, *arguments: str) -> Any:
    program = [sys.executable, "-c", "from meter.commands.tokens import main; main()"]
    done = subprocess.run(
        [*program, "--config", str(api.config_file), command, "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def seen(api: Daemon, token: str) -> Any:
    """The projects that a token shows, or the status of its refusal."""
    status, body = fetch(f"{api.api}/v2/samples", **{"X-Auth-Token": token})
    return {sample["project_id"] for sample in json.loads(body)} if status == 200 else status


def post(api: Daemon, token: str, project_id: str) -> None:
    request = urllib.request.Request(
        f"{api.api}/v2/meters/apples?direct=1",
        json.dumps([{**APPLE, "project_id": project_id}]).encode(),
        {"Content-Type": "application/json", "X-Auth-Token": token},
    )
    assert urllib.request.urlopen(request, timeout=60).status == 201


def accepting(house: House) -> Daemon:
    """Return an API in mode ``tokens`` that accepts samples, without a bus."""
    house.bus = "amqp://guest:guest@127.0.0.1:1/"
    return house.daemon("meter-api", TOKENS, base=BASE.replace("[api]\n", "[api]\naccept_samples = true\n"))


def test_tokens_are_created_and_revoked_while_the_api_runs(house: House, postgresql: PostgreSQL) -> None:
    house.store = postgresql.dsn()
    api = accepting(house).start()
    until(lambda: api.readiness().get("status") == 200, "the API to be ready")
    admin = meter_token(api, "create", "--admin")
    until(lambda: seen(api, admin["token"]) == set(), "the administrator's token to work")
    for project in ("blue", "red"):
        post(api, admin["token"], project)
    ann = meter_token(api, "create", "--project", "blue", "--user", "ann")
    until(lambda: seen(api, ann["token"]) == {"blue"}, "the token of a project to work")
    assert seen(api, admin["token"]) == {"blue", "red"}

    request = urllib.request.Request(f"{api.api}/v2/live", headers={"X-Auth-Token": ann["token"]})
    with urllib.request.urlopen(request, timeout=60) as stream:
        assert stream.readline().startswith(b": connected")
        meter_token(api, "revoke", ann["id"])
        rest = stream.read()  # to its end
    assert rest.count(b"event: end\n") == 1
    assert b'"status":401' in rest
    assert seen(api, ann["token"]) == 401
    assert seen(api, admin["token"]) == {"blue", "red"}
    for token in (admin, ann):
        assert token["token"] not in api.log
    assert "Traceback" not in api.log


def test_outage_of_the_database_is_503_and_never_401(
    house: House, tmp_path_factory: Any, server_directory: Any
) -> None:
    binaries = installed()
    assert binaries is not None
    server = PostgreSQL(binaries, server_directory("meter-tokens-"))
    server.start()
    try:
        house.store = server.dsn()
        api = accepting(house).start()
        until(lambda: api.readiness().get("status") == 200, "the API to be ready")
        token = meter_token(api, "create", "--admin")["token"]
        until(lambda: seen(api, token) == set(), "the token to work")
        server.stop()
        # Versions need no database: what is asked here is the token alone.
        asked: list[int] = []

        def status() -> int:
            asked.append(fetch(f"{api.api}/", **{"X-Auth-Token": token})[0])
            return asked[-1]

        until(lambda: "ago" in (api.reason("tokens") or ""), "the tokens to be stale")
        assert status() in (200, 300)
        until(lambda: status() == 503, "the tokens to be too old")
        assert not {401, 403} & set(asked)
        server.start()
        until(lambda: status() in (200, 300), "the token to work again")
        assert not {401, 403} & set(asked)
        assert "Traceback" not in api.log
    finally:
        server.kill()
