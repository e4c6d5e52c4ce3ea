"""The process that runs a domain, where it is local: what names one run of a domain and stays the same while it lasts.

Everything here reads files and may block: it is called in libvirt's thread, when a domain is new or runs anew.
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
MOST_THREADS = 4096


@dataclass(frozen=True, slots=True)
class Process:
    """A process that runs a domain.

    ``id`` names it among all that this host ever ran: the boot of the host, and the process's start within it.
    ``started_at`` is in seconds since 1970. ``processors`` changes when a virtual processor is unplugged and another one
    takes its number; it is empty where the threads cannot be told.
    """

    id: str
    started_at: float
    processors: str = ""


class Processes:
    """Finds the processes of the domains of the libvirt at ``uri``, where that runs on this host.

    QEMU's process is named by the file that libvirt keeps of its number, else by the UUID among its arguments; that of a
    container is its id. Without the permission to look, or with libvirt on another host, there is none.
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
        """Return a search, in which the list of all processes is read at most once."""
        return Search(self)

    def of(self, uuid: str, name: str, number: int, others: Callable[[], dict[str, list[int]]]) -> Process | None:
        """Return the process of a domain, ``None`` where it cannot be told; ``others`` gives processes by UUID."""
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
        """Return the numbers of all processes that have a UUID among their arguments, as QEMU's have."""
        found: dict[str, list[int]] = {}
        for pid in self._pids():
            if uuid := _uuid(self._arguments(pid)):
                found.setdefault(uuid, []).append(pid)
        return found

    def _pids(self) -> Iterator[int]:
        with suppress(OSError):
            yield from (int(name) for name in os.listdir(self._proc) if name.isdecimal())

    def _runs(self, pid: int, uuid: str) -> bool:
        """Whether the process is the domain's: the file of its number may be of an earlier one."""
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
        """Return a digest of which thread is which virtual processor, by its start."""
        starts = {}
        try:
            for task in islice((self._proc / str(pid) / "task").iterdir(), MOST_THREADS):
                if match := VCPU_THREAD.match((task / "comm").read_text()):
                    starts[int(match[1])] = self._start_ticks(task / "stat")
        except (OSError, ValueError, IndexError):
            return ""
        return hashlib.sha256(repr(sorted(starts.items())).encode()).hexdigest()[:8] if starts else ""

    @staticmethod
    def _start_ticks(stat: Path) -> int:
        """Return field 22 of proc_pid_stat(5): the start, in ticks of the clock since the boot."""
        return int(stat.read_text().rpartition(")")[2].split()[19])


class Search:
    """One search for the processes of several domains."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._by_uuid: dict[str, list[int]] | None = None

    def of(self, uuid: str, name: str, number: int) -> Process | None:
        """Return the process of a domain, ``None`` where it cannot be told."""
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
    """Where libvirt keeps the numbers of its processes: of the system, of a session, or beside a socket that was named."""
    if socket:
        observe_queue = Path(socket).parent
        return [observe_queue / "qemu/run", observe_queue / "qemu"]
    if path == "/session":
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        return [Path(runtime) / "libvirt/qemu/run"] if runtime else [Path.home() / ".cache/libvirt/qemu/run"]
    return [SYSTEM_RUN / "qemu"]
