"""A TCP proxy in threads that can refuse, hold back one direction, and cut a connection in the middle of an AMQP frame."""

from __future__ import annotations

import struct

from tests.servers.tcp_proxy import DOWN
from tests.servers.tcp_proxy import UP
from tests.servers.tcp_proxy import TcpProxy
from tests.servers.tcp_proxy import Watch


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


class Proxy(TcpProxy):
    """Can be cut in the middle of a frame, and hold confirms back."""

    large_bytes = 1000

    def __init__(self, target_port: int) -> None:
        self._cut_next: str | None = None
        self._hold_after_content = False
        super().__init__(target_port)

    def hold_confirms(self) -> None:
        """Hold what comes down from the moment when a large frame has gone up: let clients enter, and publish."""
        self._hold_after_content = True

    def cut_in_a_frame(self, direction: str) -> None:
        """Cut everything when half of the next large frame in ``direction`` has gone through."""
        with self._lock:
            self._cut_next = direction

    def watch(self, direction: str) -> Watch:
        """Follow the frames of a new connection."""
        # A client's first eight bytes are a greeting, not a frame.
        frames = Frames(8 if direction == UP else 0)

        def look(chunk: bytes) -> int | None:
            middle = frames.middle(chunk, self.large_bytes)
            if middle is None:
                return None
            if direction == UP:
                self._saw_content()
            return middle if self._take_cut(direction) else None

        return look

    def _saw_content(self) -> None:
        """Take note that a large frame is going up."""
        if self._hold_after_content:
            self._hold_after_content = False
            self.hold(DOWN)

    def _take_cut(self, direction: str) -> bool:
        """Say whether it is now that this direction is cut."""
        with self._lock:
            if self._cut_next != direction:
                return False
            self._cut_next = None
            self.cuts += 1
            return True
