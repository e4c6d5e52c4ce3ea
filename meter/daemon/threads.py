"""A daemon thread for calls that block, perhaps for ever, and must not delay the end of the process.

The reactor's thread pool is unsuitable for such calls: a call that hangs occupies a thread that others wait for, and
the process does not end before it returns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock
from threading import Thread
from typing import Any
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")

SWITCH_SECONDS = 0.0002
"""Time after which a thread that computes gives Python's global lock to one that waits for it; Python's own is 5 ms."""

_Call = tuple[Callable[[], Any], Deferred[Any]]


class CallThread:
    """One daemon thread that executes calls in order, one at a time.

    A call cannot be interrupted: a caller that stops waiting cancels the Deferred, calls :meth:`finish` and uses another
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
        """Call ``function`` in the thread; fire in the reactor's thread with its result or exception."""
        answer: Deferred[T] = Deferred()
        self._calls.put((function, answer))
        return answer

    def finish(self) -> None:
        """End the thread after the pending calls; returns at once."""
        self._calls.put(None)

    def _run(self) -> None:
        while (waiting := self._calls.get()) is not None:
            function, answer = waiting
            try:
                outcome: Any = function()
            except BaseException:
                outcome = Failure()
            # A Deferred without a canceller that was cancelled meanwhile ignores one late result.
            self._reactor_threads.callFromThread(answer.callback, outcome)


class _FrequentSwitches:
    """Makes threads take turns every :data:`SWITCH_SECONDS` while at least one of them computes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._computing = 0
        self._usual = 0.0

    @contextmanager
    def while_computing(self) -> Iterator[None]:
        """Count a thread that computes; Python's own interval returns with the end of the last one."""
        with self._lock:
            if not self._computing:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(SWITCH_SECONDS, self._usual))
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._computing -= 1
                if not self._computing:
                    sys.setswitchinterval(self._usual)


_frequent_switches = _FrequentSwitches()


class OffReactor:
    """Calls functions that take long in one thread, which the first call starts: ``await off_reactor(function)``.

    The functions must be safe to run beside the reactor. They are called one at a time, so that one after another, not
    all at once, compete with the reactor for Python's global lock.

    The reactor gives that lock away many times in a turn: for each HMAC, random number, and change of what it polls. After
    each it waits until the thread has computed for a switch interval, which is :data:`SWITCH_SECONDS` while a function runs:
    with Python's usual 5 ms, signing fifty samples beside a large body held the reactor for a quarter of a second.
    """

    def __init__(self, reactor_threads: IReactorFromThreads, name: str) -> None:
        self._reactor_threads = reactor_threads
        self._name = name
        self._thread: CallThread | None = None
        self._lock = Lock()
        self._calls = 0

    @property
    def busy(self) -> bool:
        """Whether a function runs or waits."""
        return self._calls > 0

    def __call__(self, function: Callable[[], T]) -> Deferred[T]:
        """Fire in the reactor's thread with the result of ``function`` or its exception."""
        if self._thread is None:
            self._thread = CallThread(self._reactor_threads, self._name)

        def compute() -> T:
            try:
                with _frequent_switches.while_computing():
                    return function()
            finally:
                self._count(-1)

        self._count(1)
        return self._thread.call(compute)

    def _count(self, difference: int) -> None:
        with self._lock:
            self._calls += difference
