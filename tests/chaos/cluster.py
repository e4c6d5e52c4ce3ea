"""Faults of a cluster: done to a site whose samples are on the workers of Citus, while all hours are finalized again and again.

Nodes know each other by proxies. What counts, beside samples that are lost or doubled, are the rollups: each hour that is final must
have as many samples as are stored of it, also if it was finalized while a worker was away or transactions were in doubt.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.doubtful_hours import METER
from tests.chaos.doubtful_hours import SAMPLES
from tests.chaos.doubtful_hours import WRITER
from tests.chaos.final_hours import finalizing
from tests.chaos.site import Site
from tests.chaos.site import until
from tests.servers.citus import CitusCluster
from tests.servers.citus import extension_missing
from tests.servers.postgresql import PostgreSQL
from tests.servers.postgresql import installed
from tests.servers.postgresql_proxy import PostgreSQLProxy
from tests.spread import spread

SETTINGS = {
    # The nodes keep what they have promised when they are killed.
    "synchronous_commit": "on",
    "citus.recover_2pc_interval": "10s",
}

LATE_RECOVERY = "15s"
"""Long enough for an hour to become final, or a question to be answered, before it; below the time limit of a collector's statements."""

SHARDS_PER_WORKER = 4
"""As many as by default: another worker gets some of them."""

PID_OF_WRITER = (
    f"SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, '{WRITER}') AND datname = current_database()"
)
PREPARED_BY = "SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, 'citus_0_{}_')"
COMMITTED = "SELECT gid FROM pg_dist_transaction WHERE gid IN ({})"
FINAL_HOURS = "SELECT count(*) FROM final_period WHERE hours = 1 AND start IN ({})"
OF_FINAL_HOURS = f"""
SELECT r.start::text, sum(r.count)::bigint FROM rollup r JOIN final_period f USING (hours, start)
JOIN series x ON x.id = r.series_id AND x.resource_id > 0 JOIN meter m ON m.id = x.meter_id AND m.name = '{METER}'
WHERE hours = 1 AND r.start IN ({{}}) GROUP BY 1
"""
"""Samples of the writer of hours, by the rollups of hours that are final."""
SHARDS = "SELECT count(*) FROM citus_shards WHERE table_name = 'sampled_series'::regclass AND nodeport = {}"
JOB = "SELECT state FROM pg_dist_background_job ORDER BY job_id DESC LIMIT 1"
SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


class ProxiedCluster(CitusCluster):
    """A cluster with a proxy before each node, by which the others know it."""

    def __init__(self, binaries: Path, directory: Callable[[str], Path]) -> None:
        super().__init__(binaries, directory, SETTINGS)
        self._lines: dict[PostgreSQL, PostgreSQLProxy] = {}

    def line(self, node: PostgreSQL) -> PostgreSQLProxy:
        """Return the proxy before ``node``."""
        if node not in self._lines:
            self._lines[node] = PostgreSQLProxy(node.port)
        return self._lines[node]

    def known_port(self, node: PostgreSQL) -> int:
        """Return the port of the proxy."""
        return self.line(node).port

    def promote(self, standby: PostgreSQL) -> None:
        """Promote a standby of a coordinator that was killed; everybody finds it where that was."""
        line = self._lines.pop(self.coordinator)
        line.refuse()
        standby.execute("SELECT pg_promote()")
        self.coordinator, self._lines[standby] = standby, line
        line.target_port = standby.port
        line.accept()

    def kill(self) -> None:
        """Kill all servers, and end the proxies."""
        super().kill()
        for line in self._lines.values():
            line.close()


class SpreadServer:
    """Has the place of a site's PostgreSQL: makes one database, of ``cluster``, with a spread store."""

    def __init__(self, cluster: ProxiedCluster) -> None:
        self.cluster = cluster
        self.added: list[PostgreSQL] = []
        self._dsn = ""

    def dsn(self) -> str:
        """Make the database and return its DSN."""
        self._dsn = self.cluster.dsn_with_schema(partial(spread, shards_per_worker=SHARDS_PER_WORKER))
        return self._dsn

    def execute(self, statement: str, dsn: str = "") -> list[tuple[Any, ...]]:
        """Execute ``statement`` at the coordinator and return its rows."""
        return self.cluster.execute(statement, dsn)

    def close(self) -> None:
        """Drop the database, and end the workers that were added."""
        if self._dsn:
            self.cluster.drop(self._dsn)
        for worker in self.added:
            self.cluster.remove(worker)


@contextmanager
def cluster_in(directory: Path) -> Iterator[ProxiedCluster]:
    """Provide a cluster of which the files are in ``directory``."""
    binaries = installed()
    assert binaries is not None

    def make(prefix: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=directory))

    cluster = ProxiedCluster(binaries, make)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@contextmanager
def spread_server(cluster: ProxiedCluster) -> Iterator[SpreadServer]:
    """Provide the part of ``cluster`` that one site uses."""
    server = SpreadServer(cluster)
    try:
        yield server
    finally:
        server.close()


def cluster_missing() -> str:
    """Return why there can be no cluster here, or ""."""
    return extension_missing(installed())


