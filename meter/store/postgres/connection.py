"""One connection to PostgreSQL: opened without blocking, every wait limited, every error sorted by what to do about it.

With :mod:`meter.store.postgres.dsn` the only module that knows txpostgres and psycopg2.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import psycopg2
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from txpostgres import txpostgres

from meter.interfaces import Unavailable
from meter.store.postgres.dsn import described
from meter.store.postgres.dsn import with_addresses

Parameters = Sequence[Any] | Mapping[str, Any] | None


class Rejected(ValueError):
    """A statement that the database will never take, because of what is in it."""


class TimedOut(Exception):
    """A statement that the database stopped because it took longer than it may."""


class Conflict(Unavailable):
    """A transaction that lost against another one, by deadlock or serialization: doing it again is likely to work."""


class Locked(Unavailable):
    """A lock that was not granted in the time that the statement was willing to wait."""


class Lost(Unavailable):
    """A connection that is gone."""


CONFLICTS = frozenset({"40001", "40P01"})
LOCK_NOT_AVAILABLE = "55P03"
READ_ONLY = "25006"
"""A server that became a standby: another connection may find the new primary."""

REJECTIONS = frozenset({"22", "23", "54"})
"""Classes of SQLSTATE: data exceptions, integrity constraints, limits of the program (an index row too large)."""

SHUTDOWNS = ("08", "57P")

STOP = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE pid = %s AND usename = current_user AND application_name = current_setting('application_name')
"""


class Connection:
    """A connection that is closed for good once it failed. One statement at a time.

    ``answer_seconds`` is how long the server may take over a statement before the connection is held for dead: longer
    than its own statement time-out, which comes first from a server that is alive. ``notified`` is called whenever
    ``NOTIFY`` tells this connection something. ``lost`` fires when it is gone.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        parameters: Mapping[str, str],
        *,
        open_seconds: float = 10.0,
        answer_seconds: float = 40.0,
        notified: Callable[[], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._parameters = parameters
        self._open_seconds = open_seconds
        self._answer_seconds: float | None = answer_seconds
        self._link = _Link(reactor, self._gone)
        if notified is not None:
            self._link.addNotifyObserver(lambda _: notified())
        self._silent = False
        self.closed = False
        self.lost: Deferred[None] = Deferred()

    async def open(self) -> None:
        """Connect; :class:`Lost` says why that did not work."""
        parameters = await with_addresses(self._reactor, self._parameters)
        if self.closed:
            raise Lost(f"{described(self._parameters)}: closed while connecting")
        try:
            await self._limited(self._link.connect(**parameters), self._open_seconds)
        except Exception as error:
            self.close()
            raise Lost(f"{described(self._parameters)}: {self._words(error)}") from error

    async def rows(self, statement: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """Execute ``statement`` and return its rows."""
        cursor = await self._execute(statement, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    async def count(self, statement: str, parameters: Parameters = None) -> int:
        """Execute ``statement`` and return how many rows it touched."""
        count: int = (await self._execute(statement, parameters)).rowcount
        return count

    def disable_timeout(self) -> None:
        """Wait without limit for the answers of this connection from now on."""
        self._answer_seconds = None

    async def cancel_query(self) -> None:
        """Have the server stop what it executes here, which then fails as :class:`TimedOut`.

        The server is asked over a connection that is made for that: ``cancel()`` of psycopg2 2.9 blocks. Once it has
        answered, the signal has been sent; one that comes between two statements PostgreSQL ignores.
        """
        if self.closed:
            return
        context = self._link.pollable()
        parameters = {key: value for key, value in self._parameters.items() if key != "hostaddr"}
        # Where several hosts are named, the one that this connection has found.
        parameters |= {"host": context.info.host, "port": str(context.info.port)}
        other = Connection(
            self._reactor,
            self._clock,
            parameters,
            open_seconds=self._open_seconds,
            answer_seconds=self._open_seconds,
        )
        await other.open()
        try:
            await other.rows(STOP, [context.get_backend_pid()])
        finally:
            other.close()

    def close(self) -> None:
        """Close without a word to the server that could block; what is under way fails with :class:`Lost`."""
        if self._link.pollable() is not None:
            self._link.close()
        self._gone()

    async def _execute(self, statement: str, parameters: Parameters) -> Any:
        try:
            cursor = self._link.cursor()
            await self._limited(cursor.execute(statement, parameters), self._answer_seconds)
        except Exception as error:
            raise self._sorted(error) from error
        return cursor

    async def _limited(self, answer: Deferred[Any], seconds: float | None) -> None:
        """Wait for ``answer``; close when it does not come.

        Cancelling it would not do: txpostgres 1.7.0 raises ``_CancelInProgress`` out of ``cancel()`` and asks the
        server, over a new and blocking connection, to stop (test_a_frozen_server_is_unavailable_after_the_limit).
        :meth:`interrupt` asks without blocking.
        """
        alarm = None if seconds is None else self._clock.callLater(seconds, self._fall_silent)
        try:
            await answer
        finally:
            if alarm is not None and alarm.active():
                alarm.cancel()

    def _fall_silent(self) -> None:
        self._silent = True
        self.close()

    def _gone(self) -> None:
        if not self.closed:
            self.closed = True
            self.lost.callback(None)

    def _sorted(self, error: Exception) -> Exception:
        """Return ``error`` as one of this module's; psycopg2's classes mix up what is lost and what is refused."""
        if isinstance(error, CancelledError):
            # txpostgres 1.7.0 turns SQLSTATE 57014 into this, which elsewhere means that Meter itself gave up.
            return TimedOut("the statement took longer than it may")
        sqlstate = getattr(error, "pgcode", None) or ""
        words = f"{described(self._parameters)}: {self._words(error)}"
        if (
            self.closed
            or isinstance(error, psycopg2.InterfaceError | ConnectionClosed)
            or self._link.pollable().closed
            or sqlstate == READ_ONLY
            or sqlstate.startswith(SHUTDOWNS)
        ):
            self.close()
            return Lost(words)
        if sqlstate in CONFLICTS:
            return Conflict(words)
        if sqlstate == LOCK_NOT_AVAILABLE:
            return Locked(words)
        if sqlstate[:2] in REJECTIONS or isinstance(error, psycopg2.DataError | UnicodeError | ValueError):
            return Rejected(self._words(error))
        return Unavailable(words) if isinstance(error, psycopg2.Error) else error

    def _words(self, error: Exception) -> str:
        if self._silent:
            return "no answer in time"
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return lines[0]


class _Link(txpostgres.Connection):
    """txpostgres' connection that tells when it dies while nobody asks it anything.

    txpostgres 1.7.0 raises from ``doRead`` then, and the reactor logs an unhandled error for what is an event like
    any other (test_a_restarted_server_is_used_again_and_logs_no_errors).
    """

    def __init__(self, reactor: Any, gone: Callable[[], None]) -> None:
        super().__init__(reactor)
        self._on_gone = gone

    def doRead(self) -> None:
        try:
            super().doRead()
        except (psycopg2.Error, ValueError):  # the latter when the socket is gone already and has no descriptor
            self.close()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self.pollable().closed:
            self._on_gone()
