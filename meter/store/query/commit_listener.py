"""CommitListener: a connection that LISTENs for commits of samples by any process."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from meter.store.postgres.channel_listener import ChannelListener
from meter.store.postgres.pool import Session

CHANNEL = "meter_samples"

NOTIFY_SQL = f"pg_notify('{CHANNEL}', '')"
"""Called in a transaction that stores samples. PostgreSQL sends one notification at its commit, however often it is called."""


class CommitListener(ChannelListener):
    """Calls the subscribers after commits of samples."""

    def __init__(
        self, connect: Callable[[Callable[[], object]], Session], clock: IReactorTime, *, size: int = 1
    ) -> None:
        super().__init__(connect, clock, channel=CHANNEL, name="store commit listener", size=size)
