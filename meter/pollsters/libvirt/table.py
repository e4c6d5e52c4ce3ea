"""What is metered of a libvirt domain, as data: each meter and the statistics of libvirt that make its volume.

A new meter is a new row here and its line in ``README.rst``. Each tuple of rows is one pollster's.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Literal

from meter.pollsters.libvirt.counter_runs import label_of
from meter.pollsters.libvirt.rates import Change
from meter.pollsters.libvirt.sources import Described
from meter.pollsters.libvirt.sources import Difference
from meter.pollsters.libvirt.sources import DiskSum
from meter.pollsters.libvirt.sources import Existence
from meter.pollsters.libvirt.sources import Largest
from meter.pollsters.libvirt.sources import Parts
from meter.pollsters.libvirt.sources import Source
from meter.pollsters.libvirt.sources import Stat
from meter.pollsters.libvirt.sources import Subject
from meter.pollsters.libvirt.sources import VcpuSum
from meter.sample import MeterDefinition
from meter.sample import SampleType

Scope = Literal["domain", "state", "processors", "vcpu", "disk", "interface"]
"""What a row measures. *state* and *processors* are domains, with more metadata; see ``guests.py``."""

IfMissing = Literal["told", "counted", "usual"]
"""What comes of a domain that lacks the statistics. *counted*: an omission. *told*: one that is worth a line in the log.
*usual*: nothing, for they are only there where somebody has asked for them."""

_PREFIXES: Mapping[Scope, str] = {"vcpu": "vcpu.N.", "disk": "block.N.", "interface": "net.N."}


OCCUPIED = ("disk.device.allocation", "disk.allocation")
"""Space that a domain occupies while it is off as well, though libvirt may not say how much."""


@dataclass(frozen=True, slots=True)
class Row:
    """A meter of a domain or of its devices.

    ``sources`` are tried in order, and what the first gives is divided by ``divisor``; with a ``change``, it is
    compared with what the poll before gave. Domains that are shut off are left out unless ``when_off``: what libvirt
    tells of them then is old, or not theirs (libvirt 9.0 gave a shut-off QEMU domain of a user's session its own
    daemon's ``cpu.time``). The volume of a *composed* one is a sum, or may come from another source the next time: which
    it was is part of the run that the sample belongs to.
    """

    meter: MeterDefinition
    sources: tuple[Source, ...]
    scope: Scope = "domain"
    divisor: int = 1
    change: Change | None = None
    when_off: bool = False
    if_missing: IfMissing = "counted"
    composed: bool = False

    def reading(self, subject: Subject) -> tuple[int, int] | None:
        """Return what the first source gives that gives anything, and its index; raise :class:`~meter.pollsters.libvirt.sources.BadStat`."""
        for index, source in enumerate(self.sources):
            value = source.value(subject)
            if value is not None:
                return value, index
        return None

    def parts(self, subject: Subject) -> list[Parts | None]:
        """Return, for each source, what its value is made of; raise as above."""
        return [
            source.parts(subject)
            if isinstance(source, VcpuSum | DiskSum)
            else None
            if (value := source.value(subject)) is None
            else {source.text(subject.prefix): value}
            for source in self.sources
        ]

    def label(self, source: int, parts: Sequence[Parts | None], subject: Subject) -> str:
        """Name what the volume is made of, where it comes from ``source``."""
        kind = self.sources[source]
        if isinstance(kind, DiskSum):
            return label_of("", parts[source] or {}, "")
        if isinstance(kind, VcpuSum):
            return label_of("vcpu:", parts[source] or {}, subject.processors)
        return kind.text(subject.prefix)

    @property
    def counts(self) -> bool:
        """Whether it is a counter, or what becomes of one."""
        return self.change is not None or self.meter.type == "cumulative"

    @property
    def ends_with_run(self) -> bool:
        """Whether it is a gauge that a domain does not have while it is off."""
        return self.meter.type == "gauge" and not self.when_off and self.meter.name not in OCCUPIED

    def wanted(self, prefix: str) -> str:
        """Name the statistics, which begin with ``prefix``."""
        return " nor ".join(source.text(prefix) for source in self.sources)

    def origin(self) -> str:
        """Say what makes the volume, for people."""
        text = ", else ".join(source.text(_PREFIXES.get(self.scope, "")) for source in self.sources)
        if self.divisor != 1:
            text = f"({text}) / {self.divisor}" if " " in text else f"{text} / {self.divisor}"
        return text if self.change is None else f"{self.change}: {text}"


def _row(name: str, kind: SampleType, unit: str, *sources: Source | str, **more: object) -> Row:
    told = tuple(Stat(each) if isinstance(each, str) else each for each in sources)
    return Row(MeterDefinition(name, kind, unit), told, **more)  # type: ignore[arg-type]


def _rate(row: Row) -> Row:
    """The rate of a cumulative row, in its unit per second."""
    meter = MeterDefinition(f"{row.meter.name}.rate", "gauge", f"{row.meter.unit}/s")
    return replace(row, meter=meter, change="rate")


def _sum(row: Row) -> Row:
    """The sum of a row of disks over all disks of the domain: ``disk.device.x`` becomes ``disk.x``."""
    meter = replace(row.meter, name=row.meter.name.replace("disk.device.", "disk."))
    sources = tuple(DiskSum(source) for source in row.sources)
    return replace(row, meter=meter, scope="domain", sources=sources, composed=True)


KIB_IN_MIB = 1024

INSTANCE = (
    _row("instance", "gauge", "instance", Existence(), when_off=True),
    _row("instance:*", "gauge", "instance", Existence(), when_off=True),
    _row("power.state", "gauge", "state", "state.state", scope="state", when_off=True, if_missing="told"),
    _row("disk.root.size", "gauge", "GiB", Described("root_gb"), when_off=True, if_missing="usual"),
    _row("disk.ephemeral.size", "gauge", "GiB", Described("ephemeral_gb"), when_off=True, if_missing="usual"),
)

_CPU = _row(
    "cpu",
    "cumulative",
    "ns",
    VcpuSum(("time", "wait")),
    "cpu.time",
    scope="processors",
    if_missing="told",
    composed=True,
)
CPU = (
    _CPU,
    replace(_CPU, meter=MeterDefinition("cpu_util", "gauge", "%"), change="use of processors"),
    replace(_CPU, meter=MeterDefinition("cpu.delta", "delta", "ns"), change="delta"),
)

VCPUS = (
    _row("vcpus", "gauge", "vcpu", "vcpu.current", if_missing="told"),
    _row("vcpu.time", "cumulative", "ns", "time", scope="vcpu"),
    _row("vcpu.wait", "cumulative", "ns", "wait", scope="vcpu"),
    _row("vcpu.delay", "cumulative", "ns", "delay", scope="vcpu"),
)

MEMORY = (
    _row("memory", "gauge", "MiB", "balloon.current", divisor=KIB_IN_MIB, if_missing="told"),
    _row("memory.maximum", "gauge", "MiB", "balloon.maximum", divisor=KIB_IN_MIB),
    _row("memory.available", "gauge", "MiB", "balloon.available", divisor=KIB_IN_MIB),
    _row(
        "memory.usage",
        "gauge",
        "MiB",
        Difference("balloon.available", "balloon.usable"),
        Difference("balloon.available", "balloon.unused"),
        divisor=KIB_IN_MIB,
    ),
    _row("memory.resident", "gauge", "MiB", "balloon.rss", divisor=KIB_IN_MIB),
    _row("memory.caches", "gauge", "MiB", "balloon.disk_caches", divisor=KIB_IN_MIB),
    _row("memory.swap.in", "cumulative", "MiB", "balloon.swap_in", divisor=KIB_IN_MIB),
    _row("memory.swap.out", "cumulative", "MiB", "balloon.swap_out", divisor=KIB_IN_MIB),
    _row("memory.faults.major", "cumulative", "fault", "balloon.major_fault"),
    _row("memory.faults.minor", "cumulative", "fault", "balloon.minor_fault"),
    _row("memory.hugepages.allocated", "cumulative", "page", "balloon.hugetlb_pgalloc"),
    _row("memory.hugepages.failed", "cumulative", "page", "balloon.hugetlb_pgfail"),
)

PERF = (
    _row("memory.bandwidth.total", "gauge", "B/s", "perf.mbmt", if_missing="usual"),
    _row("memory.bandwidth.local", "gauge", "B/s", "perf.mbml", if_missing="usual"),
    _row("cpu_l3_cache", "gauge", "B", "perf.cmt", if_missing="usual"),
    _row("perf.cpu.cycles", "gauge", "cycle", "perf.cpu_cycles", if_missing="usual"),
    _row("perf.instructions", "gauge", "instruction", "perf.instructions", if_missing="usual"),
    _row("perf.cache.references", "gauge", "cache_ref", "perf.cache_references", if_missing="usual"),
    _row("perf.cache.misses", "gauge", "cache_miss", "perf.cache_misses", if_missing="usual"),
)

_TRANSFERS = (
    _row("disk.device.read.requests", "cumulative", "request", "rd.reqs", scope="disk"),
    _row("disk.device.read.bytes", "cumulative", "B", "rd.bytes", scope="disk"),
    _row("disk.device.write.requests", "cumulative", "request", "wr.reqs", scope="disk"),
    _row("disk.device.write.bytes", "cumulative", "B", "wr.bytes", scope="disk"),
)
_FLUSHES = _row("disk.device.flush.requests", "cumulative", "request", "fl.reqs", scope="disk")
_SPACE = (
    _row("disk.device.capacity", "gauge", "B", Largest(("capacity", "physical")), scope="disk", when_off=True),
    _row("disk.device.allocation", "gauge", "B", "allocation", scope="disk"),
    _row("disk.device.usage", "gauge", "B", "physical", scope="disk", when_off=True),
)
DISK_DEVICE = (
    *_TRANSFERS,
    *map(_rate, _TRANSFERS),
    _row("disk.device.read.latency", "cumulative", "ns", "rd.times", scope="disk"),
    _row("disk.device.write.latency", "cumulative", "ns", "wr.times", scope="disk"),
    _FLUSHES,
    _row("disk.device.flush.latency", "cumulative", "ns", "fl.times", scope="disk"),
    *_SPACE,
)
DISK = (*map(_sum, _TRANSFERS), *(_rate(_sum(row)) for row in _TRANSFERS), _sum(_FLUSHES), *map(_sum, _SPACE))

_BYTES = (
    _row("network.incoming.bytes", "cumulative", "B", "rx.bytes", scope="interface"),
    _row("network.outgoing.bytes", "cumulative", "B", "tx.bytes", scope="interface"),
)
_PACKETS = (
    _row("network.incoming.packets", "cumulative", "packet", "rx.pkts", scope="interface"),
    _row("network.outgoing.packets", "cumulative", "packet", "tx.pkts", scope="interface"),
)
NETWORK = (
    *_BYTES,
    *_PACKETS,
    *map(_rate, (*_BYTES, *_PACKETS)),
    *(replace(row, meter=MeterDefinition(f"{row.meter.name}.delta", "delta", "B"), change="delta") for row in _BYTES),
    _row("network.incoming.packets.drop", "cumulative", "packet", "rx.drop", scope="interface"),
    _row("network.outgoing.packets.drop", "cumulative", "packet", "tx.drop", scope="interface"),
    _row("network.incoming.packets.error", "cumulative", "packet", "rx.errs", scope="interface"),
    _row("network.outgoing.packets.error", "cumulative", "packet", "tx.errs", scope="interface"),
)

FAMILIES = {
    "instance": INSTANCE,
    "cpu": CPU,
    "vcpus": VCPUS,
    "memory": MEMORY,
    "perf": PERF,
    "disk": DISK,
    "disk.device": DISK_DEVICE,
    "network.interface": NETWORK,
}
"""The rows of each pollster."""

TAKES = {
    "memory": ("balloon.available", "a balloon driver in the guest that tells"),
    "perf": ("perf.", "events of the processor, which <perf> in the XML of a domain enables"),
}
"""What some pollsters take that a running domain need not have: how its statistics begin, and what it is."""
