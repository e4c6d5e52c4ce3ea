"""When maintenance tries again what has failed: soon at first, and then ever more seldom."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from typing import Generic
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.daemon.services import Backoff
from meter.daemon.services import Periodic
from meter.interfaces import Unavailable

Key = TypeVar("Key")


class FailedAttempts(Generic[Key]):
    """What has failed, by key, and when each is tried again.

    The first pause is about ``first_seconds``, the following ones double up to ``most_seconds``. No pause is shorter than the attempt
    was: half of the time nothing is tried, however long a statement takes until it fails.
    """

    def __init__(self, clock: IReactorTime, first_seconds: float, most_seconds: float) -> None:
        self._clock = clock
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._failed: dict[Key, tuple[Backoff, float]] = {}

    def wait(self, key: Key) -> bool:
        """Return whether it is too early to try ``key`` again."""
        _, at = self._failed.get(key, (None, 0.0))
        return self._clock.seconds() < at

    def failed(self, key: Key, began: float) -> None:
        """Note that the attempt that began at ``began`` has failed."""
        backoff, _ = self._failed.get(key, (Backoff(self._first_seconds, self._most_seconds), 0.0))
        now = self._clock.seconds()
        self._failed[key] = backoff, now + max(backoff.next(), now - began)

    def succeeded(self, key: Key) -> None:
        """Note that nothing of ``key`` is left to be tried."""
        self._failed.pop(key, None)

    def pending(self) -> Collection[Key]:
        """Return what has failed and is to be tried again."""
        return self._failed.keys()

    def forget_abandoned(self) -> None:
        """Forget what has been due for the longest pause and was not tried: another process has done it, or it does not exist any more."""
        before = self._clock.seconds() - self._most_seconds
        self._failed = {key: (backoff, at) for key, (backoff, at) in self._failed.items() if at >= before}


class RetriedWork(Periodic):
    """Does ``work`` every ``interval`` seconds; after a failure sooner: the first pause is about ``retry_seconds``, and they double up to the interval.

    That the database cannot be reached, or that another process is at work, is a failure that is only logged for debugging.
    """

    _log = Logger()

    def __init__(
        self,
        work: Callable[[], Awaitable[object]],
        interval: float,
        clock: IReactorTime,
        *,
        name: str,
        retry_seconds: float,
    ) -> None:
        super().__init__(self._attempt, interval, clock, name=name, first_after=interval)
        self._retried = work
        self._usual_interval = interval
        self._pauses = Backoff(min(retry_seconds, interval), interval)

    async def _attempt(self) -> None:
        began = self._clock.seconds()
        try:
            await self._retried()
        except Exception as error:
            # From the beginning of this attempt on, so that no run is skipped.
            self.set_interval(self._clock.seconds() - began + self._pauses.next())
            if not isinstance(error, Unavailable):
                raise
            self._log.debug("{work} is not possible now: {reason}", work=self.name, reason=str(error))
        else:
            self._pauses.reset()
            self.set_interval(self._usual_interval)