def worker_is_added(site: Site) -> None:
    """And gets its share of the shards while samples arrive."""
    server: SpreadServer = site.postgresql
    with finalizing(site):
        worker = server.cluster.add_worker()
        server.added.append(worker)
        server.cluster.introduce(worker, site.dsn)
        server.execute("SELECT citus_rebalance_start()", site.dsn)
        until(
            lambda: server.execute(JOB, site.dsn) not in ([("scheduled",)], [("running",)]),
            "shards that are moved",
            240,
        )
        assert server.execute(JOB, site.dsn) == [("finished",)]
        assert server.execute(SHARDS.format(server.cluster.known_port(worker)), site.dsn)[0][0], (
            "the new worker got no shards"
        )
        time.sleep(3)


def worker_dies(site: Site) -> None:
    """Twice, each time another one, while samples are written."""
    server: SpreadServer = site.postgresql
    with finalizing(site):
        for worker in server.cluster.workers:
            worker.kill()
            time.sleep(3)
            worker.start()
            time.sleep(3)


def commits_are_cut_off(site: Site) -> None:
    """Each worker, before it is told to commit samples of an hour that gets no others; at once again, or away for some seconds.

    Citus itself recovers late: what becomes final, or is promised as of a time, has to wait for it.
    """
    server: SpreadServer = site.postgresql
    cluster = server.cluster
    _set(cluster, "citus.recover_2pc_interval", LATE_RECOVERY)
    try:
        for journal, *ask in ((site.directory / "promised", "ask"), (site.directory / "finalized",)):
            with ExitStack() as stack:
                writer = site.process_of("doubtful_hours", str(journal), *ask)
                stack.callback(writer.wait)
                stack.callback(writer.kill)
                until(lambda journal=journal: _hours(journal), "an hour that is stored")
                if not ask:
                    stack.enter_context(finalizing(site))
                for seconds in (0.0, 5.0):
                    for worker in cluster.workers:
                        _leave_in_doubt(site, worker)
                        time.sleep(seconds)
                        cluster.line(worker).accept()
                        begun = len(_hours(journal))
                        until(lambda journal=journal, begun=begun: len(_hours(journal)) > begun + 1, "more hours", 90)
                        if not ask:
                            hours = [hour for hour, _, _ in _hours(journal)[: begun + 1]]
                            until(lambda hours=hours: _are_final(site, hours), "final hours", 240)
                            _all_are_counted(site, hours)
            for hour, stored, answered in _hours(journal):
                assert answered == stored, (
                    f"{answered} of {stored} samples were promised as of the time when those of {hour} were stored"
                )
    finally:
        _set(cluster, "citus.recover_2pc_interval", SETTINGS["citus.recover_2pc_interval"])
        server.execute("SELECT recover_prepared_transactions()", site.dsn)


def _leave_in_doubt(site: Site, worker: PostgreSQL) -> None:
    """Cut ``worker`` off before it is told to commit what the writer of hours has stored."""
    server: SpreadServer = site.postgresql
    line = server.cluster.line(worker)
    cuts = line.cuts
    [[pid]] = until(lambda: server.execute(PID_OF_WRITER, site.dsn), "the writer of hours")
    line.cut_before(f"COMMIT PREPARED 'citus_0_{pid}_".encode())
    until(lambda: line.cuts > cuts, "a commit to be cut off")
    names = [name for [name] in worker.execute(PREPARED_BY.format(pid))]
    committed = server.execute(COMMITTED.format(", ".join(f"'{name}'" for name in names) or "''"), site.dsn)
    assert committed, "nothing that is committed is in doubt"


def _hours(journal: Path) -> list[tuple[str, int, int]]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [(hour, int(stored), int(answered)) for hour, stored, answered in map(str.split, lines)]


def _are_final(site: Site, hours: list[str]) -> bool:
    [[final]] = site.postgresql.execute(FINAL_HOURS.format(", ".join(f"'{hour}'" for hour in hours)), site.dsn)
    return bool(final == len(hours))


def _all_are_counted(site: Site, hours: list[str]) -> None:
    """Each of these hours, which are final, has all samples of its one transaction."""
    listed = ", ".join(f"'{hour}'" for hour in hours)
    for hour, count in site.postgresql.execute(OF_FINAL_HOURS.format(listed), site.dsn):
        assert count == SAMPLES, f"the hour of {hour} became final with {count} of {SAMPLES} samples"


def _set(cluster: CitusCluster, name: str, value: str) -> None:
    """Change a setting of the coordinator."""
    cluster.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    cluster.execute("SELECT pg_reload_conf()")


def coordinator_dies(site: Site) -> None:
    """Twice, while samples are written."""
    server: SpreadServer = site.postgresql
    with finalizing(site):
        for _ in range(2):
            server.cluster.coordinator.kill()
            server.cluster.coordinator.start()
            time.sleep(5)


def coordinator_fails_over(site: Site) -> None:
    """To a synchronous standby, which everybody finds where the coordinator was."""
    server: SpreadServer = site.postgresql
    cluster = server.cluster
    with finalizing(site):
        standby = cluster.standby_of_coordinator()
        _set(cluster, "synchronous_standby_names", "*")
        until(lambda: cluster.execute(SYNCHRONOUS)[0][0], "a synchronous standby")
        time.sleep(3)
        cluster.coordinator.kill()
        cluster.promote(standby)
        time.sleep(5)
