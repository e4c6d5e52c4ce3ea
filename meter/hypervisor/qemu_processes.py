"""The local process of a domain, which identifies one run of the domain.

These functions read files and may block: they run in the thread of the connection, for domains that are new or restarted.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs
from urllib.parse import urlsplit

SYSTEM_RUN = Path("/run/libvirt")
VCPU_THREAD = re.compile(r"CPU (\d+)/")
MAX_THREADS = 4096


@dataclass(frozen=True, slots=True)
class Process:
    """The process of a domain.

    ``id`` is unique among all processes of this host: the boot id, and the start time in ticks since the boot.
    ``started_at`` is in seconds since 1970. ``processors`` is a digest that changes when a vCPU is unplugged and another
    takes its number; it is empty where the threads cannot be read.
    """

    id: str
    started_at: float
    processors: str = ""


class Processes:
    """Finds the processes of the domains of the libvirt at ``uri``, if that is local.

    A QEMU process is found by libvirt's PID file, else by the UUID in its arguments; the PID of a container is its
    domain id. Nothing is found without permission to read ``/proc``, or with libvirt on another host.
    """

    def __init__(
        self,
        uri: str,
        *,
        now: Callable[[], float],
        seconds_since_boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        proc: Path = Path("/proc"),
    ) -> None:
        parts = urlsplit(uri)
        self._driver = parts.scheme.partition("+")[0]
        transport = parts.scheme.partition("+")[2]
        self._local = not parts.netloc and transport in ("", "unix") and self._driver in ("qemu", "lxc")
        self._directories = _directories(parts.path, parse_qs(parts.query).get("socket", [""])[0])
        self._now = now
        self._seconds_since_boot = seconds_since_boot
        self._proc = proc

    def search(self) -> Search:
        """Return a search, which reads the list of all processes at most once."""
        return Search(self)

    def of(self, uuid: str, name: str, number: int, others: Callable[[], dict[str, list[int]]]) -> Process | None:
        """Return the process of a domain, ``None`` where it is not found; ``others`` returns PIDs by UUID."""
        if not self._local or number < 0:
            return None
        if self._driver == "lxc":
            return self._process(number)
        for directory in self._directories:
            with suppress(OSError, ValueError):
                if "/" not in name and self._runs(pid := int((directory / f"{name}.pid").read_text()), uuid):
                    return self._process(pid)
        found = others().get(uuid, [])
        return self._process(found[0]) if len(found) == 1 else None

    def by_uuid(self) -> dict[str, list[int]]:
        """Return the PIDs of all processes with a ``-uuid`` argument, by UUID."""
        found: dict[str, list[int]] = {}
        for pid in self._pids():
            if uuid := _uuid(self._arguments(pid)):
                found.setdefault(uuid, []).append(pid)
        return found

    def _pids(self) -> Iterator[int]:
        with suppress(OSError):
            yield from (int(name) for name in os.listdir(self._proc) if name.isdecimal())

    def _runs(self, pid: int, uuid: str) -> bool:
        """Whether the process is the domain's: the PID file may be stale."""
        return _uuid(self._arguments(pid)) == uuid

    def _arguments(self, pid: int) -> Sequence[bytes]:
        try:
            return (self._proc / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return ()

    def _process(self, pid: int) -> Process | None:
        try:
            ticks = self._start_ticks(self._proc / str(pid) / "stat")
            boot = (self._proc / "sys/kernel/random/boot_id").read_text().strip()[:8]
        except (OSError, ValueError, IndexError):
            return None
        age = self._seconds_since_boot() - ticks / os.sysconf("SC_CLK_TCK")
        return Process(f"{boot}.{ticks}", self._now() - age, self._processors(pid))

    def _processors(self, pid: int) -> str:
        """Return a digest of the start times of the vCPU threads."""
        starts = {}
        try:
            for task in islice((self._proc / str(pid) / "task").iterdir(), MAX_THREADS):
                if match := VCPU_THREAD.match((task / "comm").read_text()):
                    starts[int(match[1])] = self._start_ticks(task / "stat")
        except (OSError, ValueError, IndexError):
            return ""
        return hashlib.sha256(repr(sorted(starts.items())).encode()).hexdigest()[:8] if starts else ""

    @staticmethod
    def _start_ticks(stat: Path) -> int:
        """Return field 22 of proc_pid_stat(5): the start time in clock ticks since the boot."""
        return int(stat.read_text().rpartition(")")[2].split()[19])


class Search:
    """One search for the processes of several domains."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._by_uuid: dict[str, list[int]] | None = None

    def of(self, uuid: str, name: str, number: int) -> Process | None:
        """Return the process of a domain, ``None`` where it is not found."""
        return self._processes.of(uuid, name, number, self._others)

    def _others(self) -> dict[str, list[int]]:
        if self._by_uuid is None:
            self._by_uuid = self._processes.by_uuid()
        return self._by_uuid


def _uuid(arguments: Sequence[bytes]) -> str | None:
    for option, value in pairwise(arguments):
        if option == b"-uuid":
            return value.decode("ascii", "replace")
    return None


def _directories(path: str, socket: str) -> list[Path]:
    """Return the directories of PID files: of the system, of a session, or next to a given socket."""
    if socket:
        folder = Path(socket).parent
        return [folder / "qemu/run", folder / "qemu"]
    if path == "/session":
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        return [Path(runtime) / "libvirt/qemu/run"] if runtime else [Path.home() / ".cache/libvirt/qemu/run"]
    return [SYSTEM_RUN / "qemu"]
