"""What growth costs: a simulated region writes days, months and years into a store, which is then measured.

Instances come and go (one in twenty is replaced every day, :mod:`benchmarks.simulated_region`), are resized and migrated, and belong to
three sources. The days before the last ``--delivered-days`` are made by SQL statements; those, and the cycles that are measured, go
through the collector's own pipeline: messages as the bus delivers them are verified, batched and stored in a process of its
own, some of them twice, others a day late. The database's clock is set to the region's time. Once a day maintenance runs as in a
collector: hours are finalized, old weeks packed, samples expire, and unused rows of the dimension tables are deleted.

``--sizes`` are *instances* x *days* x *polls a day*, and x *visitors*: more instances of every day that live for one poll, so that there are many series
and few samples. All figures of a size are also printed divided by those of the first one.
Processor time is that of the collector and of all processes of PostgreSQL. Questions go over HTTP to ``twistd meter-api``; they are
those of ``benchmarks.questions`` about a limited time, one resource or one project, and the lists.

Counted are the samples that were sent, stored, recognized as duplicates, and have expired; what is in the store in the end is compared
with what was sent by number and by a checksum of the ids, week by week, and the dimension tables with what these samples refer to.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from statistics import median
from statistics import quantiles
from typing import Any

from benchmarks import measuring
from benchmarks.api import answers
from benchmarks.api import body
from benchmarks.api import daemons
from benchmarks.api import until_listening
from benchmarks.measuring import Report
from benchmarks.measuring import number
from benchmarks.questions import LISTS
from benchmarks.questions import Question
from benchmarks.questions import questions
from benchmarks.region_writing import DAY
from benchmarks.region_writing import Processors
from benchmarks.region_writing import Simulation
from benchmarks.road import tree
from benchmarks.simulated_region import BEGINNING
from benchmarks.simulated_region import INTERVAL_SECONDS
from benchmarks.simulated_region import METERS
from meter.daemon.services import sleep

HOUR = timedelta(hours=1)

MINUTES = 2000
"""The time before the end of the samples that questions are about."""

GROWING = (
    "all",
    "all resources",
    "all meters",
    "one resource",
    "34 windows, no start",
    "per resource",
    "per resource and hour",
)
"""Questions whose answers, or the time that they are about, grow with the region; they are asked with ``--growing``."""

ONE_INSTANCE = {"metadata.display_name": "instance-0-0"}
"""Metadata that one instance has in a region of any size; with a flavor, the more have it the larger the region is."""

Figures = dict[str, tuple[float, str]]
"""By name: the value and its unit."""

Answers = dict[str, tuple[float, float, float, float]]
"""By question: median and 99th percentile in ms, processor time of an answer in ms, memory of the API after it in MiB."""

BYTES = """
SELECT sum(pg_total_relation_size(c.oid))::float8,
    sum(pg_total_relation_size(c.oid)) FILTER (WHERE c.relname IN ('series', 'metadata', 'resource', 'user', 'project', 'wire_format'))::float8
FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
"""
GARBAGE = "SELECT coalesce(sum(rows), 0)::float8 FROM garbage_collected"


def write_cycles(written: Simulation, processors: Processors, figures: Figures, cycles: int) -> datetime:
    """Write polling cycles of a day from 10:00 on; return the time after the last one."""
    at = BEGINNING + written.days * DAY + timedelta(hours=10)
    rates: list[dict[str, float]] = []
    written.set_clock(at)
    written.collector("prepare", at)
    for _ in range(cycles):
        written.set_clock(at + timedelta(minutes=1))
        processors.since()
        samples = written.deliver(written.agents.polls(written.days, at))
        used = processors.since()
        if samples:  # all polls of a very small region may come later
            rates.append({name: seconds / samples * 1e6 for name, seconds in used.items()})
        at += timedelta(seconds=INTERVAL_SECONDS)
    for title, part in (("first cycle", rates[:1]), ("later cycles", rates[1:])):
        for name in rates[0]:
            figures[f"a sample of the {title}: {name}"] = median(each[name] for each in part or rates), "µs of a core"
        figures[f"a sample of the {title}"] = median(sum(each.values()) for each in part or rates), "µs of a core"
    return at


def maintain(written: Simulation, processors: Processors, now: datetime) -> tuple[Mapping[str, float], float]:
    """Set the clock and run maintenance; return the seconds of its parts, and of all processors."""
    written.set_clock(now)
    processors.since()
    seconds = written.collector("maintain")
    return seconds, sum(processors.since().values())


async def measure_maintenance(written: Simulation, figures: Figures, at: datetime) -> None:
    """Finalize the hour that was written, and again after what comes late; run maintenance that has nothing to do."""
    processors = Processors(written)
    end = at.replace(minute=20) + timedelta(hours=1)
    [(samples,)] = written.execute(
        "SELECT count(*) FROM sample WHERE timestamp >= %s", [end.replace(hour=10, minute=0)]
    )
    _, used = maintain(written, processors, end)
    figures["finalizing an hour"] = used, "s of a core"
    figures["finalizing an hour, a sample"] = used / samples * 1e6, "µs of a core"
    written.deliver_late()
    _, used = maintain(written, processors, end + timedelta(minutes=1))
    figures["finalizing it again after late samples"] = used, "s of a core"
    uses = [maintain(written, processors, end + timedelta(minutes=2 + n))[1] for n in range(10)]
    figures["maintenance with nothing to do"] = sum(uses) / len(uses) * 1000, "ms of a core"


def measure_start(written: Simulation, figures: Figures) -> None:
    """Start another collector."""
    figures["memory of the collector"] = measuring.memory_megabytes(written.collector.pid, "VmRSS"), "MiB"
    written.collector.close()
    written.collector = written.start_collector()
    pid = written.collector.pid
    figures["start of the collector"] = measuring.processor_seconds(pid), "s of a core"
    figures["memory of a collector that has started"] = measuring.memory_megabytes(pid, "VmRSS"), "MiB"


def measure_expiry(written: Simulation, figures: Figures, now: datetime) -> None:
    """Let a week pass, in which the oldest one expires."""
    processors = Processors(written)
    [(before,)] = written.execute(GARBAGE)
    seconds, used = maintain(written, processors, now + 7 * DAY)
    figures["a week expires"] = seconds["expire"], "s"
    collecting, all_used, runs = seconds["collect_garbage"], used, 1
    while written.collector("garbage_remains"):
        more, used = maintain(written, processors, now + 7 * DAY + timedelta(minutes=runs))
        collecting, all_used, runs = collecting + more["collect_garbage"], all_used + used, runs + 1
    [(after,)] = written.execute(GARBAGE)
    figures["garbage collection"] = collecting, "s"
    figures["runs of maintenance that it takes"] = float(runs), ""
    figures["rows that it deletes"] = after - before, ""
    if after > before:
        figures["expiry and garbage collection, a deleted row"] = all_used / (after - before) * 1e6, "µs of a core"


def paths(end: datetime, growing: bool) -> Iterator[tuple[str, str]]:
    """Yield the questions by name."""
    asked = {name: question.path for name, question in questions(end, MINUTES).items()}
    begin = end - (MINUTES - 180) * timedelta(minutes=1)
    asked |= {
        f"metadata of one instance, {title}": Question(
            start=begin + odd, end=begin + 8 * HOUR + 2 * odd, equals=ONE_INSTANCE
        ).path
        for title, odd in (("8 h", timedelta()), ("8 h with odd ends", timedelta(minutes=7)))
    }
    asked |= {name: path for name, (path, _, _) in LISTS.items()}
    for name, path in asked.items():
        grows = name in GROWING or "no start" in name
        if not grows or growing:
            yield f"{name} (grows)" if grows else name, path


def nanoseconds(pids: Sequence[int]) -> int:
    """Return the processor time of the main threads of processes."""
    found = 0
    for pid in pids:
        try:
            found += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


async def ask(
    reactor: Any, written: Simulation, report: Report, figures: Figures, end: datetime, options: argparse.Namespace
) -> Answers:
    """Ask an API of its own all questions; return times and memory."""
    found = {}
    with measuring.directory() as directory, daemons(directory / "one", written.dsn, 1) as (port, [process]):
        await until_listening(reactor, directory / "one", [process])
        figures["start of the API"] = measuring.processor_seconds(process.pid), "s of a core"
        figures["memory of an API that has started"] = measuring.memory_megabytes(process.pid, "VmRSS"), "MiB"
        await _first(reactor, port)
        for name, path in paths(end, options.growing):
            await answers(port, path, 2)
            before = nanoseconds([process.pid, *tree(written.server.pid)])
            seconds = sorted(taken for taken, _ in await answers(port, path, options.answers))
            used = nanoseconds([process.pid, *tree(written.server.pid)]) - before
            found[name] = (
                median(seconds) * 1000,
                (quantiles(seconds, n=100)[98] if len(seconds) > 1 else seconds[0]) * 1000,
                used / len(seconds) / 1e6,
                measuring.memory_megabytes(process.pid, "VmRSS"),
            )
        counted = json.loads(await body(port, f"/v2/meters/{METERS[0][0]}/statistics"))
        retained = sum(samples for samples, _ in written.expected().values())
        report.compare(
            "samples that statistics count", retained // written.region.meters, sum(row["count"] for row in counted)
        )
    return found


async def _first(reactor: Any, port: int) -> None:
    """Ask until the API is connected to the database."""
    while True:
        try:
            await body(port, "/v2/meters?limit=1")
            return
        except OSError:
            await sleep(reactor, 0.1)


async def measure(
    reactor: Any, report: Report, server: Any, size: tuple[int, ...], options: argparse.Namespace
) -> Figures:
    """Write a region of a size and return its figures."""
    written = Simulation(report, server, options, *size)
    figures: Figures = {}
    try:
        begin = time.perf_counter()
        written.write_history()
        figures["writing the history"] = time.perf_counter() - begin, "s"
        while written.collector("garbage_remains"):  # in a store that runs for long, a day's runs have deleted it
            written.collector("maintain")
        [(series,)] = written.execute("SELECT count(*) FROM series WHERE resource_id > 0")
        figures["samples that were sent"] = float(sum(each.samples for each in written.sent.values())), ""
        figures["series in the store"] = float(series), ""
        figures["series that are measured"] = float(written.region.instances * written.region.meters), ""
        at = write_cycles(written, Processors(written), figures, options.cycles)
        await measure_maintenance(written, figures, at)
        samples = sum(count for count, _ in written.expected().values())
        [(size_of_all, of_dimensions)] = written.execute(BYTES)
        figures["a retained sample"] = size_of_all / samples, "bytes"
        figures["dimension tables, a series"] = of_dimensions / series, "bytes"
        measure_start(written, figures)
        found = await ask(reactor, written, report, figures, at, options)
        written.set_clock(at + timedelta(hours=2))
        measure_expiry(written, figures, at)
        written.check()
    finally:
        written.close()
    return figures, found


def show(report: Report, sizes: list[str], found: list[tuple[Figures, Answers]]) -> None:
    """Print the figures of all sizes, and their ratios to those of the first."""
    first, asked = found[0]
    width = max(map(len, [*first, *asked]))
    report.line()
    report.line(f"{'':{width}}  " + "  ".join(f"{size:>18}" for size in sizes))
    for name, (value, unit) in first.items():
        cells = [_compared(each[name][0], value) if name in each else "" for each, _ in found]
        report.line(f"{name:{width}}  " + "  ".join(f"{each:>18}" for each in cells) + f"  {unit}")
    for column, title in enumerate(("p50, ms", "p99, ms", "processor, ms of a core", "memory of the API, MiB")):
        report.line()
        report.line(title)
        for name, values in asked.items():
            cells = [_compared(each[name][column], values[column]) for _, each in found]
            report.line(f"{name:{width}}  " + "  ".join(f"{each:>18}" for each in cells))


def _compared(value: float, first: float) -> str:
    return f"{number(value)} ({value / first:.2f})" if first else number(value)


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    for mode in measuring.modes(options):
        found = []
        for size in options.sizes:
            with measuring.postgresql_server(report, mode, options) as server:
                found.append(await measure(reactor, report, server, tuple(map(int, size.split("x"))), options))
        show(report, options.sizes, found)


def main() -> None:
    parser = measuring.with_postgresql(measuring.parser(__doc__, runs=1), "not-durable")
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["250x60x8", "2500x60x8"],
        help="instances x days x polls a day, x more instances that live for one poll every day; at least 20 instances (%(default)s)",
    )
    parser.add_argument(
        "--meters",
        type=int,
        choices=range(1, len(METERS) + 1),
        default=len(METERS),
        help="of an instance (%(default)s)",
    )
    parser.add_argument("--retention-days", type=float, default=42.0, help="(%(default)s)")
    parser.add_argument("--pack-after-days", type=float, default=14.0, help="(%(default)s)")
    parser.add_argument(
        "--delivered-days", type=int, default=1, help="of the history, that go through the collector (%(default)s)"
    )
    parser.add_argument("--cycles", type=int, default=4, help="that are measured, at most 12 (%(default)s)")
    parser.add_argument(
        "--late-every", type=int, default=50, help="of so many polls of an agent one comes a day late (%(default)s)"
    )
    parser.add_argument(
        "--twice-every", type=int, default=25, help="of so many polls of an agent one comes twice (%(default)s)"
    )
    parser.add_argument("--answers", type=int, default=20, help="of each question (%(default)s)")
    parser.add_argument("--growing", action="store_true", help="also questions whose answers grow with the region")
    parser.add_argument("--seed", type=int, default=20, help="from which all follows (%(default)s)")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
