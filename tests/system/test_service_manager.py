"""Real daemons under a service manager: when they are ready, that a blocked reactor is noticed, and as process 1 of a container."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import not_allowed
from tests.system.daemons import STOPPED
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import until

AWAY = '[bus]\nurl = "amqp://guest:secret@127.0.0.1:1/"\n[store]\ndsn = "postgresql://meter@127.0.0.1:1/meter"\n'

HANDLER = """
import os, signal, time

def block(number, frame):
    open({directory!r} + "/blocked", "w").close()
    while not os.path.exists({directory!r} + "/release"):
        time.sleep(0.05)

signal.signal(signal.SIGUSR1, block)
"""
"""Blocks the thread of the reactor, and no other, as code that waits for something would."""


class NotifiedSocket:
    """The socket of a service manager that starts daemons."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def next(self, seconds: float = 60.0) -> list[str]:
        """The lines of the next datagram; none if none comes within ``seconds``."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(65536).decode().split("\n")
        except TimeoutError:
            return []

    def until(self, line: str) -> None:
        """Read up to the datagram that has ``line``."""
        while line not in (lines := self.next()):
            assert lines, f"{line} was not sent"

    def drain(self) -> None:
        while self.next(0.01):
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifiedSocket]:
    manager = NotifiedSocket(tmp_path / "notify")
    yield manager
    manager.close()


def managed(house: House, manager: NotifiedSocket, name: str, *, watchdog_seconds: float = 0.0) -> Daemon:
    """A daemon whose broker and database are away."""
    daemon = house.daemon(name, AWAY)
    daemon.extra_environment = {"NOTIFY_SOCKET": str(manager.path)}
    if watchdog_seconds:
        daemon.extra_environment["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1e6))
    return daemon


@pytest.mark.parametrize("name", ["meter-collector", "meter-api", "meter-compute", "meter-central"])
def test_daemon_whose_broker_is_away_has_started_and_says_what_it_waits_for(
    house: House, manager: NotifiedSocket, name: str
) -> None:
    daemon = managed(house, manager, name).start()
    first = manager.next()
    assert first[0] == "READY=1"
    [status] = first[1:]
    assert status.startswith(("STATUS=not ready: ", "STATUS=degraded: "))
    assert "secret" not in status
    daemon.send(signal.SIGTERM)
    manager.until("STOPPING=1")
    assert daemon.stop() in STOPPED


def test_daemon_with_an_error_in_its_configuration_is_never_ready(house: House, manager: NotifiedSocket) -> None:
    daemon = managed(house, manager, "meter-collector")
    daemon.config_file.write_text("[store]\nreaders = 0\n")
    assert daemon.start().process.wait(120) == 1  # type: ignore[union-attr]
    assert manager.next(0.1) == []


def test_check_tells_the_service_manager_nothing(house: House, manager: NotifiedSocket) -> None:
    assert managed(house, manager, "meter-collector").check().returncode == 0
    assert manager.next(0.1) == []


def test_blocked_reactor_does_not_serve_the_watchdog(house: House, manager: NotifiedSocket, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANDLER.format(directory=str(tmp_path)))
    daemon = managed(house, manager, "meter-collector", watchdog_seconds=0.4)
    daemon.extra_environment["PYTHONPATH"] = str(tmp_path)
    daemon.start()
    manager.until("READY=1")
    for _ in range(3):
        manager.until("WATCHDOG=1")
    daemon.send(signal.SIGUSR1)
    until((tmp_path / "blocked").exists, "the reactor to be blocked")
    manager.drain()
    assert manager.next(2.0) == []
    (tmp_path / "release").touch()
    manager.until("WATCHDOG=1")
    assert daemon.stop() in STOPPED


def test_daemon_that_is_process_1_of_a_container_stops_in_order_at_sigterm(house: House) -> None:
    if os.getuid() != 0:
        not_allowed("only root may make a process namespace")
    daemon = house.daemon("meter-collector", AWAY)
    inside = ["unshare", "--fork", "--pid", "--mount-proc", *daemon.command()]
    with daemon.log_file.open("ab") as log:
        daemon.process = subprocess.Popen(inside, cwd=daemon.directory, stdout=log, stderr=subprocess.STDOUT)
    until(lambda: daemon.readiness()["status"], "the daemon to run")
    [child] = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    assert Path(f"/proc/{child}/status").read_text().partition("NSpid:")[2].split("\n")[0].split()[-1] == "1"
    os.kill(int(child), signal.SIGTERM)
    assert daemon.process.wait(120) == 0
    assert "Server Shut Down" in daemon.log
