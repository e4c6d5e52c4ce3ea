"""CommitListener: a connection that LISTENs for commits of samples by any process."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session

CHANNEL = "meter_samples"

NOTIFY_SQL = f"pg_notify('{CHANNEL}', '')"
"""Called in a transaction that stores samples. PostgreSQL sends one notification at its commit, however often it is called."""


class CommitListener(Pool):
    """Calls the subscribers after commits. ``connect`` makes a session that calls its argument on each notification.

    When the connection is restored all subscribers are called, as notifications may have been missed.
    """

    _log = Logger()

    def __init__(
        self, connect: Callable[[Callable[[], object]], Session], clock: IReactorTime, *, size: int = 1
    ) -> None:
        super().__init__(
            lambda: connect(self._notify), clock, name="store commit listener", size=size, prepare=self._listen
        )
        self._callbacks: dict[object, Callable[[], object]] = {}

    def subscribe_to_commits(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` after commits; return the function that ends the subscription."""
        key = object()
        self._callbacks[key] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe

    async def _listen(self, session: Session) -> None:
        await session.count(f"LISTEN {CHANNEL}")

    def join(self, session: Session) -> None:
        """Use the connection, and call every subscriber: commits may have been missed before it listened."""
        super().join(session)
        self._notify()

    def _notify(self) -> None:
        for callback in list(self._callbacks.values()):
            try:
                callback()
            except Exception:
                self._log.failure("a subscriber to commits failed; it is called again after the next commit")
