"""A thread for calls that block, perhaps for ever, and that must not keep the process from ending.

The reactor's own thread pool is not for such calls: one that hangs occupies a thread that others wait for, and the
process does not end before it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")

_Call = tuple[Callable[[], Any], Deferred[Any]]


class CallThread:
    """One daemon thread that makes calls, one after another, in the order they were given.

    A call cannot be interrupted: whoever tires of waiting cancels the Deferred, calls :meth:`finish` and takes another
    thread. This one then ends when its call returns, if ever.
    """

    def __init__(self, reactor_threads: IReactorFromThreads, name: str) -> None:
        self._reactor_threads = reactor_threads
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def call(self, function: Callable[[], T]) -> Deferred[T]:
        """Call ``function`` in the thread; fire in the reactor's thread with what it returns or raises."""
        answer: Deferred[T] = Deferred()
        self._calls.put((function, answer))
        return answer

    def finish(self) -> None:
        """Let the thread end after the calls it was given; returns at once."""
        self._calls.put(None)

    def _run(self) -> None:
        while (waiting := self._calls.get()) is not None:
            function, answer = waiting
            try:
                outcome: Any = function()
            except BaseException:
                outcome = Failure()
            # A Deferred that was cancelled meanwhile takes one late outcome and forgets it; so does a failed one.
            self._reactor_threads.callFromThread(answer.callback, outcome)
