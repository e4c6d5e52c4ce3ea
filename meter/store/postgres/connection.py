"""One connection to PostgreSQL: opened without blocking, every wait limited, every error classified by what to do about it.

This module and :mod:`meter.store.postgres.dsn` are the only ones that use txpostgres and psycopg2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg2
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from txpostgres import txpostgres

from meter.archive_unavailable import ArchiveUnavailable
from meter.archive_unavailable import SamplesLost
from meter.daemon.shared_slices import SharedSlices
from meter.interfaces import Unavailable
from meter.store.postgres.dsn import described
from meter.store.postgres.dsn import one_by_one
from meter.store.postgres.dsn import place_of
from meter.store.postgres.dsn import with_addresses
from meter.store.postgres.sql import Parameters
from meter.store.postgres.sql import chosen


class Rejected(ValueError):
    """The database will never accept a statement, because of the values in it."""


class Duplicate(Rejected):
    """A row was inserted whose unique key is in the table already."""


class Unsupported(Exception):
    """The database cannot execute a statement, whatever its values: trying again does not help."""


class TimedOut(Exception):
    """The database cancelled a statement that exceeded the statement timeout."""


class Conflict(Unavailable):
    """A transaction failed because of another one, by deadlock or serialization. Running it again is likely to work."""


class Locked(Unavailable):
    """A lock was not granted within the lock timeout."""


class Lost(Unavailable):
    """The connection was lost."""


CONFLICTS = frozenset({"40001", "40P01"})
UNIQUE_VIOLATION = "23505"
LOCK_NOT_AVAILABLE = "55P03"
NOT_SUPPORTED = "0A000"
INSUFFICIENT_PRIVILEGE = "42501"
READ_ONLY = "25006"
"""SQLSTATE of a server that became a standby: another connection may find the new primary."""

REJECTIONS = frozenset({"22", "23", "54"})
"""SQLSTATE classes: data exceptions, integrity constraint violations, program limits (such as an index row too large)."""

SHUTDOWNS = ("08", "57P")

_SEVERITY = re.compile(r"^\w+: {2}")
"""``FATAL:  ``, in the language of the server."""

ARCHIVE_READ = re.compile(r"/\* weeks (\S+) to (\S+) of archive (\w+) \*/")
"""Names an archive server and its weeks in the statement of the function ``archived_arrays()``, which the context of its errors quotes."""

ARCHIVE_CONNECTED = re.compile(r"meter_archive_(\w+)|\barchive_([a-z0-9]+)\b")
LOST = "MT001"
"""SQLSTATE of the function ``raise_if_lost()``, whose detail has the week, the server, the day and the entry of the audit log."""
REMOTE = re.compile(r"remote SQL command: ")
"""What the context of errors has that come from an archive server."""

FETCHED_ROWS = 100
"""Rows that are converted before the time is checked: a fraction of a millisecond, unless they have long texts."""

INTERRUPT_SECONDS = 2.0
"""How long an interrupted client tries to connect, and waits for the answer, to cancel its statement."""

# Without a time limit, the server looks every second whether the client is still there. Not every operating system can tell it, and
# PostgreSQL refuses the setting there.
UNLIMITED = """
SELECT set_config('statement_timeout', '0', %(local)s), (
    SELECT set_config('client_connection_check_interval', '1s', %(local)s) WHERE version() LIKE '%%linux%%'
)
"""

CANCEL = """
SELECT pg_cancel_backend(pid) FROM pg_stat_activity
WHERE pid = %s AND usename = current_user AND application_name = current_setting('application_name')
"""


class Connection:
    """A connection, which executes one statement at a time and is closed by the first failure of the connection itself.

    If the server does not answer a statement within ``answer_seconds``, the connection is considered dead and is closed. That
    must be longer than the statement timeout, which a server that is alive enforces. ``notified`` is called for each
    ``NOTIFY`` that this connection receives. ``lost`` fires when the connection is closed. Many rows are converted in
    ``slices``, if there are any, so that the reactor runs in between. ``spread``: the samples of the store are on several servers,
    and statements are executed in the variant for such a store.
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
        slices: SharedSlices | None = None,
    ) -> None:
        self._reactor = reactor
        self._slices = slices
        self._clock = clock
        self._parameters = parameters
        self._hosts = len(one_by_one(parameters))
        self._open_seconds = open_seconds
        self._answer_seconds: float | None = answer_seconds
        self._notified = notified
        self._link = self._make_link()
        self._opening = True
        self._timed_out = False
        self.spread = False
        self.closed = False
        self.lost: Deferred[None] = Deferred()

    async def open(self) -> None:
        """Connect to the first host of those in the parameters that may be used; :class:`Lost` if there is none.

        libpq does not try the hosts itself: txpostgres 1.7.0 watches the socket of the host before, and the connection hangs or fails
        (test_a_dsn_of_several_hosts_finds_the_primary_whichever_it_is).
        """
        failures: list[str] = []
        for each in one_by_one(self._parameters):
            targets = one_by_one(await with_addresses(self._reactor, each))
            for target in targets:
                if self.closed:
                    raise Lost(f"{described(self._parameters)}: closed while connecting")
                try:
                    await self._open_at(target, self._open_seconds / self._hosts)
                except Exception as error:
                    place = f"{place_of(target)}: " if self._hosts > 1 else ""
                    failures.append(f"{place}{self._message(error)}")
                else:
                    self._opening = False
                    return
        self.close()
        raise Lost(f"{described(self._parameters)}: {'; '.join(dict.fromkeys(failures))}")

    async def _open_at(self, parameters: Mapping[str, str], seconds: float) -> None:
        """Connect to one host; raises whatever the reason is."""
        link = self._link = self._make_link()
        self._timed_out = False

        def expire() -> None:
            self._timed_out = True
            link.shut()

        timeout = self._clock.callLater(seconds, expire)
        try:
            await link.connect(**parameters)
        except BaseException:
            link.shut()
            raise
        finally:
            if timeout.active():
                timeout.cancel()

    def _make_link(self) -> _Link:
        link = _Link(self._reactor, self._on_link_lost)
        if self._notified is not None:
            notified = self._notified
            link.addNotifyObserver(lambda _: notified())
        return link

    def _on_link_lost(self) -> None:
        if not self._opening:
            self._on_lost()

    async def rows(self, statement: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """Execute ``statement`` and return its rows."""
        cursor = await self._execute(statement, parameters)
        if self._slices is None:
            every: list[tuple[Any, ...]] = cursor.fetchall()
            return every
        slices = self._slices.of(cursor)
        rows: list[tuple[Any, ...]] = cursor.fetchmany(FETCHED_ROWS)
        last = len(rows)
        while last == FETCHED_ROWS:
            if slices.over:
                await slices.pause()
            some = cursor.fetchmany(FETCHED_ROWS)
            last = len(some)
            rows += some
        return rows

    async def count(self, statement: str, parameters: Parameters = None) -> int:
        """Execute ``statement`` and return the number of affected rows."""
        count: int = (await self._execute(statement, parameters)).rowcount
        return count

    async def remove_time_limits(self, *, of_transaction: bool = False) -> None:
        """Remove the time limits of all further statements, on both sides; on the server's ``of_transaction`` only.

        PostgreSQL goes on with a statement whose client has ended. With this it ends it within seconds, even if the client was killed.
        """
        self._answer_seconds = None
        await self.rows(UNLIMITED, {"local": of_transaction})

    async def cancel_query(self) -> None:
        """Cancel the current statement on the server; it fails as :class:`TimedOut`.

        This opens another connection, because ``cancel()`` of psycopg2 2.9 blocks. On return the server has sent the signal.
        PostgreSQL ignores one that arrives between two statements.
        """
        if not self.closed:
            await self._cancel(*self._backend(), seconds=self._open_seconds)

    async def interrupt(self) -> None:
        """Close, and cancel the statement that the server would go on with; it fails with :class:`Lost`.

        On return the server has sent the signal, or cannot be reached.
        """
        if self.closed or self._link.pollable() is None or self._link.pollable().closed:
            self.close()
            return
        backend = self._backend()
        self.close()
        with suppress(Unavailable):
            await self._cancel(*backend, seconds=INTERRUPT_SECONDS)

    def _backend(self) -> tuple[str, int, int]:
        """Return host, port and process id of the server's end; of several hosts in the DSN, the one that was reached."""
        context = self._link.pollable()
        return context.info.host, context.info.port, context.get_backend_pid()

    async def _cancel(self, host: str, port: int, pid: int, *, seconds: float) -> None:
        parameters = {key: value for key, value in self._parameters.items() if key != "hostaddr"}
        parameters |= {"host": host, "port": str(port)}
        other = Connection(
            self._reactor,
            self._clock,
            parameters,
            open_seconds=seconds,
            answer_seconds=seconds,
        )
        await other.open()
        try:
            await other.rows(CANCEL, [pid])
        finally:
            other.close()

    def close(self) -> None:
        """Close without blocking; a running statement fails with :class:`Lost`."""
        self._link.shut()
        self._on_lost()

    async def _execute(self, statement: str, parameters: Parameters) -> Any:
        try:
            statement, parameters = chosen(statement, parameters, spread=self.spread)
            cursor = self._link.cursor()
            await self._limited(cursor.execute(statement, parameters), self._answer_seconds)
        except Exception as error:
            raise self._classify(error) from error
        return cursor

    async def _limited(self, answer: Deferred[Any], seconds: float | None) -> None:
        """Wait for ``answer``, and close the connection after ``seconds``.

        The Deferred cannot be cancelled instead: txpostgres 1.7.0 then raises ``_CancelInProgress`` out of ``cancel()``, and
        sends the request over a new connection, blocking (test_a_frozen_server_is_unavailable_after_the_limit).
        :meth:`cancel_query` does not block.
        """
        timeout = None if seconds is None else self._clock.callLater(seconds, self._on_timeout)
        try:
            await answer
        finally:
            if timeout is not None and timeout.active():
                timeout.cancel()

    def _on_timeout(self) -> None:
        self._timed_out = True
        self.close()

    def _on_lost(self) -> None:
        if not self.closed:
            self.closed = True
            self.lost.callback(None)

    def _classify(self, error: Exception) -> Exception:
        """Return ``error`` as one of this module's: psycopg2 has one class for lost connections and rejected statements."""
        if isinstance(error, CancelledError):
            # txpostgres 1.7.0 turns SQLSTATE 57014 into this, which elsewhere means that Meter itself cancelled.
            return TimedOut("the statement exceeded the statement timeout")
        if away := _server_away(error, spread=self.spread):
            return away
        sqlstate = getattr(error, "pgcode", None) or ""
        text = f"{described(self._parameters)}: {self._message(error)}"
        if (
            self.closed
            or isinstance(error, psycopg2.InterfaceError | ConnectionClosed)
            or self._link.pollable().closed
            or sqlstate == READ_ONLY
            or sqlstate.startswith(SHUTDOWNS)
        ):
            self.close()
            return Lost(text)
        if sqlstate in CONFLICTS:
            return Conflict(text)
        if sqlstate == LOCK_NOT_AVAILABLE:
            return Locked(text)
        if sqlstate == INSUFFICIENT_PRIVILEGE:
            role = self._parameters.get("user", "of this process's user")
            advice = "grant it, or name another role in dsn of [store]; docs/install.rst has the rights of each role"
            return Unavailable(f"{text} (role {role}): {advice}")
        if sqlstate == NOT_SUPPORTED:
            return Unsupported(text)
        if sqlstate == UNIQUE_VIOLATION:
            return Duplicate(self._message(error))
        if sqlstate[:2] in REJECTIONS or isinstance(error, psycopg2.DataError | UnicodeError | ValueError):
            return Rejected(self._message(error))
        return Unavailable(text) if isinstance(error, psycopg2.Error) else error

    def _message(self, error: Exception) -> str:
        if self._timed_out:
            return "the server did not answer in time"
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return _SEVERITY.sub("", lines[0])


def _server_away(error: Exception, *, spread: bool) -> Unavailable | None:
    """Return the error for one that an archive server, a worker of a ``spread`` store, or the way to it has caused; this connection goes on then."""
    diagnostics = getattr(error, "diag", None)
    if diagnostics is None or diagnostics.severity_nonlocalized != "ERROR":
        return None
    reason = diagnostics.message_primary or ""
    if error.pgcode == LOST:  # type: ignore[attr-defined]  # psycopg2's errors have it
        week, server, since, entry = (diagnostics.message_detail or "").split()
        return SamplesLost(server, week, since, entry)
    context = f"{diagnostics.context or ''}\n{diagnostics.internal_query or ''}"
    if found := ARCHIVE_READ.search(context):
        first, last, server = found.groups()
        return ArchiveUnavailable(server, first, last, reason)
    remote = REMOTE.search(context)
    if remote or (error.pgcode or "").startswith(SHUTDOWNS):  # type: ignore[attr-defined]  # psycopg2's errors have it
        named = ARCHIVE_CONNECTED.search(f"{reason}\n{context}")
        if spread and not remote and not named:
            return Unavailable(f"a worker of the cluster does not answer: {reason}")
        return ArchiveUnavailable(next(filter(None, named.groups()), "") if named else "unknown", None, None, reason)
    return None


class _Link(txpostgres.Connection):
    """txpostgres' connection, which also reports that it was lost between two statements.

    txpostgres 1.7.0 raises from ``doRead`` then, and the reactor logs an unhandled error for an ordinary event
    (test_a_restarted_server_is_used_again_and_logs_no_errors).
    """

    def __init__(self, reactor: Any, on_lost: Callable[[], None]) -> None:
        super().__init__(reactor)
        self._on_lost = on_lost

    def shut(self) -> None:
        """Close, if it was ever begun to connect."""
        if self.pollable() is not None:
            self.close()

    def doRead(self) -> None:
        self.reactor.removeWriter(self)  # for the reason in doWrite(); where there is more to write, it is added again
        try:
            super().doRead()
        except (psycopg2.Error, ValueError):  # the latter if the socket is closed already and has no descriptor
            self.close()

    def doWrite(self) -> None:
        # libpq closes the socket when connecting fails, or goes on with that of the next address. txpostgres 1.7.0 is still a
        # reader of the closed one then, and the reactor's tables are wrong for whatever gets its number next
        # (test_renewed_client_certificate_is_used_by_the_next_connection).
        self.reactor.removeReader(self)
        super().doWrite()
        if not self.pollable().closed and self.pollable().fileno() >= 0:
            self.reactor.addReader(self)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self.pollable().closed:
            self._on_lost()
