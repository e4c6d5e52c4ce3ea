"""CommitListener: a connection of its own that PostgreSQL tells of commits, whichever process made them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.store.postgres.pool import Pool
from meter.store.postgres.pool import Session

CHANNEL = "meter_samples"

TELL = f"pg_notify('{CHANNEL}', '')"
"""Called in a transaction that stores samples: heard when it commits, and once only if it is called twice."""


class CommitListener(Pool):
    """Listens, and tells those who follow. ``connect`` is given what a new session calls when it hears something.

    When the connection comes back all are told: nobody knows what was said meanwhile.
    """

    _log = Logger()

    def __init__(
        self, connect: Callable[[Callable[[], object]], Session], clock: IReactorTime, *, size: int = 1
    ) -> None:
        super().__init__(lambda: connect(self._tell), clock, name="store follower", size=size, prepare=self._listen)
        self._followers: dict[object, Callable[[], object]] = {}

    def follow(self, heard: Callable[[], object]) -> Callable[[], None]:
        """Call ``heard`` after commits; return what ends that."""
        key = object()
        self._followers[key] = heard

        def leave() -> None:
            self._followers.pop(key, None)

        return leave

    async def _listen(self, session: Session) -> None:
        await session.count(f"LISTEN {CHANNEL}")

    def _join(self, session: Session) -> None:
        super()._join(session)
        self._tell()

    def _tell(self) -> None:
        for heard in list(self._followers.values()):
            try:
                heard()
            except Exception:
                self._log.failure("a follower failed and is told again next time")
