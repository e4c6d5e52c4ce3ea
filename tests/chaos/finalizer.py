"""A finalizer of all hours, even of the one in progress, again and again until it is killed: ``finalizer.py DSN [once]``.

Samples that are stored later make their hours final no longer. With ``once`` it ends when all hours that have samples are final.
"""

from __future__ import annotations

import sys
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from functools import partial
from typing import Any

from twisted.internet.task import react

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.store.maintenance.maintenance import BEGINNING
from meter.store.maintenance.rollups import HOUR
from meter.store.maintenance.rollups import finalize
from meter.store.maintenance.rollups import next_hour_to_finalize
from meter.store.migrations import Schema
from meter.store.migrations import migrations
from meter.store.postgres.connection import Connection
from meter.store.postgres.connection import Rejected
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.transaction import in_transaction


async def work(reactor: Any, dsn: str, once: str = "") -> None:
    parameters = connection_parameters(dsn, statement_timeout_seconds=30, application_name="finalizer")
    pause = partial(sleep, reactor, 0.3)
    while True:
        session = Connection(reactor, reactor, parameters, answer_seconds=40)
        try:
            await session.open()
            await Schema(migrations()).check(session)
            while True:
                await finalize_all(session)
                if once:
                    return
                await pause()
        except (Unavailable, Rejected, TimedOut):  # tried again
            await pause()
        finally:
            session.close()


async def finalize_all(session: Connection) -> None:
    """Finalize all hours that have samples, each in a transaction."""
    until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=2)
    since = BEGINNING
    while (hour := await next_hour_to_finalize(session, since, until)) is not None:
        await in_transaction(session, finalize, session, hour, HOUR)
        since = hour + timedelta(hours=1)


def main() -> None:
    react(work, sys.argv[1:])


if __name__ == "__main__":
    main()
