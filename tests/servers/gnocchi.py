"""A real Gnocchi for tests, on PostgreSQL and the disk, from PyPI, and its command-line client.

They live in a virtual environment of their own, because they need other versions than Meter does: it is made once, by
``python -m tests.servers.gnocchi``, and kept under ``~/.cache/meter-tests``. ``tox`` sees to it.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.servers import not_installed
from tests.servers.postgresql import PostgreSQL
from tests.servers.wsgi import serving

VERSION = "4.7"
PACKAGES = (f"gnocchi[postgresql]=={VERSION}.*", "gnocchiclient>=7.2", "keystonemiddleware>=10", "setuptools<81")
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / f"meter-tests/gnocchi-{VERSION}"
INSTALL = "Gnocchi is not installed: python -m tests.servers.gnocchi"
START_SECONDS = 180.0
USER = "admin"

SERVE = serving("""\
configuration, port = sys.argv.pop(1), int(sys.argv.pop(1))
from gnocchi import service
from gnocchi.rest import app
application = app.load_app(service.prepare_service(["--config-file", configuration]))
""")

POLICIES = {
    "ceilometer-low": (["mean"], [("0:05:00", "30 days")]),
    "ceilometer-low-rate": (["mean", "rate:mean"], [("0:05:00", "30 days")]),
    "ceilometer-high": (["mean"], [("0:00:01", "1 hour"), ("0:01:00", "1 day"), ("1:00:00", "365 days")]),
}
"""Archive policies as Ceilometer 27 makes them, in ceilometer/publisher/data/gnocchi_resources.yaml: aggregates and definition."""

INSTANCE = {
    name: {"type": "string", "required": name in ("host", "flavor_id", "display_name")}
    for name in ("host", "flavor_id", "flavor_name", "image_ref", "display_name", "server_group")
}
"""Attributes of the resource type ``instance``, as ``ceilometer-upgrade`` makes it."""


def install() -> None:
    """Make the virtual environment, anew where it is half made."""
    if not (HOME / "bin/gnocchi").exists() or not (HOME / "bin/gnocchi-upgrade").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
        subprocess.run([str(HOME / "bin/pip"), "install", "-q", *PACKAGES], check=True)


class Gnocchi:
    """A Gnocchi at ``url`` with basic authentication, the archive policies of Ceilometer and the resource type ``instance``."""

    def __init__(self, directory: Path, dsn: str) -> None:
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._settings = (
            f"[DEFAULT]\ncoordination_url = file://{directory}/locks\n"
            f"[indexer]\nurl = {dsn.replace('postgresql:', 'postgresql+psycopg2:')}\n"
            f"[storage]\ndriver = file\nfile_basepath = {directory}/storage\n"
        )
        self.url = ""

    def start(self) -> None:
        basic = self._configuration("basic", "[api]\nauth_mode = basic\n")
        upgrade = [str(HOME / "bin/gnocchi-upgrade"), "--config-file", basic]
        subprocess.run(upgrade, check=True, capture_output=True, timeout=START_SECONDS)
        self.url = self._serve(basic)
        for name, (methods, definition) in POLICIES.items():
            kept = [{"granularity": granularity, "timespan": timespan} for granularity, timespan in definition]
            policy = {"name": name, "back_window": 0, "aggregation_methods": methods, "definition": kept}
            self.ask("POST", "archive_policy", policy)
        self.ask("POST", "resource_type", {"name": "instance", "attributes": INSTANCE})

    def serve_with_keystone(self, auth_url: str, password: str) -> str:
        """Serve the same metrics with the tokens of a Keystone, whose user admin has the ``password``; return the URL."""
        user = f"auth_url = {auth_url}\nauth_type = password\nusername = admin\npassword = {password}\nproject_name = admin\n"
        domains = "user_domain_id = default\nproject_domain_id = default\ninterface = public\n"
        settings = f"[api]\nauth_mode = keystone\n[keystone_authtoken]\n{user}{domains}"
        return self._serve(self._configuration("keystone", settings))

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _configuration(self, name: str, settings: str) -> str:
        """Return the path of a configuration with these ``settings``, where Keystone's middleware looks for it with that HOME."""
        path = self._directory / name / ".gnocchi/gnocchi.conf"
        path.parent.mkdir(parents=True)
        path.write_text(self._settings + settings)
        return str(path)

    def _serve(self, configuration: str) -> str:
        """Serve the API; return its URL once it answers."""
        port = free_port()
        with (self._directory / "log").open("ab") as log:
            serve = [str(HOME / "bin/python"), "-c", SERVE, configuration, str(port)]
            environment = {**os.environ, "HOME": str(Path(configuration).parents[1])}
            process = subprocess.Popen(serve, stdout=log, stderr=log, env=environment)
        self._processes.append(process)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).close()
                return f"http://127.0.0.1:{port}"
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    pytest.fail((self._directory / "log").read_text()[-3000:])
                time.sleep(0.1)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the body of an answer of success."""
        request = urllib.request.Request(
            f"{self.url}/v1/{path}",
            None if body is None else json.dumps(body).encode(),
            {
                "Content-Type": "application/json",
                "Authorization": f"Basic {base64.b64encode(f'{USER}:'.encode()).decode()}",
            },
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def resource(
        self, resource_id: str, metrics: dict[str, tuple[str, str]], type: str = "generic", **fields: Any
    ) -> Any:
        """Make a resource with ``metrics``, each with its archive policy and unit, and return it as Gnocchi does."""
        described = {name: {"archive_policy_name": policy, "unit": unit} for name, (policy, unit) in metrics.items()}
        return self.ask("POST", f"resource/{type}", {"id": resource_id, "metrics": described, **fields})

    def measure(self, metric_id: str, values: Iterable[tuple[str, float]]) -> None:
        """Store measures, and let Gnocchi aggregate them."""
        self.ask("POST", f"metric/{metric_id}/measures", [{"timestamp": at, "value": value} for at, value in values])
        methods = self.ask("GET", f"metric/{metric_id}")["archive_policy"]["aggregation_methods"]
        self.ask("GET", f"metric/{metric_id}/measures?refresh=true&aggregation={methods[0]}")

    def client(self, *arguments: str) -> str:
        """Return the output of the command ``gnocchi``."""
        environment = {
            **os.environ,
            "OS_AUTH_TYPE": "gnocchi-basic",
            "GNOCCHI_USER": USER,
            "GNOCCHI_ENDPOINT": self.url,
            "TZ": "Europe/Berlin",
        }
        done = subprocess.run(
            [HOME / "bin/gnocchi", *arguments], env=environment, check=True, capture_output=True, timeout=START_SECONDS
        )
        return done.stdout.decode()


@pytest.fixture(scope="module")
def gnocchi(postgresql: PostgreSQL, server_directory: Callable[[str], Path]) -> Iterator[Gnocchi]:
    """A Gnocchi for the tests of a module."""
    if not (HOME / "bin/gnocchi").exists():
        not_installed(INSTALL)
    server = Gnocchi(server_directory("meter-gnocchi-"), postgresql.dsn())
    try:
        server.start()
        yield server
    finally:
        server.stop()


if __name__ == "__main__":
    install()
