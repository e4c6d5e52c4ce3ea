"""What all benchmarks share: options, the settings they print, medians with their range, comparisons, exit codes.

A benchmark measures each figure several times, in turn with a baseline that uses Meter as little as possible, and prints
the median, the minimum and the maximum, and the ratio to the baseline, which is taken run by run. It counts what came out
and compares it with what went in. Exit codes:

====  ======================================================================
0     everything was measured, and every comparison was equal
1     a comparison differs: the line that begins with ``DIFFERS`` says which
2     wrong options, or something that is needed is not installed
====  ======================================================================
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Coroutine
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from math import floor
from math import log10
from pathlib import Path
from statistics import median
from typing import Any

import psycopg2
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from meter import __version__
from meter.daemon.services import sleep
from tests.servers import postgresql
from tests.servers import rabbitmq

ROOT = Path(__file__).parents[1]

RUNS = 5
"""How many times each figure is measured unless ``--runs`` says otherwise."""

STALLED_SECONDS = 30.0
"""How long a benchmark waits for the next message before it counts what there is, unless ``--stalled-seconds`` says otherwise."""

BUSY_LOAD = 0.5
"""Load average from which on other work is said to have run beside a benchmark."""

MODES = {
    "durable": {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"},
    "not-durable": {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"},
}
"""Settings of PostgreSQL by mode. Only ``durable`` keeps what it has committed when its host loses power."""

SHARED_BUFFERS = "1GB"

SHOWN_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")


class NotInstalled(Exception):
    """What the benchmark needs is not there; the text is a sentence that says what to install."""


def number(value: float) -> str:
    """Return ``value`` with three significant digits and thousands apart: ``32 100``, ``0.270``."""
    if value == 0:
        return "0"
    digits = 2 - floor(log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}".replace(",", " ")


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several runs, and the smallest and largest of them."""

    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Collection[float]) -> Spread:
        """Return the spread of ``values``, of which there is at least one."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.minimum)} to {number(self.maximum)})"


@dataclass(slots=True)
class _Figure:
    unit: str
    baseline: str | None
    values: list[float | None] = field(default_factory=list)


class Table:
    """Figures by name, one value a run. ``baseline`` names the figure that another is divided by, run by run."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._figures: dict[str, _Figure] = {}

    def add(self, name: str, value: float | None, unit: str, baseline: str | None = None) -> None:
        """Add the value of one run to the figure ``name``; ``None`` where a run was too short to have one."""
        self._figures.setdefault(name, _Figure(unit, baseline)).values.append(value)

    def spread(self, name: str) -> Spread | None:
        """Return the spread of a figure; ``None`` where no run has a value."""
        values = [value for value in self._figures[name].values if value is not None]
        return Spread.of(values) if values else None

    def ratio(self, name: str) -> Spread | None:
        """Return the spread of a figure's ratios to its baseline; ``None`` where there is none, or it is 0."""
        figure = self._figures[name]
        if figure.baseline is None:
            return None
        pairs = zip(figure.values, self._figures[figure.baseline].values, strict=True)
        ratios = [value / base for value, base in pairs if base and value is not None]
        return Spread.of(ratios) if ratios else None

    def lines(self) -> Iterator[str]:
        """Yield the lines of the table: figure, median and range, unit, ratio to the baseline."""
        rows = [(self._title, "median (min to max)", "", "ratio (min to max) to")]
        for name, figure in self._figures.items():
            ratio = self.ratio(name)
            compared = f"{ratio} {figure.baseline}" if ratio else ""
            rows.append((name, str(self.spread(name) or "not measured"), figure.unit, compared))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for first, second, third, last in rows:
            yield f"{first:{widths[0]}}  {second:{widths[1]}}  {third:{widths[2]}}  {last}".rstrip()


