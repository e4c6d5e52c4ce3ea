"""What one sample costs the whole machine from the bus to a committed row: the processor time of all processes, by stage.

The workload is that of ``benchmarks.collector``: samples of about 1.2 kB in signed batches of 100. They are published while
the collectors are stopped, and consumed when that is done, so that the broker's time for each stage is known. Counted are all
processes of RabbitMQ and of PostgreSQL (the sessions, and the processes that write its WAL, checkpoint and vacuum), the
collectors, and this process for what the sender of the samples does: sign, encode, publish. What an agent does before that,
from libvirt to samples, is the ``cycle`` of ``benchmarks.compute_cycle``, and is not in this table.

With several ``--collectors`` (``--collectors 1 2 4``) as many processes consume the same queue into the same store. How often
their sessions wait for locks is sampled by ``pg_stat_activity``, and printed as a share of the samples of busy sessions.

The ids of all rows are compared with those that were published: none may be missing, twice, a duplicate, refused or dead.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet.task import LoopingCall

from benchmarks import measuring
from benchmarks.collector import INSTANCES
from benchmarks.collector import LOOK_SECONDS
from benchmarks.collector import SAMPLES
from benchmarks.collector import SPEED
from benchmarks.collector import TAKEN
from benchmarks.collector import counted
from benchmarks.collector import publish
from benchmarks.measuring import Report
from benchmarks.measuring import Table
from benchmarks.workload import BATCH_SAMPLES
from benchmarks.workload import METERS
from benchmarks.workload import PADDING
from benchmarks.workload import bare_inserts
from benchmarks.workload import outgoing_messages
from benchmarks.workload import received
from meter.bus.batches import batch_publications
from meter.signing_keys import Keyring
from meter.signing_keys import SigningKey
from tests.system.daemons import SECRET
from tests.system.daemons import House

WAITS_SECONDS = 0.05
"""How often it is looked whether sessions wait for locks."""

UNIT = "µs of a core"

SESSIONS = "PostgreSQL: sessions"
WRITERS = "PostgreSQL: WAL writer, checkpointer, vacuum"

WAITS = """
SELECT coalesce(wait_event_type IN ('Lock', 'LWLock') AND state = 'active', false),
    application_name || ': ' || wait_event_type || ' ' || wait_event
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database() AND state <> 'idle'
"""


def tree(root: int) -> Iterator[int]:
    """Yield the ids of a process and of all its descendants."""
    parents: dict[int, list[int]] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            parents.setdefault(parent, []).append(int(each.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += parents.get(pid, ())


def processor_seconds_with_ended(pid: int) -> float:
    """Return the processor time of a process and of those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[n]) for n in range(11, 15)) / os.sysconf("SC_CLK_TCK")


def processor_by_group(postgresql: int, rabbitmq: int, collectors: Sequence[int]) -> dict[str, float]:
    """Return the processor seconds of all processes until now, by group of processes."""
    found = dict.fromkeys(("sender", "RabbitMQ", "collector", SESSIONS, WRITERS), 0.0)
    found["sender"] = time.process_time()
    found["collector"] = sum(processor_seconds_with_ended(pid) for pid in collectors)
    found["RabbitMQ"] = sum(map(processor_seconds_with_ended, tree(rabbitmq)))
    for pid in tree(postgresql):
        title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ")
        # "postgres: meter test_1 127.0.0.1(4711) COMMIT" is a session, "postgres: walwriter" is not.
        group = SESSIONS if b"127.0.0.1(" in title else WRITERS
        found[group] += processor_seconds_with_ended(pid)
    return found


