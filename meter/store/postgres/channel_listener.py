"""ChannelListener: a connection that LISTENs on a channel for the notifications of any process."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Coroutine
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session
from meter.store.postgres.pool import no_preparation


class ChannelListener(Pool):
    """Calls the subscribers after each notification on ``channel``, an SQL name; ``name`` is its own in the log.

    ``connect`` makes a session that calls its argument on each notification. When the connection is restored all
    subscribers are called, as notifications may have been missed.
    """

    _log = Logger()

    def __init__(
        self,
        connect: Callable[[Callable[[], object]], Session],
        clock: IReactorTime,
        *,
        channel: str,
        name: str,
        size: int = 1,
        prepare: Callable[[Session], Coroutine[Any, Any, None]] = no_preparation,
        max_wait_seconds: float = float("inf"),
    ) -> None:
        async def listen(session: Session) -> None:
            await prepare(session)
            await session.count(f"LISTEN {channel}")

        super().__init__(
            lambda: connect(self._notify),
            clock,
            name=name,
            size=size,
            prepare=listen,
            max_wait_seconds=max_wait_seconds,
        )
        self._callbacks: dict[object, Callable[[], object]] = {}

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` after notifications; return the function that ends the subscription."""
        key = object()
        self._callbacks[key] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe

    def join(self, session: Session) -> None:
        """Use the connection, and call every subscriber: notifications may have been missed before it listened."""
        super().join(session)
        self._notify()

    def _notify(self) -> None:
        for callback in list(self._callbacks.values()):
            try:
                callback()
            except Exception:
                self._log.failure("{pool}: a subscriber failed; it is called again next time", pool=self.name)
