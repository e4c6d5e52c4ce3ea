"""Writes the time of a simulated region into a store, keeps account of it, and compares what is stored in the end."""

from __future__ import annotations

import argparse
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from collections.abc import Mapping
from datetime import date
from datetime import datetime
from datetime import timedelta
from typing import Any

import psycopg2

from benchmarks import measuring
from benchmarks.measuring import Report
from benchmarks.region_history import CLOCK
from benchmarks.region_history import SEARCH_PATH
from benchmarks.region_history import SET_CLOCK
from benchmarks.region_history import History
from benchmarks.road import processor_seconds_with_ended
from benchmarks.road import tree
from benchmarks.simulated_region import BEGINNING
from benchmarks.simulated_region import CHECKSUM
from benchmarks.simulated_region import Agents
from benchmarks.simulated_region import Region
from benchmarks.simulated_region import Sent
from benchmarks.simulated_region import Tally
from meter.sample_identity import start_of_week
from meter.sample_identity import week_of
from meter.store.packing.packed_rows import unpacked
from tests.servers.postgresql import PostgreSQL

DAY = timedelta(days=1)
SENT_AT_ONCE = 5_000
"""Samples that are handed to the collector at once: a bus delivers no more before the first are acknowledged."""

STORED = f"""
SELECT date_trunc('week', timestamp, 'UTC')::date, count(*), {CHECKSUM} FROM (
    SELECT timestamp, message_id FROM sample
    UNION ALL {unpacked(("timestamp", "message_id"), first="'-infinity'::timestamptz", last="'infinity'::timestamptz")}
) AS every GROUP BY 1
"""


