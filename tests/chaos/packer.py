"""A packer of everything, even of samples that have just been stored, again and again until it is killed: ``packer.py DSN``."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from twisted.internet.task import react

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.store.packing.packer import pack_everything
from meter.store.postgres.connection import Connection
from meter.store.postgres.dsn import connection_parameters

GROUP_SAMPLES = 500
"""Small, so that there are many transactions to be killed in."""


async def pack(reactor: Any, dsn: str) -> None:
    parameters = connection_parameters(dsn, statement_timeout_seconds=60, application_name="packer")
    pause = partial(sleep, reactor, 0.05)
    while True:
        session = Connection(reactor, reactor, parameters, answer_seconds=60)
        try:
            await session.open()
            while True:
                await pack_everything(session, pause, max_group_samples=GROUP_SAMPLES)
                await pause()
        except Unavailable:
            await pause()
        finally:
            session.close()


def main() -> None:
    react(pack, [sys.argv[1]])


if __name__ == "__main__":
    main()
