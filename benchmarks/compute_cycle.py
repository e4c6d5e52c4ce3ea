"""What a polling cycle of the compute agent costs: from the statistics of domains to signed bytes in the spool on disk.

    python benchmarks/compute_cycle.py [DOMAINS ...]

Domains are copies of a captured one, XML and statistics, with an interface and a guest's balloon driver added, of 61
samples each from the second cycle on; the hypervisor is pretended, everything from the pollsters to SQLite is real. Each line is the
third cycle of its size: processor time of the whole process per sample, memory, and how late the reactor was in the cycle,
measured every millisecond.

Seen on a 2-core machine with three to ten other processes at work: 28 to 36 µs per sample for 10 to 1 000 domains, less than 55 for 5 000.
Nine of ten turns of the reactor were less than 20 ms late; the latest, up to 0.2 s, grew with the load of the machine, so measure
that on a quiet one. (The polling agent of Ceilometer 27 takes 236 µs per sample.)
"""

from __future__ import annotations

import gc
import itertools
import re
import resource
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.task import react

from meter.cycle import Surroundings
from meter.interfaces import Domain
from meter.interfaces import IHypervisor
from meter.metrics import PollingMetrics
from meter.metrics import metrics_registry
from meter.polling import Polling
from meter.pollsters import libvirt
from meter.registry import COMPUTE
from meter.registry import Decision
from meter.settings import Config
from meter.signature import keyring
from meter.spool import Spool
from meter.testing import FakeHypervisor
from meter.threads import CallThread

DATA = Path(__file__).parents[1] / "tests/data/libvirt"
UUID = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
BUCKETS_MS = (1, 5, 10, 20, 50)


def stats_of(cycle: int) -> dict[str, Any]:
    """The captured statistics, with counters that have grown."""
    text = (DATA / "nova-instance.domstats.txt").read_text()
    found = re.findall(r"^  (\S+?)=(.*)$", text, re.MULTILINE)
    stats: dict[str, Any] = {name: int(value) if value.isdecimal() else value for name, value in found}
    stats |= {"net.count": 1, "net.0.name": "tap0"}
    stats |= {f"net.0.{way}.{name}": 1000 for way in ("rx", "tx") for name in ("bytes", "pkts", "errs", "drop")}
    stats |= {f"balloon.{name}": 40000 for name in ("available", "usable", "swap_in", "swap_out", "disk_caches")}
    for name, value in stats.items():
        if re.search(r"time|wait|delay|reqs|bytes|pkts", name) and isinstance(value, int):
            stats[name] = value + 1000 * cycle
    return stats


def hosts_domains(number: int) -> list[Domain]:
    xml = (DATA / "nova-instance.xml").read_text()
    identities = [str(uuid.UUID(int=index + 1)) for index in range(number)]
    return [Domain(each, f"cloud-{each[-8:]}", xml.replace(UUID, each), {}, run=1) for each in identities]


def with_stats(domains: list[Domain], cycle: int) -> list[Domain]:
    stats = stats_of(cycle)
    return [Domain(each.uuid, each.name, each.xml, dict(stats), run=1) for each in domains]


async def measured(reactor: Any, directory: Path, number: int) -> str:
    hypervisor = FakeHypervisor(uri="qemu:///system")
    here = Surroundings("meter-compute", Config(), reactor, {IHypervisor: hypervisor})
    thread = CallThread(reactor, "spool")
    spool = Spool(
        directory / f"{number}.spool",
        largest_bytes=2**40,
        longest_age_seconds=1e9,
        clock=reactor,
        run=lambda function, *arguments: thread.call(lambda: function(*arguments)),
    )
    polling = Polling(
        here,
        spool.put,
        keyring(["secret"]),
        source="openstack",
        timeout_seconds=600,
        batch_samples=100,
        metrics=PollingMetrics(metrics_registry("benchmark")),
    )
    pollsters = [value for value in vars(libvirt).values() if isinstance(value, libvirt.GuestPollster)]
    polling.pollsters = tuple(
        Decision(kind=COMPUTE, name=each.name, origin="", state="active", plugin=each) for each in pollsters
    )
    domains = hosts_domains(number)
    for cycle in range(3):
        hypervisor.running = with_stats(domains, cycle)
        gc.collect()
        late: list[float] = []
        lag = lag_measured(reactor, late)
        began = time.process_time(), time.perf_counter()
        report = await polling.cycle()
        cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
        lag.stop()
        await sleep_past_a_second(reactor, wall)
    await spool.close()
    thread.finish()
    counts = [sum(1 for each in late if each * 1000 <= most) for most in BUCKETS_MS]
    steps = [counts[0], *(after - before for before, after in itertools.pairwise(counts))]
    histogram = " ".join(f"{count:6}" for count in [*steps, len(late) - counts[-1]])
    return (
        f"{number:7} {report.samples:8} {1e6 * cpu / report.samples:8.1f} {wall:7.2f}"
        f" {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:7.0f} {1000 * max(late, default=0):7.1f}  {histogram}"
    )


def lag_measured(reactor: Any, late: list[float]) -> LoopingCall:
    due = [reactor.seconds()]

    def look() -> None:
        late.append(max(0.0, reactor.seconds() - due[0] - 0.001))
        due[0] = reactor.seconds()

    loop = LoopingCall(look)
    loop.clock = reactor
    loop.start(0.001, now=False)
    return loop


async def sleep_past_a_second(reactor: Any, wall: float) -> None:
    waiting: Deferred[None] = Deferred()
    reactor.callLater(max(0.0, 1.05 - wall), waiting.callback, None)
    await waiting


async def main(reactor: Any, *arguments: str) -> None:
    buckets = " ".join(f"≤{most:5}" for most in BUCKETS_MS)
    sys.stdout.write(f"domains  samples µs/sample  wall s  MB max  lag ms  {buckets}   more\n")
    with tempfile.TemporaryDirectory() as directory:
        for number in [int(each) for each in arguments] or [10, 100, 1000, 5000]:
            sys.stdout.write(await measured(reactor, Path(directory), number) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    react(lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:])
