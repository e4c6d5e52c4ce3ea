"""What a polling cycle of the compute agent costs: from libvirt's answer to signed bytes in the spool on disk.

Domains are copies of a captured one, XML and statistics, with an interface and a guest's balloon driver added. libvirt is
pretended, at the place where its C code makes Python's dictionaries, all at once and without letting go of the
interpreter; everything after it is real, SQLite and the disk included. Two cycles go before those that are measured: the first
reads all XML, the second has the first rates.

Printed are the processor time of the whole process per sample, beside that of the least that has to be done with the same
samples (to write them as JSON, one HMAC for each message, and to insert the messages into an SQLite file), how late the
reactor was, asked every millisecond, beside how late it is without work, and memory. With ``--memory`` thirty cycles are
polled instead, with domains that come and go in between, and the memory after them is compared with that after five.

Afterwards an agent with as many domains makes no cycle reports. What reports cost is printed as the processor time of the
functions that make them and of the thread that signs and writes them, beside the cycle with reports, and as the cycle without
them. The series in the reports are compared with those in the spool.

What the cycle reports is compared with the samples in the spool, their ids, and how many each domain has.

At last the outbox publishes the samples of each cycle to a RabbitMQ: printed is the processor time of the agent's process from
libvirt's answer until the broker has confirmed them, its part for the cycle and for the outbox, and of each the part that the
reactor's thread takes; the rest is the thread that reads and writes the spool, and frees what the others have allocated. What the
broker has in its queue is compared with the publications. ``--confirmed`` measures only this.
"""

from __future__ import annotations

import argparse
import gc
import hmac
import itertools
import json
import marshal
import re
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Sequence
from contextlib import asynccontextmanager
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.internet.task import LoopingCall

from benchmarks import measuring
from benchmarks.measuring import NotInstalled
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from meter.agent.cycle import PluginContext
from meter.agent.cycle_reports import AgentIdentity
from meter.agent.cycle_reports import CycleReporter
from meter.agent.cycle_reports import PollRecord
from meter.agent.measured_series import MeasuredSeries
from meter.agent.outbox import Outbox
from meter.agent.polling import CycleResult
from meter.agent.polling import Polling
from meter.agent.skip_notes import SkipNotes
from meter.agent.spool import Spool
from meter.bus.amqp import AmqpBus
from meter.bus.batches import METERING_EXCHANGE
from meter.cycle_report import CycleReport
from meter.cycle_report import SeriesGroup
from meter.cycle_report import cycle_report
from meter.daemon.metrics import PollingMetrics
from meter.daemon.metrics import PublishingMetrics
from meter.daemon.metrics import metrics_registry
from meter.daemon.report_metrics import CycleReportMetrics
from meter.daemon.services import sleep
from meter.daemon.threads import CallThread
from meter.hypervisor import LibvirtHypervisor
from meter.interfaces import Binding
from meter.interfaces import Delivery
from meter.interfaces import IHypervisor
from meter.interfaces import Subscription
from meter.plugins.registry import COMPUTE
from meter.plugins.registry import Decision
from meter.report import read_report
from meter.sample import Sample
from meter.settings import Config
from meter.signing_keys import keyring

DATA = measuring.ROOT / "tests/data/libvirt"
UUID = "1dc390e9-43cd-451d-9ae7-01c8bbbe4cac"
SAMPLES_OF_DOMAIN = 61
"""From the second cycle on, when rates are known."""
ANY_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BUCKETS_MS = (1, 5, 10, 20, 50)
IDLE_SECONDS = 1.0
QUEUE = "benchmark"
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


class TimedReporter(CycleReporter):
    """``seconds`` is the processor time that reports have taken."""

    seconds = 0.0

    async def cycle_ended(self, due: datetime, polls: Sequence[PollRecord], notes: SkipNotes) -> None:
        begun = time.process_time()  # of all threads: nothing else is done at the end of a cycle
        await super().cycle_ended(due, polls, notes)
        self.seconds += time.process_time() - begun


class SeriesTime:
    """``seconds`` is the processor time that all agents have taken to collect the series of samples."""

    seconds = 0.0

    @classmethod
    def measure(cls) -> None:
        """Measure it from now on."""
        add = MeasuredSeries.add

        def timed(series: MeasuredSeries, samples: Iterable[Sample]) -> None:
            begun = time.thread_time()
            add(series, samples)
            cls.seconds += time.thread_time() - begun

        MeasuredSeries.add = timed  # type: ignore[method-assign]


