"""Meters of a Meter daemon itself: readiness of its dependencies, CPU time and memory.

They need neither a cloud nor a hypervisor.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from twisted.plugin import IPlugin
from zope.interface import implementer

from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IHealth
from meter.interfaces import IPluginContext
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.sample import SampleType

DEPENDENCY_READY = MeterDefinition("meter.dependency.ready", "gauge", "ready")
PROCESS_CPU = MeterDefinition("meter.process.cpu", "cumulative", "ns")
PROCESS_MEMORY = MeterDefinition("meter.process.memory", "gauge", "B")

SOURCE = "meter"


@implementer(IPlugin, ICentralPollster)
@dataclass(frozen=True)
class SystemPollster:
    """Meters the daemon that it runs in."""

    name: ClassVar[str] = "system"
    meters: ClassVar[tuple[MeterDefinition, ...]] = (DEPENDENCY_READY, PROCESS_CPU, PROCESS_MEMORY)
    options: None = None

    def configured(self, options: None) -> SystemPollster:
        """Return the pollster: it has no options."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled:
        """Return enabled, always."""
        return Enabled()

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return a sample per dependency, and the CPU time and memory of the process."""
        return list(_samples(cycle))


def _samples(cycle: ICycle) -> Iterator[Sample]:
    daemon = f"{socket.gethostname()}/{cycle.daemon}"
    metadata = {"host": socket.gethostname(), "daemon": cycle.daemon}

    def sample(meter: MeterDefinition, volume: int, resource_id: str, **more: str) -> Sample:
        kind: SampleType = meter.type
        return Sample(
            name=meter.name,
            type=kind,
            unit=meter.unit,
            volume=volume,
            resource_id=resource_id,
            timestamp=cycle.timestamp,
            resource_metadata=metadata | more,
            source=SOURCE,
        )

    for state in cycle.provider(IHealth).readinesses():
        yield sample(DEPENDENCY_READY, int(state.ready), f"{daemon}/{state.name}", dependency=state.name)
    yield sample(PROCESS_CPU, _cpu_ns(), daemon)
    yield sample(PROCESS_MEMORY, _memory_bytes(), daemon)


def _cpu_ns() -> int:
    """Return the CPU time of this process since its start, user and system, in nanoseconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return round((usage.ru_utime + usage.ru_stime) * 1_000_000_000)


def _memory_bytes() -> int:
    """Return the resident memory of this process in bytes: the second field of Linux's statm, in pages."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


system = SystemPollster()