class Report:
    """What a benchmark prints, and whether what it counted was right."""

    def __init__(self, write: Callable[[str], object] = print) -> None:
        self._write = write
        self.compared = 0
        self.differences = 0

    def line(self, text: str = "") -> None:
        """Print a line at once: a benchmark takes minutes."""
        self._write(text)
        sys.stdout.flush()

    def table(self, table: Table) -> None:
        """Print a table."""
        self.line()
        for line in table.lines():
            self.line(line)

    def compare(self, what: str, expected: object, found: object) -> None:
        """Compare what came out with what had to; the benchmark ends with exit code 1 if they differ."""
        self.compared += 1
        if expected != found:
            self.differences += 1
            if isinstance(expected, Mapping) and isinstance(found, Mapping):
                names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
                expected, found = ({name: each.get(name) for name in names} for each in (expected, found))
            self.line(f"DIFFERS: {what}: expected {_shortened(expected)}, found {_shortened(found)}")

    def compare_ids(self, what: str, expected: Collection[str], found: Collection[str]) -> None:
        """Compare ids: each of ``expected`` has to be there once, and nothing else."""
        known, there = set(expected), set(found)
        self.compare(
            f"ids of {what}",
            {"missing": 0, "unexpected": 0, "twice": 0},
            {"missing": len(known - there), "unexpected": len(there - known), "twice": len(found) - len(there)},
        )

    def conclude(self) -> int:
        """Print the result of all comparisons and return the exit code."""
        self.line()
        if not self.compared:
            self.line("FAILED: nothing was compared")
        elif self.differences:
            self.line(f"FAILED: {self.differences} of {self.compared} comparisons differ")
        else:
            self.line(f"compared: {self.compared}, all equal")
            return 0
        return 1


def _shortened(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 400 else f"{text[:200]} … {text[-200:]}"


# --- the command ---------------------------------------------------------------------------------------------------


Benchmark = Callable[[Any, Report, argparse.Namespace], Coroutine[Any, Any, None]]
"""Measures with a reactor and the options, and reports."""


def parser(description: str | None, *, runs: int = RUNS) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--runs", type=_positive, default=runs, help="how many times each figure is measured (%(default)s)"
    )
    return made


def with_postgresql(made: argparse.ArgumentParser, mode: str) -> argparse.ArgumentParser:
    """Add the options of a benchmark that starts PostgreSQL; ``mode`` is the default of ``--mode``."""
    made.add_argument(
        "--mode",
        choices=[*MODES, "both"],
        default=mode,
        help="PostgreSQL with fsync and synchronous_commit on, off, or one after the other (%(default)s)",
    )
    made.add_argument("--shared-buffers", default=SHARED_BUFFERS, help="of PostgreSQL (%(default)s)")
    return made


