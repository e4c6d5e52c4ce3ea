"""Live: the samples of a question as they are stored, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta

import msgspec
from cachetools import FIFOCache
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from meter.api.auth.visibility import VisibleStore
from meter.daemon.services import wall_seconds
from meter.daemon.services import within
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import Or
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredSample

EVENT_STREAM = "text/event-stream"

SILENCE_SECONDS = 15.0
"""After so long without an event a comment is sent, which keeps proxies from closing the connection."""

PAGE_SAMPLES = 500

OVERLAP = timedelta(seconds=5)
"""Transactions that overlap commit in another order than they record in: what is so much older is looked at again."""

MOST_REMEMBERED = 20_000
"""Samples of the overlap that a client is known to have; with more, some may come twice."""

OLDEST_FIRST = (Order("recorded_at"), Order("message_id"))


class Bell:
    """Rings when something was stored; a ring that nobody waits for is remembered, once."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._rung = False
        self._waiting: Deferred[None] | None = None

    def ring(self) -> None:
        """Wake whoever waits."""
        waiting, self._waiting = self._waiting, None
        self._rung = waiting is None
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    async def wait(self, seconds: float) -> bool:
        """Return whether it rang within ``seconds``."""
        if not self._rung:
            self._waiting = Deferred()
            try:
                await within(self._clock, seconds, self._waiting)
            except DeferredTimeout:
                return False
            finally:
                self._waiting = None
        self._rung = False
        return True


async def live(
    store: VisibleStore,
    filter: SampleFilter,
    render: Callable[[StoredSample], msgspec.Struct],
    clock: IReactorTime,
) -> AsyncIterator[bytes]:
    """Yield an event per sample that is stored from now on, and in the few seconds before.

    Nothing is kept for a client that is slow: it is behind, and reads on from where it was.
    """
    bell = Bell(clock)
    leave = store.follow(bell.ring)
    known: FIFOCache[str, None] = FIFOCache(MOST_REMEMBERED)
    since = datetime.fromtimestamp(wall_seconds(clock), UTC) - OVERLAP
    try:
        yield b": following\n\n"
        while True:
            async for page in _recorded_since(store, filter, since):
                new = [row for row in page if row.message_id not in known]
                for row in new:
                    known[row.message_id] = None
                if new:
                    yield b"".join(_event(row, render) for row in new)
                since = max(since, page[-1].recorded_at - OVERLAP)
            if not await bell.wait(SILENCE_SECONDS):
                yield b": nothing new\n\n"
    finally:
        leave()


async def _recorded_since(
    store: VisibleStore, filter: SampleFilter, since: datetime
) -> AsyncIterator[list[StoredSample]]:
    """Yield pages of what was recorded at ``since`` or later, oldest first."""
    beginning: Expression = Comparison("recorded_at", ">=", since)
    while True:
        recent = replace(filter, expression=beginning)
        page = list(await store.samples(recent, PAGE_SAMPLES, OLDEST_FIRST))
        if page:
            yield page
        if len(page) < PAGE_SAMPLES:
            return
        last = page[-1]
        # The first condition follows from the second, but only it tells the store which samples to leave alone.
        beginning = And(
            (
                Comparison("recorded_at", ">=", last.recorded_at),
                Or(
                    (
                        Comparison("recorded_at", ">", last.recorded_at),
                        Comparison("message_id", ">", last.message_id),
                    )
                ),
            )
        )


def _event(row: StoredSample, render: Callable[[StoredSample], msgspec.Struct]) -> bytes:
    return b"event: sample\ndata: %b\n\n" % msgspec.json.encode(render(row))
