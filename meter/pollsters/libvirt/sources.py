"""Where volumes come from: single statistics of libvirt, and what is reckoned from several of them."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Literal
from typing import Protocol

Stats = Mapping[str, int | float | str | bool]
"""Statistics of one domain by libvirt's names, as in ``virsh domstats``."""

Parts = Mapping[str, int]
"""What a sum is made of, by names that stay with it."""

LARGEST = 2**63 - 1
UNKNOWN = 2**64 - 1
"""libvirt says 2**64 - 1 where it means -1: unknown."""
MOST_DEVICES = 4096
"""Of one kind in a domain. QEMU takes some hundreds."""

Reason = Literal["unknown", "invalid"]


class BadStat(ValueError):
    """A statistic that cannot be a volume; the text says which, and what it holds. ``reason`` classifies it."""

    def __init__(self, text: str, reason: Reason = "invalid") -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(slots=True)
class Subject:
    """What one sample is about: a domain, or a device of one, whose statistics begin with ``prefix``.

    ``run`` changes when its counters start again, ``None`` where there is none; they start from zero unless
    ``from_zero`` is false. ``disks`` names by their devices the disks of a domain, ``processors`` tells apart virtual
    processors that had the same numbers.
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
    """Return the statistic ``name``, a whole number, or ``None`` where libvirt gives none; raise :class:`BadStat`."""
    value = stats.get(name)
    if value is None or (type(value) is int and 0 <= value <= LARGEST):
        return value
    if value == UNKNOWN:
        raise BadStat(f"{name} is unknown to libvirt", "unknown")
    raise BadStat(f"{name} should be a whole number from 0 to 2**63 - 1, not {value!r:.60}")


def devices(stats: Stats, kind: str) -> Iterator[str]:
    """Yield the prefixes of the statistics of each device: ``block.0.``, ``block.1.``…; raise :class:`BadStat`."""
    return (f"{kind}.{index}." for index in range(min(number(stats, f"{kind}.count") or 0, MOST_DEVICES)))


class Source(Protocol):
    """Where a volume comes from."""

    def value(self, subject: Subject) -> int | None:
        """Return the value, or ``None`` where libvirt does not give what it takes; raise :class:`BadStat`."""

    def text(self, prefix: str) -> str:
        """Name the statistics it takes, which begin with ``prefix``."""


@dataclass(frozen=True, slots=True)
class Existence:
    """1 for every domain there is."""

    def value(self, subject: Subject) -> int:
        """Return 1."""
        return 1

    def text(self, prefix: str) -> str:
        """Say that there is nothing more to it."""
        return "the domain exists"


@dataclass(frozen=True, slots=True)
class Stat:
    """One statistic as it is."""

    name: str

    def value(self, subject: Subject) -> int | None:
        """Return the statistic."""
        return number(subject.stats, subject.prefix + self.name)

    def text(self, prefix: str) -> str:
        """Name it."""
        return prefix + self.name


@dataclass(frozen=True, slots=True)
class Difference:
    """One statistic less another; nothing where that would be negative."""

    name: str
    less: str

    def value(self, subject: Subject) -> int | None:
        """Return the difference."""
        whole, part = (number(subject.stats, subject.prefix + name) for name in (self.name, self.less))
        if whole is None or part is None:
            return None
        if part > whole:
            raise BadStat(f"{self.less} should be at most {self.name}, {whole}, not {part}")
        return whole - part

    def text(self, prefix: str) -> str:
        """Name both."""
        return f"{prefix}{self.name} - {prefix}{self.less}"


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest of several statistics."""

    names: tuple[str, ...]

    def value(self, subject: Subject) -> int | None:
        """Return the largest of those that libvirt gives."""
        values = [number(subject.stats, subject.prefix + name) for name in self.names]
        return max((value for value in values if value is not None), default=None)

    def text(self, prefix: str) -> str:
        """Name them."""
        return f"max({', '.join(prefix + name for name in self.names)})"


@dataclass(frozen=True, slots=True)
class Described:
    """What the domain's description says: a key of its metadata."""

    key: str

    def value(self, subject: Subject) -> int | None:
        """Return the number that the description has."""
        value: int | None = subject.metadata[self.key]
        return value

    def text(self, prefix: str) -> str:
        """Name the key."""
        return f"{self.key} of the flavor"


@dataclass(frozen=True, slots=True)
class VcpuSum:
    """Statistics of virtual processors, summed over all that are plugged in.

    Their numbers may have gaps. Where a plugged processor lacks one of the statistics there is no sum: part of it
    would look like a counter that was reset.
    """

    names: tuple[str, ...]

    def value(self, subject: Subject) -> int | None:
        """Return the sum, or ``None``."""
        parts = self.parts(subject)
        return None if parts is None else sum(parts.values())

    def parts(self, subject: Subject) -> Parts | None:
        """Return what is summed, by the numbers of the processors, or ``None``."""
        stats = subject.stats
        plugged = number(stats, "vcpu.current")
        complete: dict[str, int] = {}
        for index in range(min(number(stats, "vcpu.maximum") or 0, MOST_DEVICES)):
            parts = [number(stats, f"vcpu.{index}.{name}") for name in self.names]
            if None not in parts:
                complete[str(index)] = sum(parts)  # type: ignore[arg-type]
        return complete if complete and len(complete) == plugged else None

    def text(self, prefix: str) -> str:
        """Name them."""
        return f"Σ ({' + '.join(f'vcpu.N.{name}' for name in self.names)})"


@dataclass(frozen=True, slots=True)
class DiskSum:
    """One source summed over all disks of a domain.

    A drive without a medium need not have it. Where a disk with one lacks it there is no sum, for the same reason as
    above.
    """

    source: Source

    def value(self, subject: Subject) -> int | None:
        """Return the sum, or ``None``."""
        parts = self.parts(subject)
        return None if parts is None else sum(parts.values())

    def parts(self, subject: Subject) -> Parts | None:
        """Return what is summed, by the names of the disks, or ``None``."""
        stats = subject.stats
        found: dict[str, int] = {}
        for prefix in devices(stats, "block"):
            value = self.source.value(Subject(stats, prefix, "", {}, None))
            if value is not None:
                name = str(stats.get(f"{prefix}name", prefix))
                found[subject.disks.get(name, name)] = value
            elif f"{prefix}path" in stats or f"{prefix}url" in stats:
                return None
        return found or None

    def text(self, prefix: str) -> str:
        """Name what is summed."""
        return f"Σ {self.source.text('block.N.')}"
