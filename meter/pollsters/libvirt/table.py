"""The meters of libvirt domains, as data: each meter and the statistics of libvirt from which its volume is computed.

A new meter needs a row here and its line in ``README.rst``. Each tuple of rows belongs to one pollster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from typing import Literal

from meter.flavor_gpus import GPUS
from meter.flavor_gpus import VGPUS
from meter.flavor_gpus import FlavorGpuOptions
from meter.pollsters.libvirt.rates import Change
from meter.pollsters.libvirt.sources import Constant
from meter.pollsters.libvirt.sources import Difference
from meter.pollsters.libvirt.sources import DiskSum
from meter.pollsters.libvirt.sources import FromFlavor
from meter.pollsters.libvirt.sources import FromMetadata
from meter.pollsters.libvirt.sources import Largest
from meter.pollsters.libvirt.sources import Measured
from meter.pollsters.libvirt.sources import Parts
from meter.pollsters.libvirt.sources import Stat
from meter.pollsters.libvirt.sources import VcpuSum
from meter.pollsters.libvirt.sources import VolumeSource
from meter.sample import MeterDefinition
from meter.sample import SampleType

Scope = Literal["domain", "state", "processors", "vcpu", "disk", "interface", "gpu", "vgpu", "flavor"]
"""What a row measures. *state* and *processors* measure domains too, with more metadata, and *flavor* those whose extra specs
the XML has; see ``guests.py``."""

FROM_XML: tuple[Scope, ...] = ("gpu", "vgpu", "flavor")
"""What the XML of a domain has, devices or what its flavor asks for: one that it does not have any more is gone."""

IfMissing = Literal["logged", "counted", "optional"]
"""What happens if a domain lacks the statistics. *counted*: counted as skipped. *logged*: counted and logged.
*optional*: neither, because the statistics exist only if they are enabled."""

_PREFIXES: Mapping[Scope, str] = {"vcpu": "vcpu.N.", "disk": "block.N.", "interface": "net.N."}


OCCUPIED = ("disk.device.allocation", "disk.allocation")
"""Gauges of space that a domain occupies while it is shut off too, though libvirt may not provide it then."""


@dataclass(frozen=True, slots=True)
class MeterRow:
    """A meter of a domain or of its devices.

    ``sources`` are tried in order; the value of the first that has one is divided by ``divisor`` or, with a ``change``,
    compared with the value of the previous poll. Domains that are shut off are metered only with ``when_off``: the other
    statistics of such a domain are outdated or not its own (libvirt 9.0 reported its daemon's own ``cpu.time`` for a
    shut-off QEMU domain of a user's session). With ``zero_when_off`` a domain of Nova is metered as 0 while it is shut off, because
    Nova's notifications say all the time what its flavor reserves; one without Nova may run on another host. The volume of a *composed* row is a sum or may come from another source in
    a later poll; its source is part of the sample's run.
    """

    meter: MeterDefinition
    sources: tuple[VolumeSource, ...]
    scope: Scope = "domain"
    divisor: int = 1
    change: Change | None = None
    when_off: bool = False
    zero_when_off: bool = False
    if_missing: IfMissing = "counted"
    composed: bool = False

    def read(self, measured: Measured) -> tuple[int, int] | None:
        """Return the value of the first source that has one, and its index; raise :class:`~meter.pollsters.libvirt.sources.BadStat`."""
        for index, source in enumerate(self.sources):
            value = source.value(measured)
            if value is not None:
                return value, index
        return None

    def parts(self, measured: Measured) -> list[Parts | None]:
        """Return the parts of the value of each source; raise like :meth:`read`."""
        return [
            source.parts(measured)
            if isinstance(source, VcpuSum | DiskSum)
            else None
            if (value := source.value(measured)) is None
            else {source.text(measured.prefix): value}
            for source in self.sources
        ]

    def label(self, source_index: int, measured: Measured) -> str:
        """Return a text that names the source, for the name of a run."""
        source = self.sources[source_index]
        if isinstance(source, DiskSum | VcpuSum):
            return "disks" if isinstance(source, DiskSum) else "vcpus"
        return source.text(measured.prefix)

    @property
    def is_counter(self) -> bool:
        """Whether the row reads a counter, which it sends as such, or as a change."""
        return self.change is not None or self.meter.type == "cumulative"

    @property
    def ends_with_run(self) -> bool:
        """Whether it is a gauge that a domain does not have while it is shut off."""
        return self.meter.type == "gauge" and not self.when_off and self.meter.name not in OCCUPIED

    @property
    def ends_with_device(self) -> bool:
        """Whether it is a gauge of what the XML has, which is gone as soon as it is not measured."""
        return self.scope in FROM_XML

    def needed_statistics(self, prefix: str) -> str:
        """Return the names of the statistics, with ``prefix``, as text."""
        return " or ".join(source.text(prefix) for source in self.sources)

    def formula(self) -> str:
        """Return how the volume is computed, as text for the README."""
        text = ", else ".join(source.text(_PREFIXES.get(self.scope, "")) for source in self.sources)
        if self.divisor != 1:
            text = f"({text}) / {self.divisor}" if " " in text else f"{text} / {self.divisor}"
        return text if self.change is None else f"{self.change}: {text}"


def _row(name: str, kind: SampleType, unit: str, *sources: VolumeSource | str, **options: object) -> MeterRow:
    parsed = tuple(Stat(each) if isinstance(each, str) else each for each in sources)
    return MeterRow(MeterDefinition(name, kind, unit), parsed, **options)  # type: ignore[arg-type]


def _rate(row: MeterRow) -> MeterRow:
    """Return the row of the rate of a cumulative row, in its unit per second."""
    meter = MeterDefinition(f"{row.meter.name}.rate", "gauge", f"{row.meter.unit}/s")
    return replace(row, meter=meter, change="rate")


def _sum(row: MeterRow) -> MeterRow:
    """Return the row of the sum over all disks of a domain: ``disk.device.x`` becomes ``disk.x``."""
    meter = replace(row.meter, name=row.meter.name.replace("disk.device.", "disk."))
    sources = tuple(DiskSum(source) for source in row.sources)
    return replace(row, meter=meter, scope="domain", sources=sources, composed=True)


KIB_IN_MIB = 1024

INSTANCE = (
    _row("instance", "gauge", "instance", Constant(1), when_off=True),
    _row("instance:*", "gauge", "instance", Constant(1), when_off=True),
    _row("power.state", "gauge", "state", "state.state", scope="state", when_off=True, if_missing="logged"),
    _row("disk.root.size", "gauge", "GiB", FromMetadata("root_gb"), when_off=True, if_missing="optional"),
    _row("disk.ephemeral.size", "gauge", "GiB", FromMetadata("ephemeral_gb"), when_off=True, if_missing="optional"),
)

_CPU = _row(
    "cpu",
    "cumulative",
    "ns",
    VcpuSum(("time", "wait")),
    "cpu.time",
    scope="processors",
    if_missing="logged",
    composed=True,
)
CPU = (
    _CPU,
    replace(_CPU, meter=MeterDefinition("cpu_util", "gauge", "%"), change="utilization"),
    replace(_CPU, meter=MeterDefinition("cpu.delta", "delta", "ns"), change="delta"),
)

VCPUS = (
    _row("vcpus", "gauge", "vcpu", "vcpu.current", zero_when_off=True, if_missing="logged"),
    _row("vcpu.time", "cumulative", "ns", "time", scope="vcpu"),
    _row("vcpu.wait", "cumulative", "ns", "wait", scope="vcpu"),
    _row("vcpu.delay", "cumulative", "ns", "delay", scope="vcpu"),
)

MEMORY = (
    _row("memory", "gauge", "MiB", "balloon.current", divisor=KIB_IN_MIB, zero_when_off=True, if_missing="logged"),
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
    _row("memory.bandwidth.total", "gauge", "B/s", "perf.mbmt", if_missing="optional"),
    _row("memory.bandwidth.local", "gauge", "B/s", "perf.mbml", if_missing="optional"),
    _row("cpu_l3_cache", "gauge", "B", "perf.cmt", if_missing="optional"),
    _row("perf.cpu.cycles", "gauge", "cycle", "perf.cpu_cycles", if_missing="optional"),
    _row("perf.instructions", "gauge", "instruction", "perf.instructions", if_missing="optional"),
    _row("perf.cache.references", "gauge", "cache_ref", "perf.cache_references", if_missing="optional"),
    _row("perf.cache.misses", "gauge", "cache_miss", "perf.cache_misses", if_missing="optional"),
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

GPU = (
    _row("gpu", "gauge", "gpu", Constant(1), scope="gpu", when_off=True),
    _row("vgpu", "gauge", "vgpu", Constant(1), scope="vgpu", when_off=True),
)


def flavor_gpu_rows(options: FlavorGpuOptions) -> tuple[MeterRow, ...]:
    """Return the rows of the GPUs that flavors ask for; ``options`` says which names stand for GPUs."""
    return tuple(
        MeterRow(
            meter,
            (FromFlavor(virtual=meter is VGPUS, options=options),),
            scope="flavor",
            when_off=True,
            if_missing="optional",
        )
        for meter in (GPUS, VGPUS)
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
    "gpu": GPU,
    "flavor.gpus": flavor_gpu_rows(FlavorGpuOptions()),
}
"""The rows of each pollster, with its default options."""

REQUIREMENTS = {
    "memory": ("balloon.available", "the statistics of a balloon driver in the guest"),
    "perf": ("perf.", "perf events, which <perf> in the XML of a domain enables"),
}
"""What a pollster needs that a running domain may lack: the prefix of the statistics, and a description."""
