"""One site of the campaign: an agent, a collector and a publisher at work, and the account of what they sent.

A sample is known by its resource and meter, which no two samples of a site share.

**Sent** is, by definition,

- of the agent: what a polling cycle has put on disk, which is known of every cycle but a process's last (the next one
  begins when the last one is on disk); a process that was killed may or may not have kept its last cycle: that counts
  as sent if any of it was stored, for it is kept as a whole or not at all;
- of the publisher: what the broker confirmed and did not return: casts, and the five samples that each notification makes.

**Lost** is what was sent and is not stored, **doubled** every row beyond the first of a sample.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from typing import Literal

import psycopg2
from psycopg2.extensions import parse_dsn

from meter.bus.dead_letters import DEAD_LETTER_QUEUE
from tests.chaos import LEDGER
from tests.chaos.broker import waiting_messages
from tests.chaos.proxy import Proxy
from tests.chaos.publisher import SAMPLES
from tests.system.daemons import SECRET
from tests.system.daemons import Daemon
from tests.system.daemons import House

PUBLISHER = Path(__file__).with_name("publisher.py")
TOP = Path(__file__).parents[2]
OF_A_NOTIFICATION = ("instance", "memory", "vcpus", "disk.root.size", "disk.ephemeral.size")
"""Meters of the samples that the listener for instances makes of a notification; others may make more of it."""

AGENT = """
[polling]
interval_seconds = 0.5
intervals = {{{{ steady = 2.0 }}}}
[pollsters.ledger]
journal = "{{directory}}/journal"
samples = 100
seconds = {poll_seconds}
[pollsters.steady]
journal = "{{directory}}/steady"
raise_every = {raise_every}
padding = {padding}
resources = {resources}
[plugins]
disable = ["system", "example"]
[central]
leader_group = ""
{more}
"""

STORED = """
WITH plain AS MATERIALIZED (SELECT series_id, count(*) AS samples FROM sample GROUP BY 1)
SELECT resource.name, meter.name, sum(samples)::integer
FROM (SELECT * FROM plain UNION ALL SELECT series_id, count FROM packed_samples) AS every JOIN series ON series.id = series_id JOIN resource ON resource.id = resource_id JOIN meter ON meter.id = meter_id
WHERE meter.name IN ('chaos.polled', 'chaos.cast', 'instance', 'memory', 'vcpus', 'disk.root.size', 'disk.ephemeral.size')
GROUP BY 1, 2
"""

Known = tuple[str, str]
"""A sample: resource and meter."""

KINDS = {"chaos.polled", "chaos.cast", "instance"}
"""One meter of each kind of traffic: polled, published by another program, made from a notification."""

WARM_SAMPLES = 1000


class NeverCame(Exception):
    """Something that the campaign waited for."""


def until(condition: Any, what: str, seconds: float = 60.0) -> Any:
    """Return the first true result of ``condition``; :class:`NeverCame` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise NeverCame(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)
    return result


def meters(samples: Iterable[Known]) -> set[str]:
    """Return the meters of ``samples``."""
    return {meter for _, meter in samples}


