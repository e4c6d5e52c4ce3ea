"""Runs ``twistd`` daemons for tests, each with a configuration, a directory and ports of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

TWISTD = Path(sys.executable).with_name("twistd")
STOPPED = (0, -signal.SIGTERM)
"""Exit statuses of a daemon that stopped in order: twistd ends by the signal it was stopped with, as shells expect."""

SECRET = "the system tests' secret"


def until(condition: Callable[[], Any], what: str, seconds: float = 150.0) -> Any:
    """Return the first true result of ``condition``, asked again and again; fail naming ``what`` was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}; last seen: {result!r}")
        time.sleep(0.1)


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    """Return status and body, whatever the status; 0 while nothing answers."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


class Daemon:
    """One daemon; ``log`` is everything it wrote."""

    def __init__(self, name: str, directory: Path, config: str) -> None:
        self.name = name
        self.status_port = free_port()
        self.api_port = free_port()
        self.directory = directory
        self.config_file = directory / f"{name}.toml"
        self.log_file = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.extra_environment: dict[str, str] = {}
        self.host_name = ""
        """The name of the host that it takes itself to be on, if not this one's; only root may give it one."""
        self.twistd = TWISTD
        """The program, which may be that of another version of Meter."""
        self.config_file.write_text(
            config.format(status_port=self.status_port, api_port=self.api_port, directory=directory)
        )

    def command(self, *more: str) -> list[str]:
        naming = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.host_name]
        command = [str(self.twistd), "-n", "--pidfile=", self.name, "--config", str(self.config_file), *more]
        return [*naming, *command] if self.host_name else command

    def start(self) -> Daemon:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.directory, stdout=log, stderr=subprocess.STDOUT, env=self._environment()
            )
        return self

    def check(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("--check"),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=180,
            env=self._environment(),
        )

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 120.0) -> int:
        """Stop it and return its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"{self.name} did not stop within {seconds} s:\n{self.log[-3000:]}")

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONUNBUFFERED": "1", **self.extra_environment}

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def readiness(self) -> dict[str, Any]:
        status, body = fetch(f"http://127.0.0.1:{self.status_port}/readyz")
        return {"status": status, **(json.loads(body) if body else {})}

    def reason(self, dependency: str) -> str | None:
        """Why the dependency is not ready; ``None`` while it is, or while nobody answers."""
        for state in self.readiness().get("dependencies", []):
            if state["name"] == dependency and not state["ready"]:
                return str(state["reason"])
        return None

    def until_ready(self) -> Daemon:
        def ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                pytest.fail(f"{self.name} ended with {self.process.returncode}:\n{self.log[-3000:]}")
            return self.readiness()["status"] == 200

        try:
            until(ready, f"{self.name} to be ready")
        except pytest.fail.Exception:
            pytest.fail(f"{self.name} is not ready: {self.readiness()}\n{self.log[-3000:]}")
        return self

    def metric(self, line: str) -> float:
        """The value of the metric that begins with ``line``; 0 while there is none."""
        _, body = fetch(f"http://127.0.0.1:{self.status_port}/metrics")
        for each in body.decode().splitlines():
            if each.startswith(line):
                return float(each.rsplit(" ", 1)[1])
        return 0.0

    def get(self, path: str) -> Any:
        """The JSON that the API answers with 200."""
        status, body = fetch(self.api + path)
        assert status == 200, (status, body)
        return json.loads(body)


BASE = f"""
[meter]
state_dir = "{{directory}}/state"
[signing]
key = "{SECRET}"
[status]
listen = "tcp:{{status_port}}:interface=127.0.0.1"
[api]
listen = "tcp:{{api_port}}:interface=127.0.0.1"
"""


class House:
    """Starts daemons that share a bus and a store, and ends them all with the test."""

    def __init__(self, directory: Path, *, bus: str = "", store: str = "") -> None:
        self.directory = directory
        self.bus = bus
        self.store = store
        self._daemons: list[Daemon] = []

    def daemon(self, name: str, config: str = "", *, base: str = BASE) -> Daemon:
        """Return a daemon that is not started yet; ``config`` is added to what all share."""
        shared = base
        if self.bus:
            shared += f'[bus]\nurl = "{self.bus}"\nconfirm_timeout_seconds = 10.0\n'
        if self.store:
            shared += f'[store]\ndsn = "{self.store}"\n'
        directory = self.directory / f"{name}-{len(self._daemons)}"
        directory.mkdir()
        daemon = Daemon(name, directory, shared + config)
        self._daemons.append(daemon)
        return daemon

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house with neither bus nor store: set ``bus`` and ``store`` before asking for daemons."""
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture
def furnished(tmp_path: Path, rabbitmq: Any, postgresql: Any) -> Iterator[House]:
    """A house with a RabbitMQ virtual host and a database of its own."""
    house = House(tmp_path, bus=rabbitmq.vhost(), store=postgresql.dsn())
    yield house
    house.close()
