"""Work on a store that is done again and again in a process of its own, until it is killed."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.task import react

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.pool import Session

Pause = Callable[[], Awaitable[None]]
"""Waits for a twentieth of a second."""


def run_until_killed(work: Callable[[Session, Pause], Awaitable[object]], name: str) -> None:
    """Do ``work`` over a connection to the DSN in ``sys.argv``, by the application ``name``; connect again when it is lost."""

    async def run(reactor: Any, dsn: str) -> None:
        parameters = connection_parameters(dsn, statement_timeout_seconds=60, application_name=name)
        pause: Pause = partial(sleep, reactor, 0.05)
        while True:
            session = Connection(reactor, reactor, parameters, answer_seconds=60)
            try:
                await session.open()
                while True:
                    await work(session, pause)
            except Unavailable:
                await pause()
            finally:
                session.close()

    react(run, [sys.argv[1]])
