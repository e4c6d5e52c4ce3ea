"""A pool of connections to PostgreSQL, and transactions on them."""

from __future__ import annotations

import inspect
import random
from collections import deque
from collections.abc import Callable
from collections.abc import Coroutine
from datetime import datetime
from typing import Any
from typing import Concatenate
from typing import ParamSpec
from typing import Protocol
from typing import TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.defer import DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from meter.daemon.services import Backoff
from meter.daemon.services import InFlight
from meter.daemon.services import sleep
from meter.daemon.services import within
from meter.daemon.start_grace import StartGrace
from meter.daemon.supervised import SupervisedService
from meter.interfaces import Unavailable
from meter.store.postgres.connection import Conflict
from meter.store.postgres.sql import Parameters

P = ParamSpec("P")
T = TypeVar("T")


class Session(Protocol):
    """A connection, as a transaction uses it: :class:`meter.store.postgres.connection.Connection`, or a fake."""

    closed: bool
    spread: bool
    lost: Deferred[None]

    async def open(self) -> None:
        """Connect."""

    async def rows(self, statement: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """Execute and return the rows."""

    async def count(self, statement: str, parameters: Parameters = None) -> int:
        """Execute and return the number of affected rows."""

    async def remove_time_limits(self, *, of_transaction: bool = False) -> None:
        """Remove the time limits of all further statements, on the server only those of the transaction or all."""

    async def cancel_query(self) -> None:
        """Cancel the statement in progress; return when the cancellation cannot affect a later statement."""

    def close(self) -> None:
        """Close at once."""


async def no_preparation(session: Session) -> None:
    """Prepare nothing."""


class Pool(Service):
    """Keeps ``size`` connections open, and replaces each when it is lost; starting never fails and never waits.

    ``connect`` returns a new, unopened session. ``prepare`` runs on each session in a transaction before it is used; if
    it raises, the session is closed. At most ``max_waiting`` callers wait for a free connection, each for at most
    ``max_wait_seconds``. A transaction with a serialization conflict is attempted ``attempts`` times.
    ``generation`` grows with each new connection: data read over older ones may be stale, as after a failover. ``visible_until``
    is a time until which all samples of a spread store are known to be visible.
    """

    _log = Logger()

    def __init__(
        self,
        connect: Callable[[], Session],
        clock: IReactorTime,
        *,
        name: str,
        size: int,
        prepare: Callable[[Session], Coroutine[Any, Any, None]] = no_preparation,
        max_waiting: int = 200,
        max_wait_seconds: float = float("inf"),
        attempts: int = 5,
        patience_seconds: float = 10.0,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.setName(name)
        self._connect = connect
        self._clock = clock
        self._size = size
        self._prepare = prepare
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._attempts = attempts
        self._patience_seconds = patience_seconds
        self._rng = rng
        self._members: list[_Member] = []
        self._alive: set[Session] = set()
        self._idle: list[Session] = []
        self._waiting: deque[Deferred[Session]] = deque()
        self._cancellations: dict[Session, Deferred[None]] = {}
        self._in_flight = InFlight()
        self._starting = StartGrace(clock)
        self._told_quietly = False
        self.generation = 0
        self.visible_until: datetime | None = None
        self.reason = "not started"

    @property
    def ready(self) -> bool:
        """Whether at least one connection is open and prepared."""
        return bool(self._alive)

    @property
    def spread(self) -> bool:
        """Whether the samples of the store are on several servers, as the connections have found."""
        return any(session.spread for session in self._alive)

    def startService(self) -> None:
        """Begin to connect."""
        super().startService()
        self.reason = "connecting"
        self._starting.begin()
        self._members = [_Member(self, self._clock, Backoff(rng=self._rng), self._connect) for _ in range(self._size)]
        for member in self._members:
            member.startService()

    async def _stop(self, loops: list[Deferred[Deferred[None] | None]]) -> None:
        try:
            await within(self._clock, self._patience_seconds, self._in_flight.idle())
        except DeferredTimeout:
            self._log.warn("{pool} is closing with transactions in progress", pool=self.name)
        for member in self._members:
            member.close()
        await DeferredList(loops, consumeErrors=True)
        self._members = []

    def stopService(self) -> Deferred[None]:
        """Refuse new work, wait for transactions in progress, close; fires when all connections are closed."""
        super().stopService()
        self.reason = "stopping"
        self._fail_waiting()
        loops = [maybeDeferred(member.stopService) for member in self._members]
        return Deferred.fromCoroutine(self._stop(loops))

    # --- work ---

    async def run(
        self,
        work: Callable[Concatenate[Session, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return ``await work(session, …)``, committed; an exception rolls the transaction back.

        ``work`` must be an ``async def``, and may be called again after a conflict. Cancelling the caller does not stop a
        transaction that has begun: the connection could not be reused in the middle of a result.
        """
        if not inspect.iscoroutinefunction(work):
            raise TypeError(
                f"a transaction must be an async def, not {work!r}: any other function would commit before it has run"
            )

        async def transaction(session: Session) -> T:
            return await self._transaction(session, work, *args, **kwargs)

        session = await self._borrow()
        return await _outcome(self._use(session, transaction), abandon=lambda: None)

    async def rows(self, statement: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """Return the rows of one statement in autocommit mode. Cancelling the caller cancels the statement."""

        async def query(session: Session) -> list[tuple[Any, ...]]:
            return await session.rows(statement, parameters)

        session = await self._borrow()
        return await _outcome(self._use(session, query), abandon=lambda: self._start_cancelling(session))

    def _start_cancelling(self, session: Session) -> None:
        self._cancellations[session] = Deferred.fromCoroutine(self._cancel_query(session))

    async def _cancel_query(self, session: Session) -> None:
        try:
            await session.cancel_query()
        except Unavailable as error:
            self._log.info("{pool} cannot cancel an abandoned query: {error}", pool=self.name, error=error)
        except Exception:
            self._log.failure("{pool} failed to cancel an abandoned query", pool=self.name)

    async def _use(self, session: Session, use: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        with self._in_flight:
            try:
                for attempt in range(1, self._attempts):
                    try:
                        return await use(session)
                    except Conflict:
                        await sleep(self._clock, 0.05 * attempt * self._rng())
                return await use(session)
            finally:
                if session in self._cancellations:
                    await self._cancellations.pop(session)  # which must not affect the next query
                self._release(session)

    async def _transaction(
        self,
        session: Session,
        work: Callable[Concatenate[Session, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        await session.count("BEGIN")
        try:
            result = await work(session, *args, **kwargs)
            await session.count("COMMIT")
        except Exception:
            if not session.closed:
                await session.count("ROLLBACK")
            raise
        return result

    async def _borrow(self) -> Session:
        if not self.running or not self._alive:
            raise Unavailable(f"the store is unavailable: {self.reason}")
        if self._idle:
            return self._idle.pop()
        if len(self._waiting) >= self._max_waiting:
            raise Unavailable(f"{len(self._waiting)} callers already wait for a connection to the store")
        waiting: Deferred[Session] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if self._max_wait_seconds == float("inf"):
            return await waiting
        try:
            return await within(self._clock, self._max_wait_seconds, waiting)
        except DeferredTimeout as error:
            raise Unavailable(
                f"all {self._size} connections of the {self.name} have been busy for {self._max_wait_seconds:g} s"
            ) from error

    def _release(self, session: Session) -> None:
        if session not in self._alive:
            return
        if self._waiting:
            self._waiting.popleft().callback(session)
        else:
            self._idle.append(session)

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for caller in waiting:
            caller.errback(Failure(Unavailable(f"the store is unavailable: {self.reason}")))

    # --- members ---

    async def open(self, session: Session) -> None:
        """Open and prepare a new session; called by the members."""
        await session.open()
        await self._transaction(session, self._prepare)

    def join(self, session: Session) -> None:
        """Add a session that is open and prepared."""
        if not self._alive:
            self._log.info("{pool}: connected to PostgreSQL", pool=self.name)
        self.generation += 1
        self.reason = "connected"
        self._starting.end()
        self._told_quietly = False
        self._alive.add(session)
        self._release(session)

    def leave(self, session: Session) -> None:
        """Remove a session that was lost."""
        self._alive.discard(session)
        if session in self._idle:
            self._idle.remove(session)
        if not self._alive and self.running:
            self.reason = "the connection was lost"
            self._log.warn("{pool}: the last connection is lost; reconnecting", pool=self.name)
            self._fail_waiting()

    def connecting_failed(self, error: Exception) -> None:
        """Log why connecting failed, once per reason, while no connection is open; it is a warning only if it lasts after a start."""
        if self._alive or not self.running:
            return
        is_new = str(error) != self.reason
        starting = self._starting.active and isinstance(error, Unavailable)
        self.reason = str(error)
        if not is_new and (starting or not self._told_quietly):
            return
        self._told_quietly = starting
        if starting:
            self._log.info("{pool}: no connection yet; retrying: {reason}", pool=self.name, reason=self.reason)
        elif isinstance(error, Unavailable):
            self._log.warn("{pool}: no connection; retrying: {reason}", pool=self.name, reason=self.reason)
        else:
            self._log.failure("{pool} cannot prepare its connection; retrying", pool=self.name)


class _Member(SupervisedService):
    """Keeps one connection of a pool open: a lost connection is replaced at once."""

    def __init__(self, pool: Pool, clock: IReactorTime, backoff: Backoff, connect: Callable[[], Session]) -> None:
        super().__init__(clock, backoff=backoff)
        self._pool = pool
        self._connect = connect
        self._session: Session | None = None

    async def _attempt(self) -> float:
        self._session = session = self._connect()
        try:
            await self._pool.open(session)
        except Exception:
            self.close()
            raise
        self._backoff.reset()
        self._pool.join(session)
        await session.lost
        self._pool.leave(session)
        return 0.0

    def _attempt_failed(self, error: Exception) -> None:
        self._pool.connecting_failed(error)

    def close(self) -> None:
        """Close the session at once, open or opening."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _outcome(work: Coroutine[Any, Any, T], *, abandon: Callable[[], None]) -> Deferred[T]:
    """Return a Deferred of ``work``. Cancelling it calls ``abandon``; ``work`` continues and its result is ignored."""
    outcome: Deferred[T] = Deferred(lambda _: abandon())

    def pass_on(result: Any) -> None:
        if not outcome.called:
            outcome.callback(result)

    Deferred.fromCoroutine(work).addBoth(pass_on)
    return outcome
