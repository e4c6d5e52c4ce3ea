"""What a polling cycle of the compute agent costs: from libvirt's answer to signed bytes in the spool on disk.

    python benchmarks/compute_cycle.py [DOMAINS ...]        # by default 100 1000 5000
    python benchmarks/compute_cycle.py memory [DOMAINS]     # thirty cycles, with domains coming and going

Domains are copies of a captured one, XML and statistics, with an interface and a guest's balloon driver added, of 61
samples each from the second cycle on. libvirt is pretended, at the place where its C code makes Python's dictionaries,
all at once and without letting go of the interpreter; everything after it is real, SQLite and the disk included. A line
shows the third cycle of its size, in processor time of the whole process per sample, and how late the reactor was in all
three, the first of which reads all XML: asked every millisecond.

Seen on a quiet machine of 2 cores, the worst of three runs (the polling agent of Ceilometer 27 takes 236 µs per sample):

    domains  samples µs/sample  wall s     MB  lag ms  ≤    1 ≤    5 ≤   10 ≤   20 ≤   50   more
        100     6100      27.7    0.18     89    17.5      94     40     26      2      0      0
       1000    61000      29.8    1.89    149    12.4     892    562    165      7      0      0
       5000   305000      27.9    9.09    244    46.2    4089   2774    814      2     23      0

    1000 domains, after  5 cycles: 154 MB
    1000 domains, after 30 cycles: 152 MB

The turns of more than 20 ms with 5 000 domains are the making of libvirt's dictionaries and Python's looking for
reference cycles. With a RabbitMQ that takes the samples meanwhile, the lag with 1 000 domains was 15 ms at most.
"""

from __future__ import annotations

import gc
import itertools
import marshal
import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.task import react

from meter.agent.cycle import PluginContext
from meter.agent.polling import CycleReport
from meter.agent.polling import Polling
from meter.agent.spool import Spool
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import metrics_registry
from meter.daemon.services import sleep
from meter.daemon.threads import CallThread
from meter.hypervisor import LibvirtHypervisor
from meter.interfaces import IHypervisor
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision
from meter.pollsters import libvirt
from meter.settings import Config
from meter.signature import keyring

DATA = Path(__file__).parents[1] / "tests/data/libvirt"
UUID = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
BUCKETS_MS = (1, 5, 10, 20, 50)
CYCLES_WITH_CHANGES = 30
CHANGES = 20
"""Domains that go, and that come, between two cycles."""


def captured() -> dict[str, Any]:
    text = (DATA / "nova-instance.domstats.txt").read_text()
    found = re.findall(r"^  (\S+?)=(.*)$", text, re.MULTILINE)
    stats: dict[str, Any] = {name: int(value) if value.isdecimal() else value for name, value in found}
    stats |= {"net.count": 1, "net.0.name": "tap0"}
    stats |= {f"net.0.{way}.{name}": 1000 for way in ("rx", "tx") for name in ("bytes", "pkts", "errs", "drop")}
    return stats | {f"balloon.{name}": 40000 for name in ("available", "usable", "swap_in", "swap_out", "disk_caches")}


class PretendedDomain:
    """What the agent asks a ``libvirt.virDomain``."""

    def __init__(self, number: int, xml: str, connection: PretendedLibvirt) -> None:
        self._uuid = str(uuid.UUID(int=number + 1))
        self._xml = xml
        self._connection = connection

    def UUIDString(self) -> str:
        return self._uuid

    def name(self) -> str:
        return f"cloud-{self._uuid[-8:]}"

    def ID(self) -> int:
        return 1

    def XMLDesc(self) -> str:
        return self._xml.replace(UUID, self._uuid)

    def blockInfo(self, _: str) -> list[int]:
        """Return capacity, allocation and physical size in bytes."""
        return [2**30, 2**20, 2**20]

    def connect(self) -> PretendedLibvirt:
        return self._connection


class PretendedLibvirt:
    """What the agent asks a ``libvirt.virConnect``; the counters of its domains grow from call to call."""

    def __init__(self, domains: int) -> None:
        self._xml = (DATA / "nova-instance.xml").read_text()
        self._stats = captured()
        self._new = itertools.count()
        self.domains = [self._domain() for _ in range(domains)]

    def change(self, number: int) -> None:
        """Let so many domains go, and others come."""
        self.domains = [*self.domains[number:], *(self._domain() for _ in range(number))]

    def _domain(self) -> PretendedDomain:
        return PretendedDomain(next(self._new), self._xml, self)

    def prepare(self) -> None:
        """Let the counters grow."""
        for name, value in self._stats.items():
            if re.search(r"time|wait|delay|reqs|bytes|pkts", name) and isinstance(value, int):
                self._stats[name] = value + 1000
        # Version 0 has no references: each name is made anew for each domain, as libvirt's binding does.
        self._answer = marshal.dumps([self._stats] * len(self.domains), 0)

    def getAllDomainStats(self, *_: int) -> list[tuple[PretendedDomain, dict[str, Any]]]:
        return list(zip(self.domains, marshal.loads(self._answer), strict=True))

    def isAlive(self) -> bool:
        return True

    def close(self) -> None: ...

    def setKeepAlive(self, *_: int) -> None: ...

    def registerCloseCallback(self, *_: Any) -> None: ...

    def unregisterCloseCallback(self) -> None: ...

    def domainEventRegisterAny(self, *_: Any) -> int:
        return 0

    def domainEventDeregisterAny(self, _: int) -> None: ...


