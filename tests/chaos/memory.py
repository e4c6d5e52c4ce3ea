"""Whether an agent's memory stays flat while a day of samples waits on its disk, and while they go out."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

from tests.chaos.broker import channel
from tests.chaos.proxy import Proxy
from tests.chaos.site import until
from tests.system.daemons import Daemon
from tests.system.daemons import House

CYCLES = 288
"""A day of polling every five minutes."""

MESSAGES = 10
"""Of a hundred samples each, in every cycle."""

BODY = b"x" * 60_000

MAX_MEGABYTES = 50
"""By which an agent may grow: a window of a hundred messages is in memory, as rows, as messages and as frames."""


def measure(rabbitmq: Any, directory: Path) -> tuple[float, float, float]:
    """Return the memory in MB of an agent with an empty spool, with a day in it, and at most while the day goes out."""
    directory.mkdir()
    line = Proxy(rabbitmq.port)
    url = rabbitmq.vhost()
    house = House(directory, bus=url.replace(f":{rabbitmq.port}/", f":{line.port}/"))
    agent = house.daemon("meter-central", '[plugins]\ndisable = ["*"]\n')
    try:
        agent.start().until_ready()
        time.sleep(1)
        empty = _megabytes(agent, "VmRSS")
        agent.stop()
        _fill(agent.directory / "state/meter-central.spool")
        line.refuse()
        agent.start()
        until(lambda: agent.metric("meter_spool_messages") == CYCLES * MESSAGES, "the agent to know its spool")
        time.sleep(5)
        waiting = _megabytes(agent, "VmRSS")
        with channel(url) as asking:
            asking.exchange_declare("metering", "topic", durable=True, auto_delete=False)
            asking.queue_declare("all", durable=True, auto_delete=False, arguments={"x-max-length": 10})
            asking.queue_bind("all", "metering", "#")
        line.accept()
        until(
            lambda: agent.metric("meter_published_samples_total") == CYCLES * MESSAGES * 100, "the spool to go out", 120
        )
        most = _megabytes(agent, "VmHWM")
    finally:
        house.close()
        line.close()
    return empty, waiting, most


def _fill(path: Path) -> None:
    """Put a day of messages into a spool that its agent has made."""
    database = sqlite3.connect(path)
    row = (time.time(), 100, "metering", "metering.chaos", json.dumps({"meter-samples": 100}), BODY)
    with database:
        database.executemany(
            "INSERT INTO outbox (at, samples, exchange, routing_key, headers, body) VALUES (?, ?, ?, ?, ?, ?)",
            [row] * (CYCLES * MESSAGES),
        )
    database.close()


def _megabytes(daemon: Daemon, what: str) -> float:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    [kilobytes] = re.findall(rf"^{what}:\s+(\d+) kB$", status, re.M)
    return int(kilobytes) / 1000
