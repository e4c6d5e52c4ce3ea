"""The libvirt of this host: all domains with their statistics, whatever hangs. The only code that knows libvirt."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredLock
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.interfaces import Domain
from meter.interfaces import IDependency
from meter.interfaces import IHypervisor
from meter.interfaces import Readiness
from meter.interfaces import Unavailable
from meter.services import Backoff
from meter.services import sleep
from meter.services import within
from meter.threads import CallThread

T = TypeVar("T")

Question = Callable[[Any], T]
"""What is done with a ``libvirt.virConnect`` in a thread of its own."""

SYSTEM_URI = "qemu:///system"
TEST_URI = "test:///default"
SOCKETS = (
    "/var/run/libvirt/virtqemud-sock-ro",
    "/var/run/libvirt/virtqemud-sock",
    "/var/run/libvirt/libvirt-sock-ro",
    "/var/run/libvirt/libvirt-sock",
)
DAEMONS = ("virtqemud", "libvirtd")
CLOSE_SECONDS = 2.0


def resolve_uri(
    setting: str,
    *,
    installed_is_enough: bool = False,
    sockets: Sequence[str] = SOCKETS,
    search_path: str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
) -> tuple[str, str]:
    """Return the connection URI that ``setting`` means, and a clause that says why.

    ``"auto"`` is this host's QEMU where a libvirt daemon answers (or, with ``installed_is_enough``, could be started),
    and libvirt's built-in pretence of a host elsewhere. Every other setting is a URI already. Call it before the
    reactor runs: it knocks at the daemon's sockets, and a socket that systemd guards may take a second to open.
    """
    if setting != "auto":
        return setting, "the configuration says so"
    for path in sockets:
        if _accepts(path):
            return SYSTEM_URI, f"a libvirt daemon answers at {path}"
    if installed_is_enough:
        for daemon in DAEMONS:
            if found := shutil.which(daemon, path=search_path):
                return SYSTEM_URI, f"{found} is installed"
    return TEST_URI, "no libvirt daemon answers on this host"


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as knocking, suppress(OSError):
        knocking.settimeout(2.0)
        knocking.connect(path)
        return True
    return False


def load_libvirt() -> Any:
    """Return the ``libvirt`` module; :class:`Unavailable` says how to install it."""
    try:
        import libvirt
    except ImportError as error:
        raise Unavailable("libvirt-python is not installed: pip install 'meter[compute]'") from error
    return libvirt


def open_read_only(uri: str) -> Any:
    """Return a ``libvirt.virConnect`` that cannot change anything."""
    libvirt = load_libvirt()
    # libvirt prints every error, though it raises it too.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt.openReadOnly(uri)


@dataclass(frozen=True, slots=True)
class Reading:
    """All domains at one moment; ``failed`` has the names of those that could not be read, each with its reason."""

    domains: Sequence[Domain]
    failed: Mapping[str, str]


def read_domains(connection: Any) -> Reading:
    """Read all domains, running or not, in one bulk call, then the XML of each.

    ``NOWAIT`` makes libvirt leave out what a busy domain would have to be asked for. The XML is read anew every time
    (0.4 ms each): libvirt tells of some of its changes only, and only to those that run its event loop.
    A domain that disappears meanwhile is left out. Drivers that know no statistics but the state (``test:///``), or
    no bulk call at all, are asked for the basic ones domain by domain.
    """
    libvirt = load_libvirt()
    try:
        records = connection.getAllDomainStats(0, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED):
            raise
        records = [(domain, {}) for domain in connection.listAllDomains()]
    domains = []
    failed = {}
    for domain, stats in records:
        try:
            if all(name.startswith("state.") for name in stats):
                stats = {**stats, **_basic_stats(domain.info())}
            domains.append(Domain(domain.UUIDString(), domain.name(), domain.XMLDesc(), stats))
        except libvirt.libvirtError as error:
            if not connection.isAlive():
                raise
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                failed[domain.name()] = str(error)
    return Reading(domains, failed)


def _basic_stats(info: Sequence[int]) -> dict[str, int]:
    """Name the fields of libvirt's ``virDomainInfo`` as the bulk call names them."""
    state, maximum_kib, current_kib, vcpus, cpu_time_ns = info
    return {
        "state.state": state,
        "balloon.maximum": maximum_kib,
        "balloon.current": current_kib,
        "vcpu.current": vcpus,
        "cpu.time": cpu_time_ns,
    }


class _Line:
    """A connection and the thread that uses it: opened when first needed, and again when it broke in between."""

    def __init__(self, uri: str, open_connection: Callable[[str], Any], reactor_threads: IReactorFromThreads) -> None:
        self._uri = uri
        self._open_connection = open_connection
        self._thread = CallThread(reactor_threads, f"libvirt {uri}")
        self._connection: Any = None

    @property
    def alive(self) -> bool:
        return self._thread.alive

    def ask(self, question: Question[T]) -> Deferred[T]:
        """Fire with the answer, or with :class:`Unavailable` for whatever libvirt says instead."""
        return self._thread.call(lambda: self._answer(question))

    def finish(self) -> Deferred[None]:
        """Fire when the connection is closed, which comes after all that was asked."""
        closed = self._thread.call(self._close)
        self._thread.finish()
        return closed

    def _answer(self, question: Question[T]) -> T:
        libvirt = load_libvirt()
        had_connection = self._connection is not None
        try:
            try:
                return question(self._opened())
            except libvirt.libvirtError:
                self._close()
                if not had_connection:
                    raise
            # The daemon may have been restarted since the last question.
            return question(self._opened())
        except libvirt.libvirtError as error:
            self._close()
            raise Unavailable(f"libvirt at {self._uri}: {error}") from error

    def _opened(self) -> Any:
        if self._connection is None:
            self._connection = self._open_connection(self._uri)
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(load_libvirt().libvirtError):
                connection.close()


@implementer(IHypervisor, IDependency)
class LibvirtHypervisor(Service):
    """Asks the libvirt at ``uri``; a call that does not return costs ``timeout_seconds``, never the answer of others.

    libvirt waits without limit for a domain whose emulator hangs. Such a call is left behind in its thread, counted in
    ``abandoned_threads``, and the question is asked once more on a new connection. There ``NOWAIT`` helps: libvirt
    knows by now that the domain is busy, and answers for all others (libvirt 9.0: the first call hung until the
    emulator went on, the second took 0.02 s; tests/integration/test_hypervisor_libvirtd.py). So ``domains()`` takes at
    most twice ``timeout_seconds``. While ``stuck_limit`` calls hang nothing more is asked: each also occupies one of
    libvirtd's own worker threads, of which there are 20.

    As a service it asks for a sign of life every ``check_seconds``, after growing pauses while there is none; without
    being started it works as well. This does for local and remote URIs what libvirt's keep-alive does for remote ones.
    """

    name = "libvirt"
    _log = Logger()

    def __init__(
        self,
        uri: str,
        *,
        clock: IReactorTime,
        reactor_threads: IReactorFromThreads,
        timeout_seconds: float = 10.0,
        check_seconds: float = 10.0,
        backoff: Backoff | None = None,
        stuck_limit: int = 8,
        open_connection: Callable[[str], Any] = open_read_only,
    ) -> None:
        self.uri = uri
        self.abandoned_threads = 0
        self._clock = clock
        self._reactor_threads = reactor_threads
        self._timeout_seconds = timeout_seconds
        self._check_seconds = check_seconds
        self._backoff = backoff or Backoff()
        self._stuck_limit = stuck_limit
        self._open_connection = open_connection
        self._turn = DeferredLock()
        self._line: _Line | None = None
        self._left_behind: list[_Line] = []
        self._failed: Mapping[str, str] = {}
        self._readiness = Readiness("libvirt", False, f"{uri} has not been asked yet")
        self._told: bool | None = None
        self._checking: Deferred[None] | None = None
        self._observers: list[Callable[[Domain], object]] = []

    # --- IHypervisor and IDependency

    async def domains(self) -> Sequence[Domain]:
        """Return every defined domain; :class:`Unavailable` when libvirt does not answer."""
        reading = await self._ask(read_domains)
        for name, reason in reading.failed.items():
            if self._failed.get(name) != reason:
                self._log.warn("domain {domain} cannot be read and is left out: {reason}", domain=name, reason=reason)
        self._failed = reading.failed
        return reading.domains

    def observe(self, receive: Callable[[Domain], object]) -> None:
        """Let ``receive`` know of changes."""
        self._observers.append(receive)

    def readiness(self) -> Readiness:
        """Say whether libvirt answered the last question."""
        return self._readiness

    @property
    def stuck_threads(self) -> int:
        """How many calls that were left behind hang still."""
        self._left_behind = [line for line in self._left_behind if line.alive]
        return len(self._left_behind)

    # --- IService

    def startService(self) -> None:
        """Begin to look for libvirt; returns at once."""
        super().startService()
        self._checking = Deferred.fromCoroutine(self._check_for_ever())

    def stopService(self) -> Deferred[None]:
        """Fire when the connection is closed, or was given up."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()
            await checking
        line, self._line = self._line, None
        self._readiness = Readiness("libvirt", False, "stopped")
        if line is not None:
            with suppress(DeferredTimeout):
                await within(self._clock, CLOSE_SECONDS, line.finish())

    async def _check_for_ever(self) -> None:
        with suppress(CancelledError):
            while True:
                try:
                    await self._ask(_sign_of_life)
                except Unavailable:
                    pause = self._backoff.next()
                else:
                    self._backoff.reset()
                    pause = self._check_seconds
                await sleep(self._clock, pause)

    # --- asking

    async def _ask(self, question: Question[T]) -> T:
        await self._turn.acquire()
        try:
            answer = await self._ask_past_a_stuck_call(question)
        except Unavailable as error:
            self._found(Readiness("libvirt", False, str(error)))
            raise
        finally:
            self._turn.release()
        self._found(Readiness("libvirt", True, f"connected to {self.uri}"))
        return answer

    async def _ask_past_a_stuck_call(self, question: Question[T]) -> T:
        for _ in range(2):
            if self.stuck_threads >= self._stuck_limit:
                raise Unavailable(f"libvirt at {self.uri}: {self._stuck_limit} calls hang, no more are made")
            if self._line is None:
                self._line = _Line(self.uri, self._open_connection, self._reactor_threads)
            try:
                return await within(self._clock, self._timeout_seconds, self._line.ask(question))
            except DeferredTimeout:
                self._leave_behind(self._line)
        raise Unavailable(f"libvirt at {self.uri}: no answer within {self._timeout_seconds:g} s, twice")

    def _leave_behind(self, line: _Line) -> None:
        self._log.warn("a call of libvirt at {uri} hangs; it is left behind", uri=self.uri)
        self.abandoned_threads += 1
        self._left_behind.append(line)
        self._line = None
        line.finish().addErrback(lambda _: None)

    def _found(self, readiness: Readiness) -> None:
        self._readiness = readiness
        if readiness.ready == self._told:
            return
        self._told = readiness.ready
        if readiness.ready:
            self._log.info("libvirt at {uri} answers", uri=self.uri)
        else:
            self._log.warn("libvirt does not answer: {reason}", reason=readiness.reason)


def _sign_of_life(connection: Any) -> None:
    connection.numOfDomains()