class Agent:
    """The part of a compute agent that makes samples and puts them on disk."""

    def __init__(self, reactor: Any, directory: Path, domains: int, *, reports: bool = True) -> None:
        self.reactor = reactor
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
            directory / f"{domains}-{reports}.spool",
            max_bytes=2**40,
            max_age_seconds=1e9,
            clock=reactor,
            run=lambda function, *arguments: self._thread.call(lambda: function(*arguments)),
        )
        keys = keyring(["secret"])
        registry = metrics_registry("benchmark")
        self._keys = keys
        self.reports: list[CycleReport] = []
        self.reporter = TimedReporter(
            AgentIdentity("meter-compute", "host", str(uuid.uuid4())),
            self._spool,
            keys,
            reactor,
            metrics=CycleReportMetrics(registry),
        )
        self._polling = Polling(
            PluginContext("meter-compute", Config(), reactor, {IHypervisor: self._hypervisor}),
            self._spool.put,
            keys,
            source="openstack",
            timeout_seconds=600,
            batch_samples=100,
            metrics=PollingMetrics(registry),
            reports=self.reporter if reports else None,
        )
        from meter.pollsters import libvirt  # it needs libvirt-python, which may not be installed

        pollsters = [value for value in vars(libvirt).values() if isinstance(value, libvirt.GuestPollster)]
        self._polling.pollsters = tuple(
            Decision(kind=COMPUTE, name=each.name, origin="", state="active", plugin=each) for each in pollsters
        )
        self._ended = 0.0

    async def prepare(self) -> None:
        """Let the counters grow, and wait until a rate can be computed."""
        self.connection.prepare()
        await sleep(self.reactor, max(0.0, self._ended + 1.05 - self.reactor.seconds()))

    async def spooled(self) -> AsyncIterator[bytes]:
        """Yield the bodies of the messages in the spool, and empty it."""
        while waiting := await self._spool.oldest(100):
            for each in waiting:
                yield each.publication.body
            await self._spool.remove([each.id for each in waiting])
        while found := await self._spool.oldest_reports(100):
            self.reports += [cycle_report(read_report(each.publication.body, self._keys).content) for each in found]
            await self._spool.remove_reports([each.id for each in found], {})

    async def cycle(self) -> CycleResult:
        report = await self._polling.cycle()
        self._ended = self.reactor.seconds()
        return report

    def outbox(self, bus: AmqpBus) -> Outbox:
        """Return an outbox that publishes what is in the spool, and closes it when it stops."""
        return Outbox(self._spool, bus, self.reactor, metrics=PublishingMetrics(metrics_registry("benchmark")))

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


def domain_of(resource_id: str) -> str:
    """Return the UUID in the id of a domain, or of a disk or interface of one."""
    found = ANY_UUID.search(resource_id)
    return found[0] if found else resource_id


