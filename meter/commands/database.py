"""The configured database, for commands: its DSN, an embedded server if no daemon runs it, and a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Callable
from contextlib import asynccontextmanager
from contextlib import suppress
from typing import Any
from typing import Protocol
from typing import TypeVar

from twisted.internet.defer import Deferred

from meter.commands.command import CommandError
from meter.daemon.services import sleep
from meter.daemon.supervised import wait_ready
from meter.interfaces import Unavailable
from meter.settings import Config
from meter.store import Administration
from meter.store import EmbeddedPostgres
from meter.store import PostgresStore
from meter.store import embedded_directory

START_SECONDS = 60.0
"""Time limit for the connection to an embedded database, which may have to be started first."""


class Connectable(Protocol):
    """What is opened before use and closed afterwards."""

    async def open(self) -> None:
        """Connect; :class:`Unavailable` if that fails."""

    async def interrupt(self) -> None:
        """Disconnect, and keep the server from going on with what it does."""

    def close(self) -> None:
        """Disconnect."""


C = TypeVar("C", bound=Connectable)


@asynccontextmanager
async def database_server(reactor: Any, config: Config) -> AsyncIterator[tuple[str, float]]:
    """Provide the DSN of the configured database, and for how many seconds to retry to connect to it.

    An embedded server is started unless a daemon runs it.
    """
    dsn = config.store.dsn.get_secret_value()
    directory = embedded_directory(dsn)
    if directory is None:
        yield dsn, 0.0
        return
    if not (directory / "data").exists():
        raise Unavailable(f"there is no database in {directory}")
    embedded = EmbeddedPostgres(reactor, directory, clock=reactor)
    embedded.startService()
    try:
        yield embedded.dsn, START_SECONDS
    finally:
        await embedded.stopService()


@asynccontextmanager
async def connected(reactor: Any, make: Callable[[], C], retry_seconds: float) -> AsyncIterator[C]:
    """Provide what ``make`` returns, open. Failures are retried for ``retry_seconds``, then raise :class:`Unavailable`."""
    deadline = reactor.seconds() + retry_seconds
    while True:
        try:
            opened = make()
        except ValueError as error:  # a DSN with parameters that libpq does not know
            raise CommandError(str(error)) from error
        try:
            await opened.open()
        except Unavailable:
            opened.close()
            if reactor.seconds() >= deadline:
                raise
            await sleep(reactor, 0.2)
        else:
            break
    # Ctrl-C: what waits for it fails, and the server does not go on with it.
    closing = reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(opened.interrupt()))
    try:
        yield opened
    finally:
        with suppress(ValueError):  # the reactor is stopping
            reactor.removeSystemEventTrigger(closing)
        opened.close()


@asynccontextmanager
async def ready_store(
    reactor: Any, config: Config, make: Callable[[str], PostgresStore]
) -> AsyncIterator[PostgresStore]:
    """Provide what ``make`` returns for the DSN of the configured database, ready for use.

    :class:`Unavailable` at once if the database is away, or does not have the schema of this Meter: the store itself would try again
    and again, as in a daemon.
    """
    async with database_server(reactor, config) as (dsn, retry_seconds):
        async with connected(reactor, lambda: Administration(reactor, dsn, clock=reactor), retry_seconds) as database:
            await database.check()
        store = make(dsn)
        store.startService()
        try:
            await wait_ready(store, reactor)
            yield store
        finally:
            await store.stopService()
