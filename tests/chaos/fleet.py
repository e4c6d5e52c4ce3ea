"""The servers of the campaign: one broker and one database, and clusters of them, each started when a fault first needs it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.cluster import ProxiedCluster
from tests.chaos.cluster import cluster_in
from tests.chaos.cluster import spread_server
from tests.chaos.faults import Servers
from tests.servers import postgresql as postgresql_server
from tests.servers import rabbitmq as rabbitmq_server
from tests.servers.patroni import PatroniCluster
from tests.servers.rabbitmq_cluster import RabbitMQCluster
from tests.servers.rabbitmq_cluster import started


class Fleet:
    """``rabbitmq`` and ``postgresql`` run; clusters are started by :meth:`of`, and end with ``stack``."""

    def __init__(
        self, directory: Path, binaries: Path, sbin: Path, rabbitmq: Any, postgresql: Any, stack: ExitStack
    ) -> None:
        self._directory = directory
        self._binaries = binaries
        self._sbin = sbin
        self._stack = stack
        self.rabbitmq = rabbitmq
        self.postgresql = postgresql
        self._citus: ProxiedCluster | None = None
        self._brokers: RabbitMQCluster | None = None
        self._patroni: PatroniCluster | None = None

    @contextmanager
    def of(self, servers: Servers) -> Iterator[tuple[Any, Any]]:
        """Provide the broker and the database for one site."""
        if servers == "rabbitmq":
            if self._brokers is None:
                self._brokers = started(self._sbin, self._make)
                self._stack.callback(self._brokers.close)
            yield self._brokers, self.postgresql
        elif servers == "citus":
            if self._citus is None:
                self._citus = self._stack.enter_context(cluster_in(self._directory))
            with spread_server(self._citus) as store:
                yield self.rabbitmq, store
        elif servers == "patroni":
            if self._patroni is None:
                self._patroni = PatroniCluster(self._binaries, self._make)
                self._stack.callback(self._patroni.close)
                self._patroni.start()
            yield self.rabbitmq, self._patroni
        else:
            yield self.rabbitmq, self.postgresql

    def _make(self, prefix: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=self._directory))


@contextmanager
def fleet(directory: Path) -> Iterator[Fleet]:
    """Provide a private RabbitMQ, a private PostgreSQL, and clusters of them."""
    binaries = postgresql_server.installed()
    sbin = rabbitmq_server.installed()
    if binaries is None or sbin is None:
        sys.exit(f"{postgresql_server.INSTALL}\n{rabbitmq_server.INSTALL}")
    (directory / "rabbitmq").mkdir()
    (directory / "postgresql").mkdir()
    # PostgreSQL runs as a user of its own, who must find the way.
    directory.chmod(0o755)
    rabbitmq = rabbitmq_server.RabbitMQ(sbin, directory / "rabbitmq")
    postgresql = postgresql_server.PostgreSQL(binaries, directory / "postgresql")
    with ExitStack() as stack:
        stack.callback(postgresql.kill)
        stack.callback(rabbitmq.close)
        rabbitmq.start()
        postgresql.start()
        yield Fleet(directory, binaries, sbin, rabbitmq, postgresql, stack)
