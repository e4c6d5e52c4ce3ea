"""Several API processes serve one port: they share the socket that systemd passes to each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system.daemons import BASE
from tests.system.daemons import STOPPED
from tests.system.daemons import Daemon
from tests.system.daemons import House
from tests.system.daemons import fetch
from tests.system.daemons import until

SHARED = (
    BASE.replace(
        'listen = "tcp:{api_port}:interface=127.0.0.1"', 'listen = "systemd:domain=INET:name=meter-api.socket"'
    )
    + f"""accept_samples = false
access_log = true
[api.auth]
mode = "tokens"
[[api.auth.tokens]]
sha256 = "{"0" * 64}"
admin = true
"""
)
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="meter-api.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener


def start(daemon: Daemon, listener: socket.socket) -> Daemon:
    """Start ``daemon`` as systemd starts the service of a socket unit."""
    number = listener.fileno()
    with daemon.log_file.open("ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", AS_SYSTEMD, str(number), *daemon.command()],
            cwd=daemon.directory,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            pass_fds=[number],
        )
    until(lambda: "api listens on" in daemon.log or daemon.process.poll() is not None, "the daemon to listen")
    assert daemon.process.poll() is None, daemon.log
    return daemon


def served(daemon: Daemon) -> int:
    return daemon.log.count("GET /openapi.json 200")


def test_processes_share_a_port_and_requests_go_on_when_one_stops(house: House, listener: socket.socket) -> None:
    house.store = "postgresql://127.0.0.1:1/none"
    first, second = (start(house.daemon("meter-api", base=SHARED), listener) for _ in range(2))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/openapi.json"

    def send(count: int) -> None:
        with ThreadPoolExecutor(16) as clients:
            assert [status for status, _ in clients.map(fetch, [url] * count)] == [200] * count

    sent = 0
    while not (served(first) and served(second)):  # which of them accepts a connection is up to the kernel
        send(100)
        sent += 100
        until(lambda: served(first) + served(second) == sent, "all requests to be logged")  # noqa: B023

    assert first.stop() in STOPPED, first.log
    before = served(second)
    send(20)
    until(lambda: served(second) == before + 20, "the other process to serve the requests")
    assert second.stop() in STOPPED, second.log
    assert "Traceback" not in first.log + second.log
