"""Stops a process where it is in no transaction, so that no other one waits for its locks."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.chaos.site import until

SECONDS = 240.0
"""How long a moment is looked for in which a process is in no transaction."""

BUSY = """
SELECT client_port, state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '0.3 s'
FROM pg_stat_activity
WHERE datname = current_database() AND state <> 'idle' AND client_port > 0 AND application_name NOT LIKE '%rating'
"""
"""Sessions in a transaction, by the port of the client, and whether it is the client's turn; that of rating lasts as long as the rating."""


def freeze_between_transactions(
    process: int, send: Callable[[int], object], rows: Callable[[str], list[tuple[int, bool]]]
) -> None:
    """Stop a process by ``send(SIGSTOP)``; ``rows`` returns those of a statement in its database."""

    def frozen() -> bool:
        send(signal.SIGSTOP)
        ports = local_ports(process)
        for _ in range(20):  # until the server has done what it was asked before
            time.sleep(0.3)
            turns = [is_the_clients for port, is_the_clients in rows(BUSY) if port in ports]
            if not turns:
                return True
            if any(turns):
                break
        send(signal.SIGCONT)
        # A busy machine gives it little time at once, and what it has begun must end.
        time.sleep(random.uniform(0.1, 2.0))
        return False

    until(frozen, "a moment when a collector is in no transaction", SECONDS)


def local_ports(process: int) -> set[int]:
    """Return the ports of the TCP connections of a process."""
    inodes = set()
    for each in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed since
            inodes.add(str(each.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes}
