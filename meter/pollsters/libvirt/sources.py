"""The sources of volumes: single statistics of libvirt, and values computed from several of them."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal
from typing import Protocol

from meter.flavor_gpus import BadExtraSpec
from meter.flavor_gpus import FlavorGpuOptions
from meter.flavor_gpus import flavor_gpus

Stats = Mapping[str, int | float | str | bool]
"""Statistics of one domain by libvirt's names, as in ``virsh domstats``."""

Parts = Mapping[str, int]
"""The parts of a sum, by the names of disks or the numbers of vCPUs."""

MAX_VALUE = 2**63 - 1
UNKNOWN = 2**64 - 1
"""libvirt reports 2**64 - 1, an unsigned -1, for an unknown value."""
MAX_DEVICES = 4096
"""How many devices of one kind of a domain are read. QEMU permits some hundreds."""

Reason = Literal["unknown", "invalid"]


class BadStat(ValueError):
    """A statistic that is not a valid volume; the text has its name and value. ``reason`` is a metric label."""

    def __init__(self, text: str, reason: Reason = "invalid") -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(slots=True)
class Measured:
    """What one sample measures: a domain, or a device of one, whose statistics have the prefix ``prefix``.

    ``run`` is the name of the run of its counters, ``None`` if the domain is not running; a run starts from zero unless
    ``from_zero`` is false. ``disks`` maps the devices of a domain's disks to names that are not reused. ``processors``
    distinguishes sets of vCPUs that have the same numbers.
    """

    stats: Stats
    prefix: str
    resource_id: str
    metadata: Mapping[str, Any]
    run: str | None
    from_zero: bool = True
    disks: Mapping[str, str] = field(default_factory=dict)
    processors: str = ""


def number(stats: Stats, name: str) -> int | None:
    """Return the statistic ``name``, an integer, ``None`` if libvirt does not provide it; raise :class:`BadStat`."""
    value = stats.get(name)
    if value is None or (type(value) is int and 0 <= value <= MAX_VALUE):
        return value
    if value == UNKNOWN:
        raise BadStat(f"{name} is unknown to libvirt", "unknown")
    raise BadStat(f"{name} should be an integer from 0 to 2**63 - 1, not {value!r:.60}")


def devices(stats: Stats, kind: str) -> Iterator[str]:
    """Yield the prefixes of the statistics of each device: ``block.0.``, ``block.1.``…; raise :class:`BadStat`."""
    return (f"{kind}.{index}." for index in range(min(number(stats, f"{kind}.count") or 0, MAX_DEVICES)))


