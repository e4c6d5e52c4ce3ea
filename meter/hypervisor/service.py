"""The hypervisor as a service: reads domains despite calls that hang, and passes lifecycle events on."""

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
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from meter.cycle_report import DOMAIN_HUNG
from meter.cycle_report import DOMAIN_UNREADABLE
from meter.daemon.locks import Lock
from meter.daemon.services import Backoff
from meter.daemon.services import wall_seconds
from meter.daemon.services import within
from meter.daemon.supervised import SupervisedService
from meter.hypervisor.connection_thread import Call
from meter.hypervisor.connection_thread import ConnectionThread
from meter.hypervisor.disks import Sizes
from meter.hypervisor.domain_reader import Reading
from meter.hypervisor.domain_reader import XmlCache
from meter.hypervisor.domain_reader import read_changed
from meter.hypervisor.domain_reader import read_domains
from meter.hypervisor.domain_reader import without_reading
from meter.hypervisor.events import LEAVING
from meter.hypervisor.events import LifecycleEvent
from meter.hypervisor.hung_domains import HungDomains
from meter.hypervisor.hung_domains import hung_domains
from meter.hypervisor.library import open_read_only
from meter.hypervisor.qemu_processes import Processes
from meter.hypervisor.state_changes import StateChanges
from meter.interfaces import Absence
from meter.interfaces import Domain
from meter.interfaces import IDependency
from meter.interfaces import IHypervisor
from meter.interfaces import Unavailable

T = TypeVar("T")

CLOSE_SECONDS = 2.0
MAX_PENDING_EVENTS = 1000
"""Lifecycle events that wait to be passed on. A host that restarts all its domains at once causes some hundreds."""