class LockWaits:
    """Looks again and again whether sessions wait for locks."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True
        self.seen = 0
        self.waiting = 0
        self.events: Counter[str] = Counter()

    def look(self) -> None:
        """Count the sessions that are busy now, and those that wait for a lock."""
        with self._connection.cursor() as cursor:
            cursor.execute(WAITS)
            for waiting, event in cursor.fetchall():
                self.seen += 1
                self.waiting += waiting
                if waiting:
                    self.events[event] += 1

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


async def measure(
    reactor: Any, report: Report, title: str, broker: Any, database: Any, directory: Path, options: argparse.Namespace
) -> None:
    """Measure with ``options.processes`` collectors."""
    keys = Keyring([SigningKey("default", SECRET.encode())])
    source = outgoing_messages(keys, PADDING, options.instances)
    url, dsn = broker.vhost(), database.dsn()
    table = Table(title)
    sent: list[str] = []
    waits = LockWaits(dsn)
    house = House(directory, bus=url, store=dsn)
    collectors = []
    try:
        for _ in range(options.processes):
            collectors.append(house.daemon("meter-collector", options.config).start().until_ready())
        pids = [each.process.pid for each in collectors if each.process is not None]

        def used() -> dict[str, float]:
            return processor_by_group(database.pid, broker.pid, pids)

        async with bare_inserts(reactor, dsn) as bare:
            for run in range(options.runs + 1):
                # The first run makes partitions and fills the dimension tables; it is not measured.
                begun = time.process_time()
                count = options.samples if run else options.instances * len(METERS)
                batch = list(itertools.islice(source, count))
                ids = [each.fields["message_id"] for each in batch]
                publications = batch_publications(batch)
                signing = time.process_time() - begun
                messages = list(received(publications, keys))
                split = [messages[first : first + BATCH_SAMPLES] for first in range(0, len(messages), BATCH_SAMPLES)]
                before_bare = used()
                bare_speed = len(batch) / await bare.seconds(split)
                of_bare = used()[SESSIONS] - before_bare[SESSIONS]
                del batch, messages, split
                sent += ids
                for each in collectors:
                    each.send(signal.SIGSTOP)
                try:
                    first = used()
                    await publish(reactor, url, publications)
                    second = used()
                finally:
                    for each in collectors:
                        each.send(signal.SIGCONT)
                looking = LoopingCall(waits.look)
                if run and options.processes > 1:
                    looking.start(WAITS_SECONDS).addErrback(lambda failure: report.line(failure.getTraceback()))
                await measuring.until_counted(
                    reactor,
                    lambda: sum(counted(each, TAKEN) for each in collectors),
                    len(sent),
                    every=LOOK_SECONDS,
                    stalled_seconds=options.stalled_seconds,
                )
                third = used()
                if looking.running:
                    looking.stop()
                if not run:
                    continue
                count = len(ids)

                def add(name: str, seconds: float, count: int = count) -> None:
                    table.add(name, seconds / count * 1e6, UNIT, None if name == ALL else ALL)

                stored = {name: third[name] - second[name] for name in third}
                add("sender: make, sign and encode", signing)
                add("sender: publish", second["sender"] - first["sender"])
                add("RabbitMQ: take and confirm", second["RabbitMQ"] - first["RabbitMQ"])
                add("RabbitMQ: deliver", stored["RabbitMQ"])
                add("collector", stored["collector"])
                add(SESSIONS, stored[SESSIONS])
                add(WRITERS, stored[WRITERS])
                parts = ("RabbitMQ", "collector", SESSIONS, WRITERS)
                add(ALL, sum(stored[name] for name in parts) + second["RabbitMQ"] - first["RabbitMQ"])
                [(speed,)] = measuring.rows(dsn, SPEED, [ids])
                table.add("bare inserts: sessions", of_bare / count * 1e6, UNIT)
                table.add("bare inserts", bare_speed, "samples/s")
                if speed is not None:  # a single transaction has no rate
                    rate = "collectors" if options.processes > 1 else "collector's rate"
                    table.add(rate, float(speed), "samples/s", "bare inserts")
        unstored = sum(counted(each, TAKEN) - each.metric(f'{TAKEN}{{outcome="stored"}}') for each in collectors)
        dead = sum(counted(each, "meter_dead_letters_total") for each in collectors)
    finally:
        waits.close()
        house.close()
    report.table(table)
    if waits.seen:
        events = ", ".join(f"{event} {count}" for event, count in waits.events.most_common(5))
        share = waits.waiting / waits.seen
        report.line(
            f"busy sessions seen: {waits.seen}, of which {share:.1%} waited for a lock" + f" ({events})" * bool(events)
        )
    report.compare_ids("samples in the store", sent, measuring.stored_ids(dsn))
    report.compare("samples that the collectors counted as duplicate, conflict or refused", 0, unstored)
    report.compare("dead letters", 0, dead)


ALL = "broker to row, all processes"


async def benchmark(reactor: Any, report: Report, options: argparse.Namespace) -> None:
    report.line(f"samples in a run: {options.samples}, of {options.instances} instances with {len(METERS)} meters each")
    with measuring.rabbitmq_server(report) as broker:
        for mode in measuring.modes(options):
            with measuring.postgresql_server(report, mode, options) as database:
                for processes in options.collectors:
                    options.processes = processes
                    title = f"{mode}, {processes} collector{'s' * (processes > 1)}"
                    with measuring.directory() as directory:
                        await measure(reactor, report, title, broker, database, directory, options)


def main() -> None:
    parser = measuring.with_stall(measuring.with_postgresql(measuring.parser(__doc__, runs=3), "both"))
    parser.add_argument("--instances", type=int, default=INSTANCES, help="that have samples (%(default)s)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of a run (%(default)s)")
    parser.add_argument("--collectors", type=int, nargs="+", default=[1], help="numbers of processes, in turn (1)")
    parser.add_argument("--config", default="", help="more lines of the collectors' configuration")
    measuring.run(benchmark, parser.parse_args())


if __name__ == "__main__":
    main()
