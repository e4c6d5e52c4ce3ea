"""Asks a daemon's ``/healthz`` again and again, in a process of its own, which senders of messages and requests do not delay."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

MAX_HEALTH_SECONDS = 0.25
"""How long an answer may take, on a machine that has nothing else to do."""

PROBE = """
import socket, sys, time
port, stop = int(sys.argv[1]), sys.stdin
longest, count, failed = 0.0, 0, 0
import threading
ended = threading.Event()
threading.Thread(target=lambda: (stop.read(), ended.set()), daemon=True).start()
while not ended.wait(0.05):
    begin = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
            failed += not connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    except OSError:
        failed += 1
    longest = max(longest, time.perf_counter() - begin)
    count += 1
print(count, failed, longest)
"""


class HealthProbe:
    """Asks at a status port every 50 ms while it is entered; has the number of checks and of failed ones, and the slowest, afterwards."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.checks = self.failed = 0
        self.slowest_seconds = 0.0

    def __enter__(self) -> HealthProbe:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROBE, str(self._port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: Any) -> None:
        output, _ = self._process.communicate()
        if self._process.returncode == 0:  # otherwise there were no checks, which does not pass
            checks, failed, slowest = output.split()
            self.checks, self.failed, self.slowest_seconds = int(checks), int(failed), float(slowest)

    @property
    def problems(self) -> list[str]:
        """Texts, none if there were checks, and each was answered and quick."""
        found = [] if self.checks else ["/healthz was not asked"]
        if self.failed:
            found.append(f"/healthz failed {self.failed} times of {self.checks}")
        if self.slowest_seconds > MAX_HEALTH_SECONDS:
            found.append(f"/healthz took {self.slowest_seconds * 1000:.0f} ms")
        return found