@implementer(IHypervisor, IDependency)
class LibvirtHypervisor(SupervisedService):
    """Reads the domains of the libvirt at ``uri``; a domain that hangs does not block the others.

    libvirt waits without limit for a domain whose emulator hangs. After ``timeout_seconds`` such a call is abandoned in
    its thread, counted in ``abandoned_calls``, and repeated on a new connection. There ``NOWAIT`` helps: libvirt knows
    by now that the domain is busy, and answers for all others (libvirt 9.0: the first call hung until the emulator
    continued, the second took 0.02 s; tests/integration/test_hypervisor_libvirtd.py). So ``domains()`` takes at most twice
    ``timeout_seconds``. While ``stuck_limit`` abandoned calls hang no more calls are made: each also occupies one of
    libvirtd's own worker threads, of which there are 20.

    As a service it pings libvirt every ``check_seconds``, and at once when the connection is lost; with growing pauses
    while libvirt does not answer. ``domains()`` works without the service being started.
    """

    name = "libvirt"
    _log = Logger()
    on_stop = "cancel"

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
        super().__init__(clock, backoff=backoff, reason=f"{uri} has not been called yet")
        self.uri = uri
        self.abandoned_calls = 0
        self.dropped_events = 0
        self._reactor_threads = reactor_threads
        self._timeout_seconds = timeout_seconds
        self._check_seconds = check_seconds
        self._stuck_limit = stuck_limit
        self._open_connection = open_connection
        self._lock = Lock()
        self._connection_thread: ConnectionThread | None = None
        self._abandoned: list[ConnectionThread] = []
        self._processes = processes or Processes(uri, now=self._now)
        self._failed: Mapping[str, str] = {}
        self.unreadable: Mapping[str, str] = {}
        self._unreadable: Mapping[str, str] = {}
        self._unreadable_before: Mapping[str, str] = {}
        self._absences: FIFOCache[str, Absence] = FIFOCache(MAX_PENDING_EVENTS)
        self._xml_cache = XmlCache()
        self._disk_sizes: Mapping[Hashable, Sizes] = {}
        self.hung = HungDomains()
        self._outdated: set[str] = set()
        self._observers: list[Callable[[Domain], object]] = []
        self._pending_events: deque[LifecycleEvent] = deque()
        self._state_changes = StateChanges()
        self._overflowing = False
        self._notifying: Deferred[None] | None = None
        self._last_reported: bool | None = None

    # --- IHypervisor and IDependency

    async def domains(self) -> Sequence[Domain]:
        """Return every defined domain; :class:`Unavailable` when libvirt does not answer."""
        self._xml_cache = known = self._xml_cache.without(self._outdated)
        self._outdated = set()
        sizes = self._disk_sizes
        search = self._processes.search()
        reading = await self._call(lambda connection: read_domains(connection, known, sizes, self._now, search))
        await self._find_hung_domains()
        self._disk_sizes = reading.disk_sizes
        self._state_changes.read(reading.domains)
        if self._connection_thread is not None and self._connection_thread.receives_events:
            self._xml_cache = reading.xml_cache
        else:
            self._xml_cache = XmlCache(None, reading.xml_cache.by_uuid)
        for name, reason in reading.failed.items():
            if self._failed.get(name) != reason:
                self._log.warn("domain {domain} cannot be read and is skipped: {reason}", domain=name, reason=reason)
        self._failed = reading.failed
        self._unreadable, self._unreadable_before = reading.unreadable, self._unreadable
        self.unreadable = self._why_unreadable(reading)
        return reading.domains

    def _why_unreadable(self, reading: Reading) -> Mapping[str, str]:
        """Return why domains could not be read, or not completely, by UUID."""
        unreadable = {
            uuid: DOMAIN_HUNG if name in self.hung else DOMAIN_UNREADABLE for uuid, name in reading.unreadable.items()
        }
        if len(self.hung):
            unreadable |= {domain.uuid: DOMAIN_HUNG for domain in reading.domains if domain.name in self.hung}
        return unreadable

    def absence(self, uuid: str) -> Absence:
        """Return why a domain that was missing from the last reading, or shut off, no longer runs here."""
        if uuid in self._unreadable or uuid in self._unreadable_before:
            return Absence("unreadable")
        return self._absences.get(uuid, Absence("gone"))

    def observe(self, receive: Callable[[Domain], object]) -> None:
        """Call ``receive`` with each domain whose state has changed, in the order of the events.

        Where libvirt still has the domain, its statistics are read at once.
        """
        self._observers.append(receive)

    @property
    def stuck_threads(self) -> int:
        """How many abandoned calls still hang."""
        self._abandoned = [thread for thread in self._abandoned if thread.alive]
        return len(self._abandoned)

    # --- IService

    def stopService(self) -> Deferred[None]:
        """Fire when the connection is closed, or has not closed within its time limit."""
        return Deferred.fromCoroutine(self._stop(super().stopService()))

    async def _stop(self, loop: Deferred[None] | None) -> None:
        if loop is not None:
            await loop
        self._pending_events.clear()
        thread, self._connection_thread = self._connection_thread, None
        self._set_state(False, "stopped")
        if thread is not None:
            with suppress(DeferredTimeout):
                await within(self._clock, CLOSE_SECONDS, thread.finish())

    async def _attempt(self) -> float:
        await self._call(_ping)
        self._backoff.reset()
        return self._check_seconds

    def _attempt_failed(self, error: Exception) -> None:
        if not isinstance(error, Unavailable):  # _call has reported that
            super()._attempt_failed(error)

    def _now(self) -> float:
        return wall_seconds(self._clock)

    # --- calls

    async def _call(self, call: Call[T]) -> T:
        await self._lock.acquire()
        try:
            answer = await self._call_past_a_hung_call(call)
        except Unavailable as error:
            self._report(False, str(error))
            raise
        finally:
            self._lock.release()
        self._report(True, self._connected())
        return answer

    def _connected(self) -> str:
        return f"connected to {self.uri}{self.hung.readiness_suffix()}"

    async def _find_hung_domains(self) -> None:
        """While an abandoned call hangs, find out which domains hang."""
        if self.stuck_threads:
            least = self._timeout_seconds / 2
            with suppress(Unavailable):
                self.hung.set(await self._call(lambda connection: hung_domains(connection, least, self._now)))
                self._report(True, self._connected())
        elif len(self.hung):
            self.hung.set({})
            self._report(True, self._connected())

    async def _call_past_a_hung_call(self, call: Call[T]) -> T:
        for _ in range(2):
            if self.stuck_threads >= self._stuck_limit:
                raise Unavailable(f"libvirt at {self.uri}: {self._stuck_limit} calls hang; no more calls are made")
            if self._connection_thread is None:
                self._connection_thread = ConnectionThread(
                    self.uri,
                    self._open_connection,
                    self._reactor_threads,
                    now=self._now,
                    on_event=self._on_event,
                    on_lost=self._on_lost,
                )
            try:
                return await within(self._clock, self._timeout_seconds, self._connection_thread.call(call))
            except DeferredTimeout:
                self._abandon(self._connection_thread)
        raise Unavailable(f"libvirt at {self.uri}: two calls were not answered within {self._timeout_seconds:g} s")

    def _abandon(self, thread: ConnectionThread) -> None:
        self._log.warn("a call to libvirt at {uri} hangs and is abandoned", uri=self.uri)
        self.abandoned_calls += 1
        self._state_changes = StateChanges()
        self._abandoned.append(thread)
        self._connection_thread = None
        thread.finish().addErrback(lambda _: None)

    def _report(self, ready: bool, reason: str) -> None:
        self._set_state(ready, reason)
        if ready == self._last_reported:
            return
        self._last_reported = ready
        if ready:
            self._log.info("libvirt at {uri} answers", uri=self.uri)
        else:
            self._log.warn("libvirt does not answer: {reason}", reason=reason)

    # --- events

    def _on_lost(self, thread: ConnectionThread, reason: str) -> None:
        if thread is self._connection_thread:
            self._state_changes = StateChanges()  # events are missed until the next connection
            self._report(False, f"the connection to {self.uri} was lost: {reason}")
            self.wake()

    def _on_event(self, thread: ConnectionThread, event: LifecycleEvent) -> None:
        if thread is not self._connection_thread:
            return  # an abandoned connection: its successor reports the same event
        self._outdated.add(event.uuid)
        self._record_absence(event)
        if not self._state_changes.is_new(event) or not self._observers:
            return
        if len(self._pending_events) >= MAX_PENDING_EVENTS:
            if not self._overflowing:
                self._log.error(
                    "libvirt sends lifecycle events faster than their domains can be read; some events are dropped"
                )
            self._overflowing = True
            self.dropped_events += 1
            return
        self._pending_events.append(event)
        if self._notifying is None:
            self._notifying = Deferred.fromCoroutine(self._notify_observers())

    def _record_absence(self, event: LifecycleEvent) -> None:
        at = datetime.fromtimestamp(event.at, UTC)
        before = self._absences.get(event.uuid)
        if event.description in LEAVING:
            absence = Absence("migrated", at)
        elif event.description.startswith(("stopped (", "undefined (removed")):
            absence = before if before is not None and before.why == "migrated" else Absence("gone", at)
        else:
            if event.description.startswith(("started (", "resumed (")):
                self._absences.pop(event.uuid, None)
            return
        self._absences[event.uuid] = absence

    async def _notify_observers(self) -> None:
        """Pass pending events on, in order, until there are none."""
        try:
            while self._pending_events:
                event = self._pending_events.popleft()
                domain = await self._read(event)
                if domain is None:
                    self._log.info(
                        "domain {domain} was {event} and disappeared before it could be read",
                        domain=event.name,
                        event=event.description,
                    )
                    continue
                for receive in self._observers:
                    try:
                        receive(domain)
                    except Exception:
                        self._log.failure("an observer of lifecycle events raised an exception")
        finally:
            self._notifying = None
            self._overflowing = False

    async def _read(self, event: LifecycleEvent) -> Domain | None:
        known, sizes = self._xml_cache.xml(event.uuid), self._disk_sizes
        try:
            search = self._processes.search()
            domain = await self._call(
                lambda connection: read_changed(connection, event, known, sizes, self._now, search)
            )
        except Unavailable:
            domain = without_reading(event, known)
        if domain is not None and domain.xml != known:
            self._xml_cache = self._xml_cache.with_last(event.uuid, domain.xml)
        return domain


def _ping(connection: Any) -> None:
    connection.numOfDomains()