class Agent:
    """The part of a compute agent that makes samples and puts them on disk."""

    def __init__(self, reactor: Any, directory: Path, domains: int) -> None:
        self._reactor = reactor
        self.connection = PretendedLibvirt(domains)
        self._hypervisor = LibvirtHypervisor(
            "qemu:///pretended",
            clock=reactor,
            reactor_threads=reactor,
            timeout_seconds=60,
            open_connection=lambda _: self.connection,
        )
        self._thread = CallThread(reactor, "spool")
        self._spool = Spool(
            directory / f"{domains}.spool",
            largest_bytes=2**40,
            longest_age_seconds=1e9,
            clock=reactor,
            run=lambda function, *arguments: self._thread.call(lambda: function(*arguments)),
        )
        self._polling = Polling(
            PluginContext("meter-compute", Config(), reactor, {IHypervisor: self._hypervisor}),
            self._spool.put,
            keyring(["secret"]),
            source="openstack",
            timeout_seconds=600,
            batch_samples=100,
            metrics=PollingMetrics(metrics_registry("benchmark")),
        )
        pollsters = [value for value in vars(libvirt).values() if isinstance(value, libvirt.GuestPollster)]
        self._polling.pollsters = tuple(
            Decision(kind=COMPUTE, name=each.name, origin="", state="active", plugin=each) for each in pollsters
        )
        self._ended = 0.0

    async def prepare(self) -> None:
        """Empty the spool, and wait until a rate can be told."""
        while waiting := await self._spool.oldest(100):
            await self._spool.remove([each.id for each in waiting])
        self.connection.prepare()
        await sleep(self._reactor, max(0.0, self._ended + 1.05 - self._reactor.seconds()))

    async def cycle(self) -> CycleReport:
        report = await self._polling.cycle()
        self._ended = self._reactor.seconds()
        return report

    async def close(self) -> None:
        await self._hypervisor.stopService()
        await self._spool.close()
        self._thread.finish()


@asynccontextmanager
async def lag_measured(reactor: Any, late: list[float]) -> AsyncIterator[None]:
    await sleep(reactor, 0)
    last = [reactor.seconds()]

    def look() -> None:
        late.append(max(0.0, reactor.seconds() - last[0] - 0.001))
        last[0] = reactor.seconds()

    loop = LoopingCall(look)
    loop.clock = reactor
    loop.start(0.001, now=False)
    yield
    await sleep(reactor, 0.001)  # the last turn counts
    loop.stop()


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def check(report: CycleReport) -> None:
    """Fail where a pollster did: the figures of a cycle without its samples would look fast."""
    if report.failed:
        raise RuntimeError(f"pollsters failed: {report.failed}")


async def measured(reactor: Any, directory: Path, number: int) -> str:
    agent = Agent(reactor, directory, number)
    late: list[float] = []
    for _ in range(3):
        await agent.prepare()
        async with lag_measured(reactor, late):
            began = time.process_time(), time.perf_counter()
            report = await agent.cycle()
            cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
        check(report)
    await agent.close()
    counts = [sum(1 for each in late if each * 1000 <= most) for most in BUCKETS_MS]
    steps = [counts[0], *(after - before for before, after in itertools.pairwise(counts))]
    histogram = " ".join(f"{count:6}" for count in [*steps, len(late) - counts[-1]])
    return (
        f"{number:7} {report.samples:8} {1e6 * cpu / report.samples:9.1f} {wall:7.2f} {resident_mb():6.0f}"
        f" {1000 * max(late):7.1f}  {histogram}\n"
    )


async def memory_measured(reactor: Any, directory: Path, number: int) -> None:
    agent = Agent(reactor, directory, number)
    for cycle in range(1, CYCLES_WITH_CHANGES + 1):
        await agent.prepare()
        check(await agent.cycle())
        agent.connection.change(CHANGES)
        if cycle % 5 == 0:
            sys.stdout.write(f"{number} domains, after {cycle:2} cycles: {resident_mb():.0f} MB\n")
            sys.stdout.flush()
    await agent.close()


async def main(reactor: Any, *arguments: str) -> None:
    gc.freeze()  # as the daemons do
    with tempfile.TemporaryDirectory() as directory:
        if arguments[:1] == ("memory",):
            await memory_measured(reactor, Path(directory), int(arguments[1]) if arguments[1:] else 1000)
            return
        buckets = " ".join(f"≤{most:5}" for most in BUCKETS_MS)
        sys.stdout.write(f"domains  samples µs/sample  wall s     MB  lag ms  {buckets}   more\n")
        for number in [int(each) for each in arguments] or [100, 1000, 5000]:
            sys.stdout.write(await measured(reactor, Path(directory), number))
            sys.stdout.flush()


if __name__ == "__main__":
    react(lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:])