class VolumeSource(Protocol):
    """The source of a volume."""

    def value(self, measured: Measured) -> int | None:
        """Return the value, ``None`` if libvirt does not provide the statistics; raise :class:`BadStat`."""

    def text(self, prefix: str) -> str:
        """Return a formula of the statistics, which have the prefix ``prefix``."""


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value for every domain."""

    constant: int

    def value(self, measured: Measured) -> int:
        """Return the constant."""
        return self.constant

    def text(self, prefix: str) -> str:
        """Return the constant."""
        return str(self.constant)


@dataclass(frozen=True, slots=True)
class Stat:
    """One statistic."""

    name: str

    def value(self, measured: Measured) -> int | None:
        """Return the statistic."""
        return number(measured.stats, measured.prefix + self.name)

    def text(self, prefix: str) -> str:
        """Return the name of the statistic."""
        return prefix + self.name


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two statistics, which must not be negative."""

    name: str
    less: str

    def value(self, measured: Measured) -> int | None:
        """Return the difference."""
        minuend, subtrahend = (number(measured.stats, measured.prefix + name) for name in (self.name, self.less))
        if minuend is None or subtrahend is None:
            return None
        if subtrahend > minuend:
            raise BadStat(f"{self.less} should be at most {self.name}, {minuend}, not {subtrahend}")
        return minuend - subtrahend

    def text(self, prefix: str) -> str:
        """Return the difference as a formula."""
        return f"{prefix}{self.name} - {prefix}{self.less}"


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest of several statistics."""

    names: tuple[str, ...]

    def value(self, measured: Measured) -> int | None:
        """Return the largest of the statistics that libvirt provides."""
        values = [number(measured.stats, measured.prefix + name) for name in self.names]
        return max((value for value in values if value is not None), default=None)

    def text(self, prefix: str) -> str:
        """Return the maximum as a formula."""
        return f"max({', '.join(prefix + name for name in self.names)})"


@dataclass(frozen=True, slots=True)
class FromMetadata:
    """A number in the metadata of the domain."""

    key: str

    def value(self, measured: Measured) -> int | None:
        """Return the number."""
        value: int | None = measured.metadata[self.key]
        return value

    def text(self, prefix: str) -> str:
        """Return the name of the number."""
        return f"{self.key} of the flavor"


@dataclass(frozen=True, slots=True)
class FromFlavor:
    """The number of GPUs, or of parts of GPUs if ``virtual``, that the flavor of the domain asks for."""

    virtual: bool
    options: FlavorGpuOptions

    def value(self, measured: Measured) -> int | None:
        """Return the number, ``None`` if the flavor asks for none."""
        try:
            asked = flavor_gpus(measured.metadata["flavor"]["extra_specs"], self.options)
        except BadExtraSpec as error:
            raise BadStat(str(error)) from None
        return (asked.vgpus if self.virtual else asked.gpus) or None

    def text(self, prefix: str) -> str:
        """Return where the number comes from."""
        return "extra specs of the flavor"


@dataclass(frozen=True, slots=True)
class VcpuSum:
    """Statistics of vCPUs, summed over all that are plugged in.

    Their numbers may have gaps. If a plugged vCPU lacks one of the statistics there is no sum: a partial sum would look
    like a reset of the counter.
    """

    names: tuple[str, ...]

    def value(self, measured: Measured) -> int | None:
        """Return the sum, or ``None``."""
        parts = self.parts(measured)
        return None if parts is None else sum(parts.values())

    def parts(self, measured: Measured) -> Parts | None:
        """Return the addends, by the numbers of the vCPUs, or ``None``."""
        stats = measured.stats
        plugged = number(stats, "vcpu.current")
        complete: dict[str, int] = {}
        for index in range(min(number(stats, "vcpu.maximum") or 0, MAX_DEVICES)):
            parts = [number(stats, f"vcpu.{index}.{name}") for name in self.names]
            if None not in parts:
                complete[str(index)] = sum(parts)  # type: ignore[arg-type]
        return complete if complete and len(complete) == plugged else None

    def text(self, prefix: str) -> str:
        """Return the sum as a formula."""
        return f"Σ ({' + '.join(f'vcpu.N.{name}' for name in self.names)})"


@dataclass(frozen=True, slots=True)
class DiskSum:
    """One source, summed over all disks of a domain.

    A drive without a medium may lack the value. If another disk lacks it there is no sum: a partial sum would look like
    a reset of the counter.
    """

    source: VolumeSource

    def value(self, measured: Measured) -> int | None:
        """Return the sum, or ``None``."""
        parts = self.parts(measured)
        return None if parts is None else sum(parts.values())

    def parts(self, measured: Measured) -> Parts | None:
        """Return the addends, by the names of the disks, or ``None``."""
        stats = measured.stats
        found: dict[str, int] = {}
        for prefix in devices(stats, "block"):
            value = self.source.value(Measured(stats, prefix, "", {}, None))
            if value is not None:
                name = str(stats.get(f"{prefix}name", prefix))
                found[measured.disks.get(name, name)] = value
            elif f"{prefix}path" in stats or f"{prefix}url" in stats:
                return None
        return found or None

    def text(self, prefix: str) -> str:
        """Return the sum as a formula."""
        return f"Σ {self.source.text('block.N.')}"
