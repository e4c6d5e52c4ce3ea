"""A real Keystone and a real Glance for tests, on SQLite and the disk, from PyPI (OpenStack 2025.2).

They live in a virtual environment of their own, because they need other versions than Meter does: it is made once, by
``python -m tests.servers.openstack``, and kept under ``~/.cache/meter-tests``. ``tox`` sees to it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.servers import not_installed
from tests.servers.wsgi import serving

SERIES = "2025.2"
PACKAGES = ("keystone>=28,<29", "glance>=31,<32")
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / f"meter-tests/openstack-{SERIES}"
INSTALL = "Keystone and Glance are not installed: python -m tests.servers.openstack"
START_SECONDS = 180.0
PASSWORD = "s3cret"

SERVE = serving("""\
module, port = sys.argv.pop(1), int(sys.argv.pop(1))
application = __import__(module, fromlist=["application"]).application
""")


def install() -> None:
    """Make the virtual environment, anew where it is half made."""
    if not (HOME / "bin/keystone-manage").exists() or not (HOME / "bin/glance-manage").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=True)
        subprocess.run([str(HOME / "bin/pip"), "install", "-q", *PACKAGES], check=True)


class OpenStack:
    """One private cloud. ``auth_url`` is its Keystone; ``admin`` may do everything."""

    def __init__(self, directory: Path, *, token_seconds: int) -> None:
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self.keystone_port, self.glance_port = free_port(), free_port()
        self.auth_url = f"http://127.0.0.1:{self.keystone_port}/v3"
        self.image_url = f"http://127.0.0.1:{self.glance_port}"
        self._configure(token_seconds)

    def _configure(self, token_seconds: int) -> None:
        (self._directory / "keystone.conf").write_text(
            f"[DEFAULT]\nlog_file = {self._directory}/keystone.log\n"
            f"[database]\nconnection = sqlite:///{self._directory}/keystone.sqlite\n"
            f"[token]\nexpiration = {token_seconds}\nprovider = fernet\n"
            f"[fernet_tokens]\nkey_repository = {self._directory}/fernet\n"
            f"[fernet_receipts]\nkey_repository = {self._directory}/fernet\n"
            f"[credential]\nkey_repository = {self._directory}/credential\n"
            "[identity]\npassword_hash_rounds = 4\n"
        )
        (self._directory / "images").mkdir()
        (self._directory / "glance-api.conf").write_text(
            f"[DEFAULT]\nlog_file = {self._directory}/glance.log\nenabled_backends = disk:file\n"
            f"worker_self_reference_url = {self.image_url}\n"
            f"[database]\nconnection = sqlite:///{self._directory}/glance.sqlite\n"
            "[glance_store]\ndefault_backend = disk\n"
            f"[disk]\nfilesystem_store_datadir = {self._directory}/images\n"
            f"[os_glance_staging_store]\nfilesystem_store_datadir = {self._directory}/staging\n"
            f"[os_glance_tasks_store]\nfilesystem_store_datadir = {self._directory}/tasks\n"
            "[paste_deploy]\nflavor = keystone\n"
            f"config_file = {HOME}/etc/glance/glance-api-paste.ini\n"
            "[keystone_authtoken]\n"
            f"www_authenticate_uri = {self.auth_url}\nauth_url = {self.auth_url}\nauth_type = password\n"
            "interface = public\n"
            f"username = admin\npassword = {PASSWORD}\nproject_name = admin\n"
            "user_domain_id = default\nproject_domain_id = default\n"
        )

    def start(self) -> None:
        """Make the databases, start both, and wait for them."""
        manage = [str(HOME / "bin/keystone-manage"), "--config-file", str(self._directory / "keystone.conf")]
        for name in ("fernet", "credential"):
            (self._directory / name).mkdir()
        self._run(*manage, "db_sync")
        self._run(*manage, "fernet_setup", "--keystone-user", _user(), "--keystone-group", _group())
        self._run(*manage, "credential_setup", "--keystone-user", _user(), "--keystone-group", _group())
        self._run(
            *(*manage, "bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "RegionOne"),
            *("--bootstrap-public-url", self.auth_url),
        )
        glance = [str(HOME / "bin/glance-manage"), "--config-file", str(self._directory / "glance-api.conf")]
        self._run(*glance, "db_sync")
        self._serve("keystone.wsgi.api", self.keystone_port, OS_KEYSTONE_CONFIG_DIR=str(self._directory))
        self._serve("glance.wsgi.api", self.glance_port, OS_GLANCE_CONFIG_DIR=str(self._directory))
        self._until_it_answers(self.auth_url)
        token = self.token()
        service = self.ask("POST", f"{self.auth_url}/services", token, {"service": {"type": "image", "name": "glance"}})
        endpoint = {"service_id": service["service"]["id"], "interface": "public", "url": self.image_url}
        self.ask("POST", f"{self.auth_url}/endpoints", token, {"endpoint": {**endpoint, "region_id": "RegionOne"}})
        self._until_it_answers(f"{self.image_url}/versions")

    def token(self, project: str = "admin") -> str:
        """Return a new token of the user admin."""
        user = {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": project, "domain": {"id": "default"}}},
            }
        }
        request = urllib.request.Request(
            f"{self.auth_url}/auth/tokens", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.headers["X-Subject-Token"])

    def ask(self, method: str, url: str, token: str, document: Any = None, raw: bytes | None = None) -> Any:
        """Ask a service, and return its JSON."""
        body = raw if raw is not None else (None if document is None else json.dumps(document).encode())
        kind = "application/octet-stream" if raw is not None else "application/json"
        request = urllib.request.Request(url, body, {"X-Auth-Token": token, "Content-Type": kind}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def image(self, name: str, content: bytes) -> str:
        """Make an image of ``content`` and return its id."""
        token = self.token()
        made = self.ask(
            "POST",
            f"{self.image_url}/v2/images",
            token,
            {"name": name, "disk_format": "raw", "container_format": "bare"},
        )
        self.ask("PUT", f"{self.image_url}/v2/images/{made['id']}/file", token, raw=content)
        return str(made["id"])

    def stop(self) -> None:
        """End both."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=self._directory)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}: {done.stderr[-3000:]}")

    def _serve(self, module: str, port: int, **environment: str) -> None:
        with (self._directory / f"{module}.out").open("ab") as output:
            self._processes.append(
                subprocess.Popen(
                    [str(HOME / "bin/python"), "-c", SERVE, module, str(port)],
                    cwd=self._directory,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                )
            )

    def _until_it_answers(self, url: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(url, timeout=30).close()
                return
            except urllib.error.HTTPError as error:
                if error.code == 300:  # Glance's list of versions
                    return
                reason: object = f"{error}: {error.read()[:500]!r}"
            except OSError as error:
                reason = error
            if time.monotonic() > deadline or any(each.poll() is not None for each in self._processes):
                outputs = [path.read_text()[-2000:] for path in self._directory.glob("*.out")]
                pytest.fail(f"{url} does not answer: {reason}\n{''.join(outputs)}")
            time.sleep(0.2)


def _user() -> str:
    return str(os.getuid())


def _group() -> str:
    return str(os.getgid())


@pytest.fixture(scope="session")
def openstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStack]:
    """One cloud for the whole run, whose tokens live 20 s."""
    if not (HOME / "bin/keystone-manage").exists() or not (HOME / "bin/glance-manage").exists():
        not_installed(INSTALL)
    cloud = OpenStack(tmp_path_factory.mktemp("openstack"), token_seconds=20)
    try:
        cloud.start()
        yield cloud
    finally:
        cloud.stop()


if __name__ == "__main__":
    install()
