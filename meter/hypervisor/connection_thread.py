"""A connection to libvirt and the thread that makes its blocking calls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from meter.daemon.threads import CallThread
from meter.hypervisor.events import EventListener
from meter.hypervisor.events import LifecycleEvent
from meter.hypervisor.library import load_libvirt
from meter.interfaces import Unavailable

T = TypeVar("T")

Call = Callable[[Any], T]
"""A function of a ``libvirt.virConnect``, which runs in the thread of the connection."""


class ConnectionThread:
    """A connection and its thread. The connection is opened for the first call, and again after it was lost.

    ``on_event`` is called with this object and each lifecycle event of a domain, ``on_lost`` with this object and the
    reason why the connection was lost, both in the reactor's thread.
    """

    def __init__(
        self,
        uri: str,
        open_connection: Callable[[str], Any],
        reactor_threads: IReactorFromThreads,
        *,
        now: Callable[[], float],
        on_event: Callable[[ConnectionThread, LifecycleEvent], object],
        on_lost: Callable[[ConnectionThread, str], object],
    ) -> None:
        self._uri = uri
        self._open_connection = open_connection
        self._reactor_threads = reactor_threads
        self._thread = CallThread(reactor_threads, f"libvirt {uri}")
        self._now = now
        self._on_event = on_event
        self._on_lost = on_lost
        self._connection: Any = None
        self._listener: EventListener | None = None
        self._finished = False

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.alive

    @property
    def receives_events(self) -> bool:
        """Whether libvirt reports every change of a domain on this connection."""
        return self._listener is not None and self._listener.complete

    def call(self, call: Call[T]) -> Deferred[T]:
        """Fire with the result of ``call``; fail with :class:`Unavailable` for an error of libvirt."""
        return self._thread.call(lambda: self._run(call))

    def finish(self) -> Deferred[None]:
        """Fire when the connection is closed, after all calls that were made before."""
        self._finished = True
        closed = self._thread.call(self._close)
        self._thread.finish()
        return closed

    def _run(self, call: Call[T]) -> T:
        libvirt = load_libvirt()
        had_connection = self._connection is not None
        try:
            try:
                return call(self._opened())
            except libvirt.libvirtError:
                self._close()
                if not had_connection or self._finished:
                    raise  # an abandoned call must not be repeated: no caller waits for it, and it may hang again
            # libvirtd may have been restarted since the last call.
            return call(self._opened())
        except libvirt.libvirtError as error:
            self._close()
            raise Unavailable(f"libvirt at {self._uri}: {error}") from error

    def _opened(self) -> Any:
        if self._connection is None:
            self._connection = connection = self._open_connection(self._uri)
            self._listener = EventListener(
                connection,
                self._now,
                lambda event: self._reactor_threads.callFromThread(self._on_event, self, event),
                lambda reason: self._reactor_threads.callFromThread(self._lost, connection, reason),
            )
        return self._connection

    def _lost(self, connection: Any, reason: str) -> None:
        if connection is self._connection:
            self._on_lost(self, reason)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.end()
        if connection is not None:
            with suppress(load_libvirt().libvirtError):
                connection.close()
