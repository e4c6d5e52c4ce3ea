"""The hypervisor as a service: asks libvirt past calls that hang, and passes on what libvirt tells."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import TypeVar

from cachetools import FIFOCache
from twisted.application.service import Service
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredLock
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.daemon.services import Backoff
from meter.daemon.services import sleep
from meter.daemon.services import wall_seconds
from meter.daemon.services import within
from meter.hypervisor.connection_thread import Line
from meter.hypervisor.connection_thread import Question
from meter.hypervisor.disks import Sizes
from meter.hypervisor.domain_reader import Descriptions
from meter.hypervisor.domain_reader import read_changed
from meter.hypervisor.domain_reader import read_domains
from meter.hypervisor.domain_reader import without_reading
from meter.hypervisor.events import LEAVING
from meter.hypervisor.events import Change
from meter.hypervisor.hung_domains import HangingDomains
from meter.hypervisor.hung_domains import hanging_domains
from meter.hypervisor.library import open_read_only
from meter.hypervisor.qemu_processes import Processes
from meter.hypervisor.state_changes import StateChanges
from meter.interfaces import Absence
from meter.interfaces import Domain
from meter.interfaces import IDependency
from meter.interfaces import IHypervisor
from meter.interfaces import Readiness
from meter.interfaces import Unavailable

T = TypeVar("T")

CLOSE_SECONDS = 2.0
MOST_CHANGES = 1000
"""Changes of domains that wait to be passed on. A host that restarts all its domains at once makes some hundreds."""


@implementer(IHypervisor, IDependency)
class LibvirtHypervisor(Service):
    """Asks the libvirt at ``uri``; a call that does not return costs ``timeout_seconds``, never the answer of others.

    libvirt waits without limit for a domain whose emulator hangs. Such a call is left behind in its thread, counted in
    ``abandoned_calls``, and the question is asked once more on a new connection. There ``NOWAIT`` helps: libvirt
    knows by now that the domain is busy, and answers for all others (libvirt 9.0: the first call hung until the
    emulator went on, the second took 0.02 s; tests/integration/test_hypervisor_libvirtd.py). So ``domains()`` takes at
    most twice ``timeout_seconds``. While ``stuck_limit`` calls hang nothing more is asked: each also occupies one of
    libvirtd's own worker threads, of which there are 20.

    As a service it asks for a sign of life every ``check_seconds``, and at once when a connection is lost; after growing
    pauses while there is none. Without being started it works as well.
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
        processes: Processes | None = None,
    ) -> None:
        self.uri = uri
        self.abandoned_calls = 0
        self.dropped_changes = 0
        self._clock = clock
        self._reactor_threads = reactor_threads
        self._timeout_seconds = timeout_seconds
        self._check_seconds = check_seconds
        self._backoff = backoff or Backoff()
        self._stuck_limit = stuck_limit
        self._open_connection = open_connection
        self._turn = DeferredLock()
        self._line: Line | None = None
        self._left_behind: list[Line] = []
        self._processes = processes or Processes(uri, now=self._now)
        self._failed: Mapping[str, str] = {}
        self._unreadable: frozenset[str] = frozenset()
        self._unreadable_before: frozenset[str] = frozenset()
        self._absences: FIFOCache[str, Absence] = FIFOCache(MOST_CHANGES)
        self._descriptions = Descriptions()
        self._disk_sizes: Mapping[Hashable, Sizes] = {}
        self.hanging = HangingDomains()
        self._outdated: set[str] = set()
        self._observers: list[Callable[[Domain], object]] = []
        self._changes: deque[Change] = deque()
        self._state_changes = StateChanges()
        self._overflowing = False
        self._telling: Deferred[None] | None = None
        self._readiness = Readiness("libvirt", False, f"{uri} has not been asked yet")
        self._told: bool | None = None
        self._checking: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None

    # --- IHypervisor and IDependency

    async def domains(self) -> Sequence[Domain]:
        """Return every defined domain; :class:`Unavailable` when libvirt does not answer."""
        self._descriptions = known = self._descriptions.without(self._outdated)
        self._outdated = set()
        sizes = self._disk_sizes
        search = self._processes.search()
        reading = await self._ask(lambda connection: read_domains(connection, known, sizes, self._now, search))
        await self._look_for_hanging()
        self._disk_sizes = reading.disk_sizes
        self._state_changes.read(reading.domains)
        if self._line is not None and self._line.receives_events:
            self._descriptions = reading.descriptions
        else:
            self._descriptions = Descriptions(None, reading.descriptions.by_uuid)
        for name, reason in reading.failed.items():
            if self._failed.get(name) != reason:
                self._log.warn("domain {domain} cannot be read and is left out: {reason}", domain=name, reason=reason)
        self._failed = reading.failed
        self._unreadable, self._unreadable_before = reading.unreadable, self._unreadable
        return reading.domains

    def absence(self, uuid: str) -> Absence:
        """Return why a domain that was missing in the last answer, or shut off, no longer runs here."""
        if uuid in self._unreadable or uuid in self._unreadable_before:
            return Absence("unreadable")
        return self._absences.get(uuid, Absence("gone"))

    def observe(self, receive: Callable[[Domain], object]) -> None:
        """Call ``receive`` with each domain whose state has changed, as it was then, in the order of changes.

        Where libvirt still has the domain, its statistics are read at once.
        """
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
        self._changes.clear()
        line, self._line = self._line, None
        self._readiness = Readiness("libvirt", False, "stopped")
        if line is not None:
            with suppress(DeferredTimeout):
                await within(self._clock, CLOSE_SECONDS, line.finish())

    async def _check_for_ever(self) -> None:
        with suppress(CancelledError):
            while True:
                try:
                    await self._ask(_ping)
                except Unavailable:
                    seconds = self._backoff.next()
                else:
                    self._backoff.reset()
                    seconds = self._check_seconds
                self._pause = sleep(self._clock, seconds)
                try:
                    await self._pause
                except CancelledError:
                    if self._pause is not None:  # stopped, not woken up
                        raise
                self._pause = None

    def _now(self) -> float:
        return wall_seconds(self._clock)

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
        self._found(self._connected())
        return answer

    def _connected(self) -> Readiness:
        return Readiness("libvirt", True, f"connected to {self.uri}{self.hanging.remark()}")

    async def _look_for_hanging(self) -> None:
        """While a call hangs, find out which domain it waits for."""
        if self.stuck_threads:
            least = self._timeout_seconds / 2
            with suppress(Unavailable):
                self.hanging.set(await self._ask(lambda connection: hanging_domains(connection, least, self._now)))
                self._found(self._connected())
        elif len(self.hanging):
            self.hanging.set({})
            self._found(self._connected())

    async def _ask_past_a_stuck_call(self, question: Question[T]) -> T:
        for _ in range(2):
            if self.stuck_threads >= self._stuck_limit:
                raise Unavailable(f"libvirt at {self.uri}: {self._stuck_limit} calls hang, no more are made")
            if self._line is None:
                self._line = Line(
                    self.uri,
                    self._open_connection,
                    self._reactor_threads,
                    now=self._now,
                    tell=self._changed,
                    lose=self._lost,
                )
            try:
                return await within(self._clock, self._timeout_seconds, self._line.ask(question))
            except DeferredTimeout:
                self._leave_behind(self._line)
        raise Unavailable(f"libvirt at {self.uri}: no answer within {self._timeout_seconds:g} s, twice")

    def _leave_behind(self, line: Line) -> None:
        self._log.warn("a call of libvirt at {uri} hangs; it is left behind", uri=self.uri)
        self.abandoned_calls += 1
        self._state_changes = StateChanges()
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

    # --- being told

    def _lost(self, line: Line, reason: str) -> None:
        if line is self._line:
            self._state_changes = StateChanges()  # events are missed until there is a connection again
            self._found(Readiness("libvirt", False, f"the connection to {self.uri} is lost: {reason}"))
            pause, self._pause = self._pause, None
            if pause is not None:
                pause.cancel()

    def _changed(self, line: Line, change: Change) -> None:
        if line is not self._line:
            return  # its successor tells the same
        self._outdated.add(change.uuid)
        self._note_absence(change)
        if not self._state_changes.is_new(change) or not self._observers:
            return
        if len(self._changes) >= MOST_CHANGES:
            if not self._overflowing:
                self._log.error("libvirt tells of more changes than can be read; some are not told on")
            self._overflowing = True
            self.dropped_changes += 1
            return
        self._changes.append(change)
        if self._telling is None:
            self._telling = Deferred.fromCoroutine(self._tell_all())

    def _note_absence(self, change: Change) -> None:
        at = datetime.fromtimestamp(change.at, UTC)
        before = self._absences.get(change.uuid)
        if change.words in LEAVING:
            absence = Absence("migrated", at)
        elif change.words.startswith(("stopped (", "undefined (removed")):
            absence = before if before is not None and before.why == "migrated" else Absence("gone", at)
        else:
            if change.words.startswith(("started (", "resumed (")):
                self._absences.pop(change.uuid, None)
            return
        self._absences[change.uuid] = absence

    async def _tell_all(self) -> None:
        """Pass on what waits, in order, then leave: whoever adds the next begins anew."""
        try:
            while self._changes:
                change = self._changes.popleft()
                domain = await self._read(change)
                if domain is None:
                    self._log.info("{domain} was {change} and is gone unread", domain=change.name, change=change.words)
                    continue
                for receive in self._observers:
                    try:
                        receive(domain)
                    except Exception:
                        self._log.failure("an observer of domains failed")
        finally:
            self._telling = None
            self._overflowing = False

    async def _read(self, change: Change) -> Domain | None:
        known, sizes = self._descriptions.xml(change.uuid), self._disk_sizes
        try:
            search = self._processes.search()
            domain = await self._ask(
                lambda connection: read_changed(connection, change, known, sizes, self._now, search)
            )
        except Unavailable:
            domain = without_reading(change, known)
        if domain is not None and domain.xml != known:
            self._descriptions = self._descriptions.with_last(change.uuid, domain.xml)
        return domain


def _ping(connection: Any) -> None:
    connection.numOfDomains()