class Spooled:
    """What was in the spool after a cycle, opened without Meter, and the processor time of the least to be done with it."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.series: set[tuple[str, str]] = set()
        self.samples = 0
        self.by_domain: Counter[str] = Counter()
        self.processor = 0.0

    async def take(self, agent: Agent, file: Path) -> None:
        """Empty the spool of ``agent`` and write everything once more into ``file``."""
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE IF NOT EXISTS bare (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
            async for body in agent.spooled():
                samples = json.loads(json.loads(body)["oslo.message"])["args"]["data"]
                self.ids.update(each["message_id"] for each in samples)
                self.samples += len(samples)
                self.by_domain.update(domain_of(each["resource_id"]) for each in samples)
                self.series.update((each["resource_id"], each["counter_name"]) for each in samples)
                begin = time.process_time()
                written = json.dumps({"oslo.message": json.dumps(samples)}).encode()
                hmac.digest(b"key", written, "sha256")
                database.execute("INSERT INTO bare (body) VALUES (?)", (written,))
                self.processor += time.process_time() - begin
            begin = time.process_time()
            database.commit()
            self.processor += time.process_time() - begin
            database.execute("DELETE FROM bare")
            database.commit()

    def compare(self, report: Report, cycle: CycleResult, domains: int, *, rates: bool) -> None:
        """Compare what a cycle reported, and what it had to make, with what is in the spool."""
        report.compare("pollsters that failed", "none", ", ".join(map(str, cycle.failed)) or "none")
        report.compare("samples in the spool", cycle.samples, self.samples)
        report.compare("ids in the spool", cycle.samples, len(self.ids))
        report.compare("domains with samples in the spool", domains, len(self.by_domain))
        if rates:
            of_domains = {
                "fewest": min(self.by_domain.values(), default=0),
                "most": max(self.by_domain.values(), default=0),
            }
            report.compare("samples of a domain", dict.fromkeys(of_domains, SAMPLES_OF_DOMAIN), of_domains)


def apply(known: set[tuple[str, str]], report: CycleReport) -> set[tuple[str, str]]:
    """Return the series, resource and meter, after a report; a pollster that is whole has them all."""
    whole = all(poll.whole for poll in report.polls)

    def of(groups: Iterable[SeriesGroup]) -> set[tuple[str, str]]:
        return {(resource, meter) for each in groups for resource in each.resources for meter in each.meters}

    known = set() if whole else known
    for poll in report.polls:
        known = (known - of(poll.removed)) | of(poll.series)
    return known


async def processor_of_cycle(agent: Agent) -> tuple[float, int]:
    """Return the processor time of a cycle, in seconds, and its samples; the lag is measured too, and the spool emptied."""
    async with lag_measured(agent.reactor, []):
        begun = time.process_time()
        cycle = await agent.cycle()
        used = time.process_time() - begun
    async for _ in agent.spooled():
        pass
    return used, cycle.samples


async def measure(reactor: Any, report: Report, directory: Path, domains: int, options: argparse.Namespace) -> None:
    agent = Agent(reactor, directory, domains)
    table = Table(f"{domains} domains")
    known: set[tuple[str, str]] = set()
    late: list[float] = []
    async with lag_measured(reactor, late):
        await sleep(reactor, IDLE_SECONDS)
    idle, all_late = max(late), []
    for cycle in range(options.runs + 2):
        await agent.prepare()
        late = []
        reported = agent.reporter.seconds + SeriesTime.seconds
        async with lag_measured(reactor, late):
            begun = time.process_time(), time.perf_counter()
            cycle_result = await agent.cycle()
            processor, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]
        reported = agent.reporter.seconds + SeriesTime.seconds - reported
        memory = measuring.memory_megabytes("self", "VmRSS")
        spooled = Spooled()
        await spooled.take(agent, directory / "bare.sqlite")
        spooled.compare(report, cycle_result, domains, rates=cycle > 0)
        known = apply(known, agent.reports.pop())
        report.compare("series that the reports state, and no other", len(spooled.series), len(known & spooled.series))
        all_late += late
        if cycle < 2 or not spooled.samples:
            continue
        table.add("JSON, HMAC and SQLite", spooled.processor / spooled.samples * 1e6, "µs of a core per sample")
        table.add("cycle", processor / spooled.samples * 1e6, "µs of a core per sample", "JSON, HMAC and SQLite")
        table.add("cycle reports", reported / spooled.samples * 1e6, "µs of a core per sample", "cycle")
        table.add("cycle, wall", wall, "s")
        table.add("worst lag without work", idle * 1000, "ms")
        table.add("worst lag", max(late) * 1000, "ms", "worst lag without work")
        table.add("memory", memory, "MiB")
    await agent.close()
    del agent
    gc.collect()
    agent = Agent(reactor, directory, domains, reports=False)
    for cycle in range(options.runs + 2):
        await agent.prepare()
        used, samples = await processor_of_cycle(agent)
        if cycle >= 2 and samples:
            table.add("cycle without reports", used / samples * 1e6, "µs of a core per sample", "cycle")
    await agent.close()
    report.table(table)
    counts = [sum(1 for each in all_late if each * 1000 <= most) for most in BUCKETS_MS]
    steps = [counts[0], *(after - before for before, after in itertools.pairwise(counts)), len(all_late) - counts[-1]]
    named = [*(f"≤ {most} ms" for most in BUCKETS_MS), "more"]
    shown = ", ".join(f"{name}: {count}" for name, count in zip(named, steps, strict=True))
    report.line(f"turns of the reactor in all cycles by lag: {shown}")


async def measure_confirmed(
    reactor: Any, report: Report, directory: Path, domains: int, options: argparse.Namespace
) -> None:
    with measuring.rabbitmq_server(report) as broker:
        bus = AmqpBus(reactor, broker.vhost(), clock=reactor)
        bus.startService()
        await measuring.until_ready(reactor, bus)
        subscription = Subscription(queue=QUEUE, bindings=(Binding(METERING_EXCHANGE, "#", ours=True),))
        counting = Counting()
        consumer = bus.subscribe(subscription, counting.receive)
        consumer.startService()  # declares the queue
        while not consumer.ready:
            await sleep(reactor, 0.05)
        await consumer.stopService()
        agent = Agent(reactor, directory / "confirmed", domains)
        table = Table(f"{domains} domains, to confirmed")
        sent = 0
        for cycle in range(options.runs + 2):
            await agent.prepare()
            begun = time.process_time(), time.thread_time()
            made = await agent.cycle()
            polled = time.process_time(), time.thread_time()
            outbox = agent.outbox(bus)
            outbox.startService()
            await outbox.when_empty()
            confirmed = time.process_time(), time.thread_time()
            await outbox.stopService()
            report.compare("samples that are confirmed", made.samples, outbox.confirmed_samples)
            sent += made.samples
            if cycle < 2:
                continue
            parts = {
                "to confirmed": confirmed[0] - begun[0],
                "cycle, to the spool": polled[0] - begun[0],
                "of it the reactor's thread, cycle": polled[1] - begun[1],
                "outbox, from the spool": confirmed[0] - polled[0],
                "of it the reactor's thread, outbox": confirmed[1] - polled[1],
            }
            for name, seconds in parts.items():
                table.add(name, seconds / made.samples * 1e6, "µs of a core per sample")
        await agent.close()
        consumer = bus.subscribe(subscription, counting.receive)
        consumer.startService()
        await measuring.until_counted(
            reactor, lambda: counting.samples, sent, every=0.05, stalled_seconds=options.stalled_seconds
        )
        await consumer.stopService()
        report.compare("samples in the broker", sent, counting.samples)
        report.table(table)
        await bus.stopService()


class Counting:
    """Counts the samples that arrive."""

    def __init__(self) -> None:
        self.samples = 0

    async def receive(self, delivery: Delivery) -> None:
        content = json.loads(json.loads(delivery.body)["oslo.message"])
        if content.get("method") == "record_metering_data":  # and not a cycle report
            self.samples += len(content["args"]["data"])


async def measure_memory(reactor: Any, report: Report, directory: Path, domains: int) -> None:
    agent = Agent(reactor, directory, domains)
    table = Table(f"{domains} domains, {CHANGES} replaced after each cycle")
    for cycle in range(1, CYCLES_WITH_CHANGES + 1):
        await agent.prepare()
        cycle_result = await agent.cycle()
        memory = measuring.memory_megabytes("self", "VmRSS")
        samples = 0
        async for body in agent.spooled():
            samples += body.count(b"message_id")
        report.compare("pollsters that failed", "none", ", ".join(map(str, cycle_result.failed)) or "none")
        report.compare("samples in the spool", cycle_result.samples, samples)
        agent.connection.change(CHANGES)
        if cycle % 5 == 0:
            table.add(f"memory after {cycle} cycles", memory, "MiB", "memory after 5 cycles" if cycle > 5 else None)
    await agent.close()
    report.table(table)


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    try:
        import libvirt  # noqa: F401
    except ImportError:
        raise NotInstalled("libvirt-python is not installed: pip install 'meter-cloud[compute]'") from None
    gc.freeze()  # as the daemons do
    SeriesTime.measure()
    with measuring.directory() as directory:
        if options.memory:
            await measure_memory(reactor, report, directory, (options.domains or [1000])[0])
            return
        for domains in options.domains or [100, 1000]:
            if not options.confirmed:
                await measure(reactor, report, directory, domains, options)
            await measure_confirmed(reactor, report, directory, domains, options)


def main() -> None:
    parser = measuring.with_stall(measuring.parser(__doc__, runs=3))
    parser.add_argument("--domains", type=int, nargs="*", help="numbers of domains, one after the other (100 1000)")
    parser.add_argument("--confirmed", action="store_true", help="only from libvirt to the confirms of the broker")
    parser.add_argument("--memory", action="store_true", help="thirty cycles, with domains that come and go")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
