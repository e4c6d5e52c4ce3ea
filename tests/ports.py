"""Ports for servers that a test starts, each given out once in a run of all tests, however many processes run them.

A port that the kernel chooses is free when it is looked at. Before the server listens, and each time it is stopped, the kernel
may choose it again: for a server of another process, for any connection, or for a client that tries in vain to connect to
this very port, which then speaks to itself. So these ports are below those that the kernel chooses from, and each
process takes them from blocks that no other process has.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

FIRST = 10_000
BLOCK = 100
CHOSEN_BY_KERNEL = Path("/proc/sys/net/ipv4/ip_local_port_range")

_held: list[socket.socket] = []
"""Sockets whose names are those of this process's blocks; the kernel frees a name when the process ends, however it ends."""


def _blocks() -> Iterator[range]:
    """Take one block after the other that no other process has."""
    end = int(CHOSEN_BY_KERNEL.read_text().split()[0])
    for first in range(FIRST, end - BLOCK + 1, BLOCK):
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # An abstract name belongs to a network namespace, as ports do.
            name.bind(f"\0meter-test-ports-{first}")
        except OSError:
            name.close()
        else:
            _held.append(name)
            yield range(first, first + BLOCK)


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _free_ports() -> Iterator[int]:
    for block in _blocks():
        for port in block:
            if _is_free(port):
                yield port
    raise RuntimeError(f"no block of {BLOCK} ports from {FIRST} on is left: too many tests run at once")


_ports = _free_ports()
_one_at_a_time = Lock()
"""The servers of a cluster are made by several threads."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on, and that nobody else is given while this process lives."""
    with _one_at_a_time:
        return next(_ports)
