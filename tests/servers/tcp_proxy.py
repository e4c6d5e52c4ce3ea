"""A TCP proxy in threads: it can refuse, be cut, and hold back what goes in one direction, or in both, as a pulled cable does."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

CHUNK_BYTES = 65536
LINGER_NOT = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection."""

UP, DOWN = "up", "down"
"""Towards the server, and from it."""

Watch = Callable[[bytes], int | None]
"""Looks at each chunk of one direction of one connection; returns after how many of its bytes to cut, ``None`` for not at all."""


class TcpProxy:
    """Listens on ``port`` of 127.0.0.1 and passes on to ``target_port``, which may be changed for new connections."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.gates = {UP: threading.Event(), DOWN: threading.Event()}
        self._accepting = True
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self.cuts = 0
        """How often :meth:`watch` has cut."""
        self.release()
        threading.Thread(target=self._listen, daemon=True).start()

    def watch(self, direction: str) -> Watch:
        """Return what looks at a new connection."""
        return lambda chunk: None

    def watched(self) -> None:
        """Cut, as what looks at a connection has said."""
        self.cut()

    def hold(self, direction: str) -> None:
        """Keep what goes in ``direction`` back until :meth:`release`."""
        self.gates[direction].clear()

    @property
    def held(self) -> bool:
        """Whether a direction is held back."""
        return not all(gate.is_set() for gate in self.gates.values())

    def release(self) -> None:
        """Let everything through again."""
        for gate in self.gates.values():
            gate.set()

    def refuse(self) -> None:
        """Reset all connections, and every new one at once, until :meth:`accept`."""
        self._accepting = False
        self.cut()

    def accept(self) -> None:
        """Take connections again."""
        self._accepting = True

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
                # Only this wakes a thread that waits for bytes.
                end.shutdown(socket.SHUT_RD)
            end.close()

    def close(self) -> None:
        """End."""
        self._accepting = False
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.release()
        self.cut()

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
                self.cut()
                continue
            for source, sink, direction in ((client, server, UP), (server, client, DOWN)):
                arguments = (source, sink, direction, self.watch(direction))
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, direction: str, watch: Watch) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                self.gates[direction].wait()
                place = watch(chunk)
                if place is not None:
                    if place:
                        sink.sendall(chunk[:place])
                    self.watched()
                    return
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