class Site:
    """Servers are shared by all sites; virtual host, database, daemons and proxies are this one's own."""

    def __init__(
        self,
        rabbitmq: Any,
        postgresql: Any,
        directory: Path,
        *,
        poll_seconds: float = 0.0,
        raise_every: int = 0,
        padding: int = 0,
        resources: int = 20,
        more: str = "",
    ) -> None:
        directory.mkdir(parents=True)
        self.rabbitmq = rabbitmq
        self.postgresql = postgresql
        self.directory = directory
        self.url = rabbitmq.vhost()
        self.dsn = postgresql.dsn()
        # The tests' server forgives itself the last commits when it is killed; a real one is not set up like that.
        database = parse_dsn(self.dsn)["dbname"]
        postgresql.execute(f"ALTER DATABASE {database} SET synchronous_commit = on")
        self.house = House(directory, store=self.dsn)
        self.agent_line = Proxy(rabbitmq.port)
        self.collector_line = Proxy(rabbitmq.port)
        config = AGENT.format(
            poll_seconds=poll_seconds, raise_every=raise_every, padding=padding, resources=resources, more=more
        )
        self.agent = self._daemon("meter-central", self.agent_line, config)
        self.agent.extra_environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(LEDGER), os.environ.get("PYTHONPATH")]))
        }
        self.journal = self.agent.directory / "journal"
        self.pause = Path(f"{self.journal}.pause")
        self.steady_journal = self.agent.directory / "steady"
        self.collector = self.another_collector(self.collector_line)
        self.resources = resources
        self.kinds = KINDS
        """Meters of which samples must be stored before the site counts as started."""
        self.ledger_until: float | None = None
        """The end of the time that the ledger is asked about, in seconds since 1970; by default, the present."""
        self.reports_are_lost = False
        self.asking_environment: dict[str, str] = {}
        """Environment of the command that asks the ledger, such as another clock."""
        self.late: Literal["all", "none", "some"] = "none"
        """Which samples are recorded an hour or more after their timestamps."""
        self._published = directory / "published"
        self._publisher: subprocess.Popen[bytes] | None = None
        self.ended_in_order: set[int] = set()
        self.others: list[Callable[[], object]] = []
        """Ends what a fault has started for the site."""
        self.notes: list[str] = []
        """What a fault has found out, for people."""

    def _daemon(self, name: str, line: Proxy, config: str = "") -> Daemon:
        # Among several hosts, the nodes of a cluster, daemons choose themselves.
        self.house.bus = self.url if "," in self.url else self.url.replace(f":{self.rabbitmq.port}/", f":{line.port}/")
        return self.house.daemon(name, config)

    def another_collector(self, line: Proxy | None = None) -> Daemon:
        """Return a collector that is not started."""
        return self._daemon("meter-collector", line or self.collector_line)

    # --- work ---

    def process_of(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a process of a module of this package that works on the store until it is killed."""
        environment = {**os.environ, "PYTHONPATH": str(TOP)}
        return subprocess.Popen(
            [sys.executable, "-m", f"tests.chaos.{module}", self.dsn, *words], env=environment, cwd=TOP
        )

    def start(self) -> None:
        """Start everything and return when samples of each kind are stored."""
        # Without the collector's queues a small spool would fill before the fault: what is dropped while it is being published may arrive.
        self.collector.start().until_ready()
        self.agent.start()
        environment = {**os.environ, "PYTHONPATH": str(TOP)}
        self._publisher = subprocess.Popen(
            [sys.executable, PUBLISHER, self.url, self._published, SECRET], env=environment, cwd=TOP
        )
        until(
            lambda: len(stored := self.stored()) >= WARM_SAMPLES and meters(stored) >= self.kinds,
            "the first samples",
            300,
        )

    def end_agent(self, number: int) -> None:
        """Stop the agent by a signal; what it polled last counts as sent when it could end in order."""
        process = self.agent.process
        assert process is not None
        self.agent.stop(number)
        if number == signal.SIGTERM:
            self.ended_in_order.add(process.pid)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Keep everything from being published, once what was published has been dealt with."""
        assert self._publisher is not None
        self.agent_line.hold("up")
        self._publisher.send_signal(signal.SIGSTOP)
        sent = self.published()
        try:
            until(lambda: sent <= set(self.stored()), "all that was published")
        except NeverCame as error:
            missing = sorted("/".join(each) for each in sent - set(self.stored()))
            raise NeverCame(f"{error}; {len(missing)} are missing, such as {', '.join(missing[:5])}") from None
        time.sleep(1)  # and acknowledged
        try:
            yield
        finally:
            self.agent_line.release()
            self._publisher.send_signal(signal.SIGCONT)

    def pause_agent(self) -> None:
        """Let the agent make no samples but those of the pollster ``steady``; return when it has polled without."""
        self.pause.touch()
        until(lambda: len(set(self._last_lines(2))) == 1, "the agent to pause", 90)

    def quiesce(self) -> None:
        """Let nothing new be sent; return when all that was sent is known."""
        self.pause_agent()
        assert self._publisher is not None
        self._publisher.terminate()
        try:
            self._publisher.wait(60)
        except subprocess.TimeoutExpired:
            raise NeverCame("waited 60 s for the publisher to end") from None

    def _last_lines(self, count: int) -> list[str]:
        lines = self.journal.read_text().splitlines()[-count:]
        return lines if len(lines) == count else ["", "none yet"]

    def close(self) -> None:
        """End everything that belongs to this site."""
        if self._publisher is not None:
            self._publisher.kill()
            self._publisher.wait()
        self.house.close()
        for end in self.others:
            end()
        self.agent_line.close()
        self.collector_line.close()

    # --- account ---

    def polled(self) -> tuple[set[Known], list[set[Known]]]:
        """Return what the agent has certainly kept, and the cycles of which that is not known."""
        sure: set[Known] = set()
        unsure: list[set[Known]] = []
        lines = [
            tuple(map(int, line.split())) for line in self.journal.read_text().splitlines() if line.count(" ") == 2
        ]
        for (pid, first, last), following in zip(lines, [*lines[1:], (0, 0, 0)], strict=True):
            samples = {(f"polled-{number}", "chaos.polled") for number in range(first, last + 1)}
            if following[0] == pid or pid in self.ended_in_order:
                sure |= samples
            else:
                unsure.append(samples)
        return sure, unsure

    def published(self) -> set[Known]:
        """Return what the publisher's journal says that the broker confirmed."""
        numbers = [int(line) for line in self._published.read_text().splitlines()] if self._published.exists() else []
        batch_publications = {
            (f"cast-{number}-{each}", "chaos.cast") for number in numbers for each in range(1, SAMPLES + 1)
        }
        return batch_publications | {
            (str(uuid.UUID(int=number)), meter) for number in numbers for meter in OF_A_NOTIFICATION
        }

    def seconds_until_stored(self, seconds: float = 120.0) -> float:
        """Return how long it takes from now until samples of every kind are stored that were made after now."""
        began = time.monotonic()
        polled = int((self._last_lines(1)[0].split() or ["0"])[-1])
        published = max((int(line) for line in self._published.read_text().splitlines()), default=0) + 1  # under way

        def later(known: Known) -> bool:
            resource, meter = known
            if meter == "chaos.polled":
                return int(resource.rpartition("-")[2]) > polled
            number = resource.split("-")[1] if meter == "chaos.cast" else uuid.UUID(resource).int
            return int(number) > published

        until(
            lambda: meters(filter(later, self.stored())) >= KINDS, "samples of every kind that were made since", seconds
        )
        return time.monotonic() - began

    def sent(self, stored: Counter[Known] | None = None) -> set[Known]:
        """Return what was sent; with ``stored``, also cycles of which a part is stored."""
        sure, unsure = self.polled()
        kept = [cycle for cycle in unsure if stored and any(each in stored for each in cycle)]
        return sure.union(self.published(), *kept)

    def stored(self) -> Counter[Known]:
        """Return how many rows each sample has; none while the database has no tables or does not answer."""
        try:
            return Counter(
                {(resource, meter): count for resource, meter, count in self.postgresql.execute(STORED, self.dsn)}
            )
        except psycopg2.Error:
            return Counter()

    def dead_letters(self) -> int:
        """Return the number of dead-lettered messages."""
        return waiting_messages(self.url, DEAD_LETTER_QUEUE)

    def last_words(self) -> str:
        """Return the ends of the daemons' logs, for people."""
        return "\n".join(
            f"--- {daemon.name}, spool: {daemon.metric('meter_spool_messages'):g}\n{daemon.log[-2500:]}"
            for daemon in (self.agent, self.collector)
        )

    def dropped(self) -> int:
        """Return how many samples the agent reported as lost."""
        return int(self.agent.metric("meter_spool_dropped_samples_total"))