def with_stall(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the option of a benchmark that waits for messages."""
    made.add_argument(
        "--stalled-seconds",
        type=float,
        default=STALLED_SECONDS,
        help="how long to wait for the next message before counting (%(default)s)",
    )
    return made


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def modes(options: argparse.Namespace) -> list[str]:
    """Return the modes that ``--mode`` asks for."""
    return list(MODES) if options.mode == "both" else [options.mode]


def run(benchmark: Benchmark, options: argparse.Namespace) -> None:
    """Run a benchmark in the reactor and exit with its exit code."""

    async def measured(reactor: Any) -> None:
        report = Report()
        report.line(f"command: python -m benchmarks.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".rstrip())
        report.line(f"measured: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}, runs {options.runs}")
        report.line(f"machine: {machine()}; {load('before')}")
        try:
            await benchmark(reactor, report, options)
        except NotInstalled as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(2) from None
        report.line()
        report.line(load("after"))
        raise SystemExit(report.conclude())

    react(lambda reactor: Deferred.fromCoroutine(measured(reactor)))


def commit() -> str:
    """Return the commit of the checkout, with ``+`` where files differ from it; the version where there is no Git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"unknown (version {__version__})"
    return described.stdout.strip()


def machine() -> str:
    """Return the processors, memory, kernel and Python that a figure depends on."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores, {total:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def load(when: str) -> str:
    """Return the load average of the last minute, and whether other work was running before the benchmark began."""
    average = os.getloadavg()[0]
    beside = ", measured beside other work" if when == "before" and average > BUSY_LOAD else ""
    return f"load average {when}: {average:.1f}{beside}"


# --- servers -------------------------------------------------------------------------------------------------------


@contextmanager
def directory() -> Iterator[Path]:
    """Make a directory that other users, such as PostgreSQL's, may enter; remove it in the end."""
    with tempfile.TemporaryDirectory(prefix="meter-benchmark-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextmanager
def postgresql_server(report: Report, mode: str, options: argparse.Namespace) -> Iterator[postgresql.PostgreSQL]:
    """Run a private PostgreSQL in ``mode`` and print with which settings it was started."""
    binaries = postgresql.installed()
    if binaries is None:
        raise NotInstalled(postgresql.INSTALL)
    with directory() as path:
        settings = {**MODES[mode], "shared_buffers": options.shared_buffers, "autovacuum_naptime": "1min"}
        server = postgresql.PostgreSQL(binaries, path, settings)
        try:
            server.start()
            report.line()
            report.line(
                f"{settings_of(mode, server.url)}; its disk takes {number(fsync_milliseconds(path))} ms for an fsync"
            )
            yield server
        finally:
            server.kill()


def fsync_milliseconds(where: Path) -> float:
    """Return the median time of writing 8 KiB to a file and having it on disk: what a durable commit waits for."""
    times = []
    with (where / "fsync").open("wb") as file:
        for _ in range(20):
            file.write(bytes(8192))
            file.flush()
            begin = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begin)
    return median(times) * 1000


def settings_of(mode: str, dsn: str) -> str:
    """Return a line with the settings that the PostgreSQL at ``dsn`` has, as the server reports them."""
    asked = ", ".join(f"current_setting('{name}')" for name in SHOWN_SETTINGS)
    [(version, *values)] = rows(dsn, f"SELECT current_setting('server_version'), {asked}")
    reported = ", ".join(f"{name} {value}" for name, value in zip(SHOWN_SETTINGS, values, strict=True))
    return f"{mode}: PostgreSQL {version.split()[0]} with {reported}"


@contextmanager
def rabbitmq_server(report: Report) -> Iterator[rabbitmq.RabbitMQ]:
    """Run a private RabbitMQ."""
    sbin = rabbitmq.installed()
    if sbin is None:
        raise NotInstalled(rabbitmq.INSTALL)
    with directory() as path:
        server = rabbitmq.RabbitMQ(sbin, path)
        try:
            server.start()
            release = sbin.parent.name.removeprefix("rabbitmq_server-")
            report.line(f"RabbitMQ {release}: one node, durable classic queues, persistent messages, one scheduler")
            yield server
        finally:
            server.close()


def rows(dsn: str, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """Return the rows of a statement; waits for them without the reactor."""
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def stored_ids(dsn: str) -> list[str]:
    """Return the ``message_id`` of every sample that is stored."""
    return [name for (name,) in rows(dsn, "SELECT message_id::text FROM sample")]


async def until_ready(reactor: Any, dependency: Any) -> None:
    """Wait until a dependency that was started can be used."""
    while not dependency.readiness().ready:
        await sleep(reactor, 0.01)


async def until_counted(
    reactor: Any, count: Callable[[], float], expected: float, *, every: float, stalled_seconds: float
) -> bool:
    """Wait until ``count()`` has reached ``expected``; return whether it did before it stood still for too long."""
    last, changed = count(), reactor.seconds()
    while last < expected:
        await sleep(reactor, every)
        now = count()
        if now != last:
            last, changed = now, reactor.seconds()
        elif reactor.seconds() - changed > stalled_seconds:
            return False
    return True


# --- time ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds on the wall and of the processor, in this process with all its threads."""

    wall: float
    processor: float


async def timed(work: Awaitable[object]) -> Took:
    """Await ``work`` and return how long it took."""
    wall, processor = time.perf_counter(), time.process_time()
    await work
    return Took(time.perf_counter() - wall, time.process_time() - processor)


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in user and system mode, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_megabytes(pid: int | str, name: str = "VmHWM") -> float:
    """Return how much memory a process has (``VmRSS``), or had at its largest (``VmHWM``), in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"the kernel does not report {name}")
