"""Waiting in a test for what a server or the code under test does in its own time, while the reactor turns."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from meter.daemon.services import sleep
from meter.interfaces import IBus
from meter.interfaces import Publication
from meter.interfaces import Unavailable


async def until(condition: Callable[[], object], seconds: float = 90.0) -> None:
    """Return once ``condition()`` is true; fail after ``seconds``."""
    from twisted.internet import reactor

    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"still not true after {seconds:g} s")
        await sleep(reactor, 0.01)


async def published(bus: IBus, publication: Publication) -> None:
    """Publish as often as it takes until the bus has a place for it; the test's time limit ends it."""
    from twisted.internet import reactor

    while True:
        try:
            return await bus.publish(publication)
        except Unavailable:
            await sleep(reactor, 0.05)
