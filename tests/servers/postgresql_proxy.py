"""A TCP proxy in front of a PostgreSQL: it can refuse, be cut before a given statement, and lead to another server."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

CHUNK_BYTES = 65536
RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection."""


class PostgreSQLProxy:
    """Listens on ``port`` of 127.0.0.1 and passes on to ``target_port``, which may be changed for new connections.

    ``cuts`` counts how often :meth:`cut_before` has cut.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = True
        self._statement: bytes | None = None
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self.cuts = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def cut_before(self, statement: bytes) -> None:
        """When a client next sends ``statement``, do not pass it on, reset all connections and refuse until :meth:`accept`."""
        self._statement = statement

    def refuse(self) -> None:
        """Reset all connections, and every new one at once, until :meth:`accept`."""
        self._accepting = False
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RD)  # only this wakes a thread that waits for bytes
            end.close()

    def accept(self) -> None:
        """Take connections again."""
        self._accepting = True

    def close(self) -> None:
        """End."""
        self.refuse()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._accepting:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._ends += [client, server]
            if not self._accepting:
                self.refuse()
                continue
            threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                if up and self._is_cut(chunk):
                    self.refuse()
                    return
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_cut(self, chunk: bytes) -> bool:
        with self._lock:
            if self._statement is None or self._statement not in chunk:
                return False
            self._statement = None
            self.cuts += 1
            return True
