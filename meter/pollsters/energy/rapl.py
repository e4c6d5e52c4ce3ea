"""The energy counters of the host's processors (RAPL), as Linux shows them in ``/sys/class/powercap``.

A counter is in microjoules, and begins again at 0 beyond its ``max_energy_range_uj``: every quarter of an hour to every hour under load.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")

ASSUMED_MAX_POWER_UW = {"package": 700_000_000, "dram": 150_000_000}
"""What a zone without a power limit takes at most, over minutes: more than the processors of 2026 and their memory."""


class EnergyUnreadable(Exception):
    """A counter cannot be read; the text names the file and says why."""


@dataclass(frozen=True, slots=True)
class EnergyZone:
    """A counter of a processor package, or of the memory at one: ``package-0``, ``package-0/dram``."""

    name: str
    path: Path
    range_uj: int
    max_power_uw: int

    def read_uj(self) -> int:
        """Return the counter; raise :class:`EnergyUnreadable`."""
        return _number(self.path / "energy_uj")

    def increase_uj(self, last: int, now: int, seconds: float) -> int | None:
        """Return by how much the counter has grown from ``last`` to ``now``; ``None`` if it may have begun again more than once."""
        if seconds * self.max_power_uw >= self.range_uj:
            return None
        return now - last if now >= last else self.range_uj - last + now


def energy_zones(powercap: Path = POWERCAP) -> list[EnergyZone]:
    """Return the zones that do not overlap: packages and their memory; raise :class:`EnergyUnreadable` if there are none.

    The zones *core* and *uncore* are parts of a package, and *psys* is all of a notebook: both would be counted twice.
    """
    try:
        found = list(_zones(powercap))
    except OSError as error:
        raise EnergyUnreadable(f"{error.filename}: {error.strerror}") from None
    if not found:
        raise EnergyUnreadable(f"{powercap} has no counters of processors (intel-rapl:*)")
    for zone in found:
        zone.read_uj()
    return found


def _zones(powercap: Path) -> Iterator[EnergyZone]:
    for package in sorted(powercap.glob("intel-rapl:*")):
        if package.name.count(":") != 1:
            continue
        name = _text(package / "name")
        if name.startswith("package"):
            yield _zone(name, package)
            for part in sorted(powercap.glob(f"{package.name}:*")):
                if _text(part / "name") == "dram":
                    yield _zone(f"{name}/dram", part)


def _zone(name: str, path: Path) -> EnergyZone:
    """Return the zone at ``path``. Its first limit is what it may take on the average of some seconds; a tenth more is allowed for."""
    try:
        limit = _number(path / "constraint_0_power_limit_uw")
    except EnergyUnreadable:
        limit = 0
    assumed = ASSUMED_MAX_POWER_UW["dram" if name.endswith("/dram") else "package"]
    return EnergyZone(name, path, _number(path / "max_energy_range_uj"), limit * 11 // 10 or assumed)


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()


def _number(path: Path) -> int:
    try:
        return int(_text(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a number"
        raise EnergyUnreadable(f"{path}: {reason}") from None


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """How long the host's processors have worked, and how long they could have, since it was started; in ticks, all together."""

    busy: int
    all: int

    @staticmethod
    def read(path: Path = Path("/proc/stat")) -> CpuTimes:
        """Return the times; raise :class:`EnergyUnreadable`."""
        try:
            fields = [int(each) for each in path.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
            user, nice, system, idle, iowait, irq, softirq, steal = fields
        except (OSError, ValueError) as error:
            raise EnergyUnreadable(f"{path}: {error}") from None
        busy = user + nice + system + irq + softirq + steal  # the time of guests is in user and nice
        return CpuTimes(busy, busy + idle + iowait)


def readings(zones: list[EnergyZone]) -> Mapping[str, int]:
    """Return the counters of all ``zones`` by name; raise :class:`EnergyUnreadable`."""
    return {zone.name: zone.read_uj() for zone in zones}
