"""Whether an API stays up, quick and small under hostile requests: those of ``tests/security``, many more of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.security.http_fuzz import FuzzReport
from tests.security.http_fuzz import attack
from tests.security.http_fuzz import attacked_site
from tests.system.daemons import Daemon
from tests.system.daemons import House

REQUESTS = 20_000
SEED = int(os.environ.get("METER_FUZZ_SEED", str(int(time.time()))))
"""Another one in each campaign; it is printed, and the variable repeats it."""

MAX_HEALTH_SECONDS = 0.25
MAX_GROWTH_MEGABYTES = 64
"""Between a tenth of the requests, when the caches are filled, and the end."""

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
"""Asks /healthz every 50 ms until its input ends, in a process of its own, which the senders of requests do not delay."""


@dataclass(frozen=True, slots=True)
class HostileHttpOutcome:
    """What a campaign found: the report, health checks and failed ones, the slowest in seconds, and memory in MB."""

    report: FuzzReport
    seed: int
    checks: int
    failed_checks: int
    slowest_check: float
    megabytes_before: float
    megabytes_after: float

    @property
    def passed(self) -> bool:
        """Whether nothing failed, each health check was quick, and the process did not grow."""
        quick = self.checks > 0 and not self.failed_checks and self.slowest_check <= MAX_HEALTH_SECONDS
        return (
            not self.report.failures and quick and self.megabytes_after - self.megabytes_before < MAX_GROWTH_MEGABYTES
        )

    def __str__(self) -> str:
        lines = [
            f"hostile HTTP, seed {self.seed}: {self.report}; {self.checks} health checks, {self.failed_checks} failed, the"
            f" slowest took {self.slowest_check * 1000:.0f} ms; memory {self.megabytes_before:.0f} MB before, "
            f"{self.megabytes_after:.0f} MB after"
        ]
        return "\n    ".join([*lines, *self.report.failures[:10]])


def hostile_http(
    rabbitmq: Any, postgresql: Any, directory: Path, count: int = REQUESTS, seed: int = SEED
) -> HostileHttpOutcome:
    """Send ``count`` hostile requests to an API of its own."""
    directory.mkdir()
    house = House(directory, bus=rabbitmq.vhost(), store=postgresql.dsn())
    memory: list[float] = []
    try:
        site = attacked_site(house)
        api = site.api
        with subprocess.Popen(
            [sys.executable, "-c", PROBE, str(api.status_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as probe:
            report = attack(site, count, seed, midway=lambda: memory.append(_megabytes(api)))
            output, _ = probe.communicate()
        memory.append(_megabytes(api))
    finally:
        house.close()
    checks, failed, slowest = output.split()
    return HostileHttpOutcome(report, seed, int(checks), int(failed), float(slowest), *memory)


def _megabytes(daemon: Daemon) -> float:
    assert daemon.process is not None
    [kilobytes] = re.findall(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{daemon.process.pid}/status").read_text(), re.M)
    return int(kilobytes) / 1000