class Collector:
    """The process that stores; a method of :class:`benchmarks.region_collector.RegionCollector` for each command."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.region_collector", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=measuring.ROOT,
        )
        self.pid = self._process.pid
        self("start")

    def __call__(self, command: str, *arguments: Any) -> Any:
        """Execute a command and return its answer."""
        assert self._process.stdin is not None
        content = pickle.dumps((command, arguments))
        self._process.stdin.write(struct.pack("!I", len(content)) + content)
        self._process.stdin.flush()
        [length] = struct.unpack("!I", self._read(4))
        done, answer = pickle.loads(self._read(length))
        if not done:
            raise RuntimeError(answer)
        return answer

    def _read(self, length: int) -> bytes:
        assert self._process.stdout is not None
        found = self._process.stdout.read(length)
        if len(found) < length:
            raise RuntimeError(f"the collector ended with {self._process.wait()}")
        return found

    def close(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()
        for each in (self._process.stdin, self._process.stdout):
            if each is not None:
                each.close()


class Processors:
    """Processor time of the collector and of PostgreSQL since it was asked last."""

    def __init__(self, written: Simulation) -> None:
        self._pids = {
            "collector": lambda: [written.collector.pid],
            "PostgreSQL": lambda: list(tree(written.server.pid)),
        }
        self._last = self._now()

    def _now(self) -> dict[str, float]:
        return {name: sum(map(_seconds, pids())) for name, pids in self._pids.items()}

    def since(self) -> dict[str, float]:
        """Return the seconds by name."""
        now, last = self._now(), self._last
        self._last = now
        return {name: now[name] - last[name] for name in now}


def _seconds(pid: int) -> float:
    try:
        return processor_seconds_with_ended(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has ended, and its parent has its time


class Simulation:
    """Writes the time of a region into a store, and keeps account of it."""

    def __init__(
        self,
        report: Report,
        server: PostgreSQL,
        options: argparse.Namespace,
        instances: int,
        days: int,
        polls: int,
        visitors: int = 0,
    ) -> None:
        self._report = report
        self.server = server
        self._options = options
        self.region = Region(options.seed, instances, options.meters, visitors)
        self.days, self.polls = days, polls
        self.dsn = server.dsn_with_schema()
        self._connection = psycopg2.connect(self.dsn)
        self._connection.autocommit = True
        self.execute(SEARCH_PATH.format(self.dsn.rpartition("/")[2]))
        self.execute(CLOCK)
        self._history = History(self.region, self._in_transaction)
        self.agents = Agents(self.region)
        self.sent: dict[date, Tally] = {}
        self.doubled = 0
        self._messages = 0
        self._held: list[Sent] = []
        self.counts: Mapping[str, int] = {}
        self.collector = self.start_collector()

    def close(self) -> None:
        """Stop the collector, and close the connection."""
        self.collector.close()
        self._connection.close()

    def start_collector(self) -> Collector:
        """Start a collector."""
        return Collector([self.dsn, str(self._options.retention_days), str(self._options.pack_after_days)])

    def execute(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Execute a statement, in a transaction of its own, and return its rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def _in_transaction(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        self.execute("BEGIN")
        rows = self.execute(statement, parameters)
        self.execute("COMMIT")
        return rows

    def set_clock(self, now: datetime) -> None:
        """Let the time of day be ``now``, for the database and the collector."""
        self.execute(SET_CLOCK, [now])
        self.collector("set_clock", now)

    def _tally(self, at: datetime) -> Tally:
        return self.sent.setdefault(week_of(at), Tally())

    def deliver(self, polls: Iterator[Sent], *, disturbed: bool = True) -> int:
        """Deliver what agents send; return how many samples it is. If ``disturbed``, some comes later and some twice."""
        bodies: list[tuple[bytes, str]] = []
        waiting = delivered = 0
        for sent in polls:
            tally = self._tally(sent.timestamp)
            for each in sent.ids:
                tally.add(each)
            if disturbed and (self._messages + 1) % self._options.late_every == 0:
                self._held.append(sent)
            else:
                bodies += sent.bodies
                waiting += len(sent.ids)
                if disturbed and (self._messages + 1) % self._options.twice_every == 0:
                    bodies += sent.bodies
                    self.doubled += len(sent.ids)
            self._messages += 1
            if waiting >= SENT_AT_ONCE:
                self.counts = self.collector("deliver", bodies)
                bodies, delivered, waiting = [], delivered + waiting, 0
        self.counts = self.collector("deliver", bodies)
        return delivered + waiting

    def deliver_late(self) -> None:
        """Deliver what was held back."""
        held, self._held = self._held, []
        if held:
            self.counts = self.collector("deliver", [each for sent in held for each in sent.bodies])

    def write_history(self) -> None:
        """Write the days before the one that is measured, with maintenance after each, and packing once a week."""
        for day in range(self.days):
            at = BEGINNING + day * DAY
            self.set_clock(at + timedelta(minutes=5))
            self.collector("prepare", at)
            if not day:  # the forms of samples, which those made in the database share
                [first, *_] = self.agents.polls(0, at)
                self.deliver(iter([first]), disturbed=False)
            delivered = day >= self.days - self._options.delivered_days
            if not delivered:
                self._history.begin_day(day)
            for poll in range(self.polls):
                time_of_poll = at + poll * DAY / self.polls
                if delivered:
                    self.set_clock(time_of_poll + timedelta(minutes=5))
                    self.deliver(self.agents.polls(day, time_of_poll))
                else:
                    of_poll, tally = self._history.poll(day, time_of_poll), self._tally(time_of_poll)
                    tally.samples += of_poll.samples
                    tally.checksum += of_poll.checksum
            if not day:
                [(metadata,)] = self.execute("SELECT count(*) FROM metadata")
                instances = self.region.instances + self.region.visitors
                self._report.compare("metadata of the first day", instances, metadata)
            now = at + DAY + timedelta(minutes=20)
            self.set_clock(now)
            self.collector("maintain")
            if delivered:
                self.deliver_late()
            if day % 7 == 6:
                self.collector("pack", now)
        self.set_clock(BEGINNING + self.days * DAY + timedelta(hours=1))
        self.collector("maintain")
        self.execute("VACUUM (ANALYZE)")

    def expected(self) -> dict[date, tuple[int, int]]:
        """Return the samples that are retained: number and checksum, by week."""
        [(before,)] = self.execute("SELECT max(before) FROM retention_cutoff WHERE meter = ''")
        return {
            week: (tally.samples, tally.checksum)
            for week, tally in self.sent.items()
            if before is None or start_of_week(week) >= before
        }

    def check(self) -> None:
        """Compare what is stored with what was sent, and the dimension tables with what these samples refer to."""
        expected = self.expected()
        found = {week: (count, int(checksum)) for week, count, checksum in self.execute(STORED)}
        self._report.compare("samples and checksums of their ids, by week", expected, found)
        weeks = sorted(expected)
        last = self.days
        days = [day for day in range(last + 1) if week_of(BEGINNING + day * DAY) in expected]
        alive = {
            self.region.identity(slot, day) for day in days for slot in self.region.slots(day, visitors=day < self.days)
        }
        numbers = {
            "resource": len({(slot, generation) for slot, generation, _ in alive}),
            "run": len({(slot, generation, version // 2) for slot, generation, version in alive}),
            "metadata": len(alive),
        }
        numbers["series"] = numbers["run"] * self.region.meters
        for table, count in numbers.items():
            column = "resource_id" if table == "series" else "id"
            [(found_rows,)] = self.execute(f"SELECT count(*) FROM {table} WHERE {column} > 0")
            self._report.compare(f"rows of {table} once the weeks before {weeks[0]} have expired", count, found_rows)
        total = sum(tally.samples for tally in self.sent.values())
        [(packed,)] = self.execute("SELECT coalesce(sum(count), 0) FROM packed_samples")
        self._report.line(
            f"samples sent: {total}, expired: {total - sum(count for count, _ in expected.values())}, "
            f"retained: {sum(count for count, _ in found.values())}, of these packed: {packed}, sent twice: {self.doubled}, by the collector: {self.counts}"
        )
        self._report.compare("duplicates", self.doubled, self.counts["duplicates"])
        self._report.compare("refused or dead", 0, self.counts["refused"] + self.counts["dead letters"])
