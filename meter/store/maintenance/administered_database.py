"""The connection to the database that the commands of an administrator use."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime

from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.dsn import described


class AdministeredDatabase:
    """One connection to the database at ``dsn``. Open it before any other method, and close it.

    ``application_name`` is the name of the command in PostgreSQL's list of connections.
    """

    def __init__(
        self,
        reactor: Any,
        dsn: str,
        *,
        clock: IReactorTime,
        application_name: str,
        statement_timeout_seconds: float = 30.0,
    ) -> None:
        parameters = connection_parameters(
            dsn, statement_timeout_seconds=statement_timeout_seconds, application_name=application_name
        )
        self._where = described(parameters)
        self._schema = Schema(migrations())
        self._connection = Connection(reactor, clock, parameters, answer_seconds=statement_timeout_seconds + 10)

    async def open(self) -> None:
        """Connect; :class:`meter.interfaces.Unavailable` if that fails."""
        await self._connection.open()

    async def check(self) -> None:
        """Raise :class:`meter.interfaces.Unavailable` unless the database has the schema of this Meter."""
        await self._schema.check(self._connection)

    async def interrupt(self) -> None:
        """Disconnect, and keep the server from going on with the statement in progress."""
        await self._connection.interrupt()

    async def number(self, statement: str) -> int:
        """Return the number that ``statement`` selects."""
        [[found]] = await self._connection.rows(statement)
        return int(found)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()
