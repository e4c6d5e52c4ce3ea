"""What is metered of a libvirt domain, as data: each meter and the statistics of libvirt that make its volume.

A new meter is a new row here, its provider in ``__init__.py`` and its line in ``README.rst``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from meter.sample import MeterDefinition

Stats = Mapping[str, int | float | str | bool]
"""Statistics of one domain by libvirt's names, as in ``virsh domstats``."""

LARGEST = 2**63 - 1
"""libvirt says 2**64 - 1 where it means -1: unknown."""
MOST_VCPUS = 4096


class BadStat(ValueError):
    """A statistic that cannot be a volume; the text says which, and what it holds."""


def number(stats: Stats, name: str) -> int | None:
    """Return the statistic ``name``, a whole number, or ``None`` where libvirt gives none; raise :class:`BadStat`."""
    value = stats.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise BadStat(f"{name} should be a whole number from 0 to 2**63 - 1, not {value!r}")
    return value


class Source(Protocol):
    """Where a volume comes from; as text it names the statistics."""

    def value(self, stats: Stats) -> int | None:
        """Return the value, or ``None`` where libvirt does not give what it takes; raise :class:`BadStat`."""


@dataclass(frozen=True, slots=True)
class Existence:
    """1 for every domain there is."""

    def value(self, stats: Stats) -> int:
        """Return 1."""
        return 1

    def __str__(self) -> str:
        return "the domain exists"


@dataclass(frozen=True, slots=True)
class Stat:
    """One statistic as it is."""

    name: str

    def value(self, stats: Stats) -> int | None:
        """Return the statistic."""
        return number(stats, self.name)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class VcpuSum:
    """Statistics of virtual processors, summed over all that are plugged in.

    Their numbers may have gaps. Where a plugged processor lacks one of the statistics there is no sum: part of it
    would look like a counter that was reset.
    """

    names: tuple[str, ...]

    def value(self, stats: Stats) -> int | None:
        """Return the sum, or ``None``."""
        plugged = number(stats, "vcpu.current")
        numbers = range(min(number(stats, "vcpu.maximum") or 0, MOST_VCPUS))
        values = [[number(stats, f"vcpu.{vcpu}.{name}") for name in self.names] for vcpu in numbers]
        complete = [[part for part in parts if part is not None] for parts in values if None not in parts]
        return sum(map(sum, complete)) if complete and len(complete) == plugged else None

    def __str__(self) -> str:
        return "Σ " + " + ".join(f"vcpu.N.{name}" for name in self.names)


@dataclass(frozen=True, slots=True)
class Row:
    """A meter of a domain. ``resource`` is the domain's UUID.

    ``sources`` are tried in order, and what the first gives is divided by ``divisor``. ``metadata`` maps keys to
    sources, for what this meter's samples say beyond :func:`~meter.pollsters.libvirt.guests.guest_of`. Domains that are
    shut off are left out unless ``when_off``: what libvirt tells of them then is old, or not theirs (libvirt 9.0 gave a
    shut-off QEMU domain of a user's session its own daemon's ``cpu.time``).
    """

    meter: MeterDefinition
    sources: tuple[Source, ...]
    divisor: int = 1
    when_off: bool = False
    metadata: tuple[tuple[str, Source], ...] = ()

    def volume(self, stats: Stats) -> int | float:
        """Return the volume; raise :class:`BadStat` where the statistics do not give it."""
        for source in self.sources:
            value = source.value(stats)
            if value is not None:
                return value if self.divisor == 1 else value / self.divisor
        raise BadStat(f"libvirt does not give {' nor '.join(map(str, self.sources))}")

    def origin(self) -> str:
        """Say which statistics make the volume, for people."""
        text = ", else ".join(map(str, self.sources))
        return text if self.divisor == 1 else f"{text} / {self.divisor}"


INSTANCE = Row(MeterDefinition("instance", "gauge", "instance"), (Existence(),), when_off=True)
CPU = Row(
    MeterDefinition("cpu", "cumulative", "ns"),
    (VcpuSum(("time", "wait")), Stat("cpu.time")),
    metadata=(("cpu_number", Stat("vcpu.current")),),
)
VCPUS = Row(MeterDefinition("vcpus", "gauge", "vcpu"), (Stat("vcpu.current"),))
MEMORY = Row(MeterDefinition("memory", "gauge", "MB"), (Stat("balloon.current"),), divisor=1024)

ROWS = (INSTANCE, CPU, VCPUS, MEMORY)
