"""A TCP proxy in threads that can refuse, hold back one direction, and cut a connection in the middle of an AMQP frame."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

CHUNK_BYTES = 65536
LINGER_NOT = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection, as a cable that is pulled looks to most."""


class Frames:
    """Follows the frames of one direction: 7 bytes with the size, as many more, one at the end."""

    def __init__(self, skip: int) -> None:
        self._skip = skip
        self._size = 0
        self._header = b""

    def middle(self, chunk: bytes, at_least: int) -> int | None:
        """Return a place in ``chunk`` that is inside a frame of ``at_least`` bytes, if there is one."""
        place, found = 0, None
        while place < len(chunk):
            if self._skip:
                step = min(self._skip, len(chunk) - place)
                if step > 1 and self._size >= at_least:
                    found = place + step // 2
                self._skip -= step
                place += step
                continue
            need = 7 - len(self._header)
            self._header += chunk[place : place + need]
            place += need
            if len(self._header) == 7:
                self._size = struct.unpack_from("!I", self._header, 3)[0]
                self._header = b""
                self._skip = self._size + 1
        return found


class Line:
    """One direction of one connection."""

    def __init__(self, proxy: Proxy, source: socket.socket, sink: socket.socket, direction: str) -> None:
        self._proxy = proxy
        self._source = source
        self._sink = sink
        self._direction = direction
        # A client's first eight bytes are a greeting, not a frame.
        self._frames = Frames(8 if direction == "up" else 0)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        proxy = self._proxy
        with suppress(OSError):
            while chunk := self._source.recv(CHUNK_BYTES):
                proxy.gates[self._direction].wait()
                middle = self._frames.middle(chunk, proxy.large_bytes)
                if middle is not None and self._direction == "up":
                    proxy.saw_content()
                if middle is not None and proxy.take_cut(self._direction):
                    self._sink.sendall(chunk[:middle])
                    proxy.cut()
                    return
                self._sink.sendall(chunk)
        for end in (self._source, self._sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and passes on to ``target_port``; ``up`` is towards the server, ``down`` from it."""

    large_bytes = 1000

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.gates = {"up": threading.Event(), "down": threading.Event()}
        self._accepting = True
        self._cut_next: str | None = None
        self._hold_after_content = False
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self.cuts = 0
        self.release()
        threading.Thread(target=self._listen, daemon=True).start()

    def hold(self, direction: str) -> None:
        """Keep what goes in ``direction`` back until :meth:`release`."""
        self.gates[direction].clear()

    def hold_confirms(self) -> None:
        """Hold what comes down from the moment when a large frame has gone up: let clients enter, and publish."""
        self._hold_after_content = True

    def saw_content(self) -> None:
        """Take note that a large frame is going up."""
        if self._hold_after_content:
            self._hold_after_content = False
            self.hold("down")

    @property
    def held(self) -> bool:
        """Whether a direction is held back."""
        return not all(gate.is_set() for gate in self.gates.values())

    def release(self) -> None:
        """Let everything through again."""
        for gate in self.gates.values():
            gate.set()

    def refuse(self) -> None:
        """Cut all connections, and every new one at once, until :meth:`accept`."""
        self._accepting = False
        self.cut()

    def accept(self) -> None:
        """Take connections again."""
        self._accepting = True

    def cut_in_a_frame(self, direction: str) -> None:
        """Cut everything when half of the next large frame in ``direction`` has gone through."""
        with self._lock:
            self._cut_next = direction

    def take_cut(self, direction: str) -> bool:
        """Say whether it is now that this direction is cut."""
        with self._lock:
            if self._cut_next != direction:
                return False
            self._cut_next = None
            self.cuts += 1
            return True

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
                server = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._ends += [client, server]
            if not self._accepting:
                self.cut()
                continue
            Line(self, client, server, "up")
            Line(self, server, client, "down")
