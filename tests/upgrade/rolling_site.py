"""A site whose daemons are of two versions of Meter, with a past: samples, final hours, a closed statement and a voided sample."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2

from tests.chaos.site import Known
from tests.chaos.site import Site
from tests.chaos.site import until
from tests.price_files import requests_book
from tests.system.daemons import SECRET
from tests.system.daemons import Daemon
from tests.system.daemons import fetch
from tests.upgrade.freezing import freeze_between_transactions
from tests.upgrade.versions import InstalledVersion

PAST = Path(__file__).with_name("past.py")

PRICES = requests_book("past.requests", first_tier="1")

STORED_WITHOUT_PACKING = """
SELECT resource.name, meter.name, count(*)::integer
FROM sample JOIN series ON series.id = series_id JOIN resource ON resource.id = resource_id JOIN meter ON meter.id = meter_id
WHERE meter.name IN ('chaos.polled', 'chaos.cast', 'instance', 'memory', 'vcpus', 'disk.root.size', 'disk.ephemeral.size')
GROUP BY 1, 2
"""

PLAIN_IDS = "SELECT message_id, series_id FROM sample"
PACKED_IDS = "SELECT unnest(message_ids), series_id FROM packed_samples"

OF_METER = """
SELECT count(*) FROM ({ids}) AS every JOIN series x ON x.id = series_id JOIN meter m ON m.id = x.meter_id WHERE m.name LIKE '{meter}'
"""

FINAL_HOURS = """
SELECT count(*) FROM final_period WHERE hours = 1 AND start >= '{start}'::timestamptz AND start < '{start}'::timestamptz + interval '1 day'
"""

FINALIZE_AFTER = "finalize_after_seconds = 1.0\n"


class CommandFailed(Exception):
    """A command of one of the versions."""


def month_before(now: datetime, count: int) -> datetime:
    """Return the first day of the month that is ``count`` months before ``now``."""
    for _ in range(count):
        now = now.replace(day=1) - timedelta(days=1)
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


class RollingSite(Site):
    """A site that begins with the daemons of ``old``; ``use`` restarts one with another version."""

    def __init__(
        self, rabbitmq: Any, postgresql: Any, directory: Path, old: InstalledVersion, new: InstalledVersion
    ) -> None:
        directory.mkdir(parents=True)
        prices = directory / "prices.d"
        prices.mkdir()
        (prices / "list.toml").write_text(PRICES)
        self.rating = f'[rating]\nprice_directory = "{prices}"\nsigning_key_file = "{directory / "statement.pem"}"\n'
        super().__init__(rabbitmq, postgresql, directory / "site")
        self.old, self.new = old, new
        self.start_of_past = month_before(datetime.now(UTC), 3) + timedelta(days=4)
        self.recent_day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
        """A day of late samples: of old days, no totals by minute are made."""
        self.month = f"{self.start_of_past:%Y-%m}"
        self.api = self._daemon("meter-api", self.collector_line, self.rating)
        self.new_api = self._daemon("meter-api", self.collector_line, self.rating)
        self.new_collector = self.another_collector()
        for daemon in (self.agent, self.collector, self.api):
            self.version_of(daemon, old)
        for daemon in (self.new_api, self.new_collector):
            self.version_of(daemon, new)

    def another_collector(self, line: Any = None) -> Daemon:
        """Return a collector that is not started; it finalizes hours at once."""
        return self._daemon("meter-collector", line or self.collector_line, FINALIZE_AFTER + self.rating)

    @staticmethod
    def version_of(daemon: Daemon, version: InstalledVersion) -> None:
        """Let ``daemon`` be of ``version`` from its next start on."""
        daemon.twistd = version.program("twistd")
        if daemon.name == "meter-central":
            daemon.extra_environment = {"PYTHONPATH": str(version.ledger)}

    def command(
        self, version: InstalledVersion, *words: str | Path, statuses: Sequence[int] = (0,), config: Path | None = None
    ) -> str:
        """Return what a command of ``version`` writes; :class:`CommandFailed` if its exit status is not among ``statuses``."""
        name, *more = map(str, words)
        done = subprocess.run(
            [version.program(name), "--config", config or self.collector.config_file, *more],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )
        if done.returncode not in statuses:
            raise CommandFailed(
                f"{' '.join([name, *more])}: {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done.stdout

    def move_to(self, server: Any, dsn: str) -> tuple[Daemon, Daemon]:
        """Let the database at ``dsn`` of ``server`` be the store; return a collector and an API for it, which are not started."""
        self.postgresql, self.dsn, self.house.store = server, dsn, dsn
        return self.another_collector(), self._daemon("meter-api", self.collector_line, self.rating)

    # --- the past ---

    def publish_past(self, version: InstalledVersion, what: str, meter: str, known: int = 0) -> int:
        """Let a program of ``version`` publish samples of the past; return how many of the meter are stored then."""
        start = self.start_of_past if what == "history" else self.recent_day
        words = [version.python, PAST, self.url, SECRET, start.isoformat(), what]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, cwd=self.directory)
        expected = known + int(done.stdout)
        until(lambda: self.stored_of(meter) == expected, f"{expected} samples of {meter}", 120)
        return expected

    def stored_of(self, meter: str) -> int:
        """Return how many samples of meters whose names are like ``meter`` are stored."""
        ids = f"{PLAIN_IDS} UNION ALL {PACKED_IDS}" if self._packs() else PLAIN_IDS
        try:
            return int(self.postgresql.execute(OF_METER.format(ids=ids, meter=meter), self.dsn)[0][0])
        except psycopg2.Error:
            return 0

    def freeze(self, collector: Daemon) -> None:
        """Stop a collector by ``SIGSTOP`` where it is in no transaction: the other one would wait for its locks."""
        assert collector.process is not None
        with self.quiet():
            freeze_between_transactions(
                collector.process.pid,
                collector.send,
                lambda statement: self.postgresql.execute(statement, self.dsn),
            )

    def final_hours_of_recent_day(self) -> int:
        """Return how many hours of the day of late samples are final."""
        statement = FINAL_HOURS.format(start=self.recent_day.isoformat())
        return int(self.postgresql.execute(statement, self.dsn)[0][0])

    def make_past(self) -> None:
        """Publish samples, void one, make all hours final, and close a month."""
        self.publish_past(self.old, "history", "past.%")
        self.publish_past(self.old, "first", "late")
        [first, *_] = self.sample_ids(1)
        self.command(self.old, "meter-db", "void", "--reason", "a test of upgrades", first)
        self.command(self.old, "meter-db", "finalize")
        self.command(self.old, "meter-rate", "keys", "generate")
        gaps = ("--accept-gaps", "no agent reports the past")
        self.command(self.old, "meter-rate", "close", self.month, *gaps, "--output", self.directory)

    def sample_ids(self, count: int) -> list[str]:
        """Return the ids of some samples of the past."""
        end = self.start_of_past + timedelta(days=3)
        path = (
            f"/v2/samples?q.field=timestamp&q.op=lt&q.value={end:%Y-%m-%dT%H:%M:%S}&q.field=project_id&q.op=eq&q.value=shop"
            f"&limit={count}"
        )
        status, body = fetch(self.api.api + path)
        if status != 200:
            raise CommandFailed(f"{path}: {status} {body[:500].decode()}")
        return [each["id"] for each in json.loads(body)]

    # --- account ---

    def stored(self) -> Counter[Known]:
        """Return how many rows each sample has, also under a schema without packed weeks."""
        if self._packs():
            return super().stored()
        try:
            rows = self.postgresql.execute(STORED_WITHOUT_PACKING, self.dsn)
        except psycopg2.Error:
            return Counter()
        return Counter({(resource, meter): count for resource, meter, count in rows})

    def _packs(self) -> bool:
        """Whether the schema has packed weeks."""
        try:
            [[packs]] = self.postgresql.execute("SELECT to_regclass('packed_samples') IS NOT NULL", self.dsn)
        except psycopg2.Error:
            return False
        return bool(packs)
