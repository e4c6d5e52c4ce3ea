"""A connection to libvirt and the thread that uses it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from meter.daemon.threads import CallThread
from meter.hypervisor.events import Change
from meter.hypervisor.events import Watch
from meter.hypervisor.library import load_libvirt
from meter.interfaces import Unavailable

T = TypeVar("T")

Question = Callable[[Any], T]
"""What is done with a ``libvirt.virConnect`` in a thread of its own."""


class Line:
    """A connection and the thread that uses it: opened when first needed, and again when it broke in between.

    ``tell`` gets this line and each change of a domain that libvirt tells of, ``lose`` this line and the reason why its
    connection is no more, both in the reactor's thread.
    """

    def __init__(
        self,
        uri: str,
        open_connection: Callable[[str], Any],
        reactor_threads: IReactorFromThreads,
        *,
        now: Callable[[], float],
        tell: Callable[[Line, Change], object],
        lose: Callable[[Line, str], object],
    ) -> None:
        self._uri = uri
        self._open_connection = open_connection
        self._reactor_threads = reactor_threads
        self._thread = CallThread(reactor_threads, f"libvirt {uri}")
        self._now = now
        self._tell = tell
        self._lose = lose
        self._connection: Any = None
        self._watch: Watch | None = None
        self._finished = False

    @property
    def alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.alive

    @property
    def receives_events(self) -> bool:
        """Whether libvirt tells of every change of a domain."""
        return self._watch is not None and self._watch.complete

    def ask(self, question: Question[T]) -> Deferred[T]:
        """Fire with the answer, or with :class:`Unavailable` for whatever libvirt says instead."""
        return self._thread.call(lambda: self._answer(question))

    def finish(self) -> Deferred[None]:
        """Fire when the connection is closed, which comes after all that was asked."""
        self._finished = True
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
                if not had_connection or self._finished:
                    raise  # nobody waits for the answer of a line that was left behind: it must not hang once more
            # The daemon may have been restarted since the last question.
            return question(self._opened())
        except libvirt.libvirtError as error:
            self._close()
            raise Unavailable(f"libvirt at {self._uri}: {error}") from error

    def _opened(self) -> Any:
        if self._connection is None:
            self._connection = connection = self._open_connection(self._uri)
            self._watch = Watch(
                connection,
                self._now,
                lambda change: self._reactor_threads.callFromThread(self._tell, self, change),
                lambda reason: self._reactor_threads.callFromThread(self._lost, connection, reason),
            )
        return self._connection

    def _lost(self, connection: Any, reason: str) -> None:
        if connection is self._connection:
            self._lose(self, reason)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.end()
        if connection is not None:
            with suppress(load_libvirt().libvirtError):
                connection.close()
