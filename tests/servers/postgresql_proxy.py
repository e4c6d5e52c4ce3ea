"""A TCP proxy in front of a PostgreSQL: it can refuse, be cut before a given statement, and lead to another server."""

from __future__ import annotations

from tests.servers.tcp_proxy import UP
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.tcp_proxy import Watch


class PostgreSQLProxy(TcpProxy):
    """Cuts when :meth:`cut_before` has said so; ``cuts`` counts how often."""

    _statement: bytes | None = None

    def cut_before(self, statement: bytes) -> None:
        """When a client next sends ``statement``, do not pass it on, reset all connections and refuse until :meth:`accept`."""
        self._statement = statement

    def watch(self, direction: str) -> Watch:
        """Look for the statement in what clients send."""
        return self._look if direction == UP else super().watch(direction)

    def watched(self) -> None:
        """Reset all connections and refuse."""
        self.refuse()

    def _look(self, chunk: bytes) -> int | None:
        with self._lock:
            if self._statement is None or self._statement not in chunk:
                return None
            self._statement = None
            self.cuts += 1
            return 0
