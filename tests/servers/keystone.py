"""A private Keystone on SQLite, from PyPI, in the environment that :mod:`tests.servers.openstack` makes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.servers import not_installed
from tests.servers.openstack import HOME
from tests.servers.openstack import INSTALL
from tests.servers.openstack import START_SECONDS

SERVE = """
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server
address, port = sys.argv.pop(), int(sys.argv.pop())  # before Keystone reads the arguments as its own
from keystone.wsgi.api import application
WSGIRequestHandler.log_message = lambda *_: None
make_server(address, port, application).serve_forever()
"""

PASSWORD = "the administrator's"
TOKEN_SECONDS = 15


class Keystone:
    """A Keystone with an administrator; ``url`` is its v3. It listens at ``address``, and clients reach it by the name ``host``."""

    def __init__(
        self,
        binaries: Path,
        directory: Path,
        token_seconds: int,
        *,
        port: int = 0,
        address: str = "127.0.0.1",
        host: str = "127.0.0.1",
        region: str = "",
    ) -> None:
        self._binaries = binaries
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port or free_port()
        self._address = address
        self._region = region
        self.url = f"http://{host}:{self._port}/v3"
        self._own_url = f"http://127.0.0.1:{self._port}/v3"
        (directory / "keystone.conf").write_text(
            f"""
[database]
connection = sqlite:///{directory}/keystone.db
[token]
expiration = {token_seconds}
[fernet_tokens]
key_repository = {directory}/tokens
[fernet_receipts]
key_repository = {directory}/receipts
[credential]
key_repository = {directory}/credentials
[identity]
password_hash_rounds = 4
"""
        )

    def start(self) -> None:
        me = ("--keystone-user", str(os.getuid()), "--keystone-group", str(os.getgid()))
        self._manage("db_sync")
        with closing(sqlite3.connect(self._directory / "keystone.db")) as database:
            database.execute("PRAGMA journal_mode = WAL")  # Keystone reads beside what it writes
        self._manage("fernet_setup", *me)
        self._manage("credential_setup", *me)
        region = ("--bootstrap-region-id", self._region) if self._region else ()
        self._manage("bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-public-url", self.url, *region)
        self.serve()

    def serve(self) -> None:
        """Answer requests, after the first start or after :meth:`stop`."""
        environment = {**os.environ, "OS_KEYSTONE_CONFIG_FILES": str(self._directory / "keystone.conf")}
        with (self._directory / "log").open("ab") as log:
            command = [self._binaries / "python", "-c", SERVE, str(self._port), self._address]
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(self._own_url, timeout=30).close()
                return
            except OSError as error:
                if isinstance(error, urllib.error.HTTPError):  # it is a response, with a socket of its own
                    error.close()
                if time.monotonic() > deadline or self._process.poll() is not None:
                    pytest.fail((self._directory / "log").read_text()[-3000:])
                time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _manage(self, *arguments: str) -> None:
        command = [self._binaries / "keystone-manage", "--config-file", self._directory / "keystone.conf", *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[dict[str, str], Any]:
        """Return headers and body of an answer of success."""
        request = urllib.request.Request(
            self._own_url + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", **headers},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return dict(answer.headers), json.loads(text) if text else None

    def token(self, user: str, password: str, project: str | None) -> str:
        """Return a token of ``user`` for ``project``, or for none."""
        scope = {"project": {"name": project, "domain": {"id": "default"}}}
        return self.scoped_token(user, password, "unscoped" if project is None else scope)

    def scoped_token(self, user: str, password: str, scope: Any) -> str:
        """Return a token of ``user`` with ``scope``, as Keystone's API writes it."""
        domain = {"id": "default"}
        auth: dict[str, Any] = {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": user, "domain": domain, "password": password}},
            }
        }
        auth["scope"] = scope
        headers, _ = self.ask("POST", "/auth/tokens", {"auth": auth})
        return headers["X-Subject-Token"]

    def add(self, project: str, user: str, password: str) -> str:
        """Make a project and a user who is a member of it; return the id of the project."""
        admin = {"X-Auth-Token": self.token("admin", PASSWORD, "admin")}
        _, made = self.ask("POST", "/projects", {"project": {"name": project}}, **admin)
        _, someone = self.ask("POST", "/users", {"user": {"name": user, "password": password}}, **admin)
        _, roles = self.ask("GET", "/roles?name=member", **admin)
        place = f"/projects/{made['project']['id']}/users/{someone['user']['id']}/roles/{roles['roles'][0]['id']}"
        self.ask("PUT", place, **admin)
        return str(made["project"]["id"])

    def publish(self, service_type: str, url: str) -> None:
        """Have the catalogue say that a service of ``service_type`` is at ``url``."""
        admin = {"X-Auth-Token": self.token("admin", PASSWORD, "admin")}
        _, made = self.ask("POST", "/services", {"service": {"type": service_type, "name": service_type}}, **admin)
        endpoint = {"service_id": made["service"]["id"], "interface": "public", "url": url}
        self.ask("POST", "/endpoints", {"endpoint": endpoint}, **admin)

    def revoke(self, token: str) -> None:
        """Make ``token`` worthless."""
        self.ask("DELETE", "/auth/tokens", **{"X-Auth-Token": token, "X-Subject-Token": token})


@pytest.fixture(scope="session")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    """A Keystone whose tokens last :data:`TOKEN_SECONDS`."""
    binaries = HOME / "bin"
    if not (binaries / "keystone-manage").exists():
        not_installed(INSTALL)
    server = Keystone(binaries, tmp_path_factory.mktemp("keystone"), TOKEN_SECONDS)
    server.start()
    yield server
    server.stop()
