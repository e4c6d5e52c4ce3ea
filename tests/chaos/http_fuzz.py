"""Whether an API stays up, quick and small under hostile requests: those of ``tests/security``, many more of them."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.health_probe import HealthProbe
from tests.security.http_fuzz import FuzzReport
from tests.security.http_fuzz import attack
from tests.security.http_fuzz import attacked_site
from tests.system.daemons import Daemon
from tests.system.daemons import House

REQUESTS = 20_000
SEED = int(os.environ.get("METER_FUZZ_SEED", str(int(time.time()))))
"""Another one in each campaign; it is printed, and the variable repeats it."""

MAX_GROWTH_MEGABYTES = 64
"""Between a tenth of the requests, when the caches are filled, and the end."""


@dataclass(frozen=True, slots=True)
class HostileHttpOutcome:
    """What a campaign found: the report, the health checks, and memory in MB."""

    report: FuzzReport
    seed: int
    health: HealthProbe
    megabytes_before: float
    megabytes_after: float

    @property
    def passed(self) -> bool:
        """Whether nothing failed, each health check was quick, and the process did not grow."""
        grown = self.megabytes_after - self.megabytes_before
        return not self.report.failures and not self.health.problems and grown < MAX_GROWTH_MEGABYTES

    def __str__(self) -> str:
        lines = [
            f"hostile HTTP, seed {self.seed}: {self.report}; {self.health.checks} health checks, {self.health.failed} failed, the"
            f" slowest took {self.health.slowest_seconds * 1000:.0f} ms; memory {self.megabytes_before:.0f} MB before, "
            f"{self.megabytes_after:.0f} MB after"
        ]
        return "\n    ".join([*lines, *self.health.problems, *self.report.failures[:10]])


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
        with HealthProbe(api.status_port) as health:
            report = attack(site, count, seed, midway=lambda: memory.append(_megabytes(api)))
        memory.append(_megabytes(api))
    finally:
        house.close()
    return HostileHttpOutcome(report, seed, health, *memory)


def _megabytes(daemon: Daemon) -> float:
    assert daemon.process is not None
    [kilobytes] = re.findall(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{daemon.process.pid}/status").read_text(), re.M)
    return int(kilobytes) / 1000
