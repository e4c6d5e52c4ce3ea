"""Live stream: samples as server-sent events, as they are stored."""

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

from meter.api.auth.authorization import RECHECK_SECONDS
from meter.api.auth.visibility import VisibleStore
from meter.api.errors import ApiError
from meter.daemon.services import wall_seconds
from meter.daemon.services import within
from meter.daemon.shared_slices import OwnedSlices
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import Or
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StoredSample

EVENT_STREAM = "text/event-stream"

KEEP_ALIVE_SECONDS = 15.0
"""After this time without an event a comment is sent, so that proxies do not close the connection."""

PAGE_SAMPLES = 500

BATCH_SAMPLES = 50
"""Samples that are encoded, and written, before the time is checked."""

OVERLAP = timedelta(seconds=5)
"""Samples recorded within this time before the newest are queried again: concurrent transactions do not commit in the
order of their ``recorded_at``."""

MAX_SENT_IDS = 20_000
"""Maximum number of samples in the overlap that are remembered as sent; with more, some can be sent twice."""

OLDEST_FIRST = (Order("recorded_at"), Order("message_id"))


class CommitSignal:
    """Set by commits, awaited by one stream. Commits without a waiter are remembered as one."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._is_set = False
        self._waiter: Deferred[None] | None = None

    def set(self) -> None:
        """Wake the waiter, or the next one."""
        waiter, self._waiter = self._waiter, None
        self._is_set = waiter is None
        if waiter is not None and not waiter.called:
            waiter.callback(None)

    async def wait(self, seconds: float) -> bool:
        """Wait until the signal is set, and clear it; return ``False`` if it is not set within ``seconds``."""
        if not self._is_set:
            self._waiter = Deferred()
            try:
                await within(self._clock, seconds, self._waiter)
            except DeferredTimeout:
                return False
            finally:
                self._waiter = None
        self._is_set = False
        return True


async def live(
    store: VisibleStore,
    filter: SampleFilter,
    render: Callable[[StoredSample], msgspec.Struct],
    clock: IReactorTime,
    slices: OwnedSlices,
) -> AsyncIterator[bytes]:
    """Yield an event per sample recorded from :data:`OVERLAP` before now on; events are encoded in ``slices``.

    Nothing is buffered for a slow client: it falls behind, and its next page begins where the last one ended.
    """
    signal = CommitSignal(clock)
    unsubscribe = store.subscribe_to_commits(signal.set)
    sent_ids: FIFOCache[str, None] = FIFOCache(MAX_SENT_IDS)
    since = datetime.fromtimestamp(wall_seconds(clock), UTC) - OVERLAP
    try:
        yield b": connected\n\n"
        while True:
            async for page in _recorded_since(store, filter, since):
                new = [row for row in page if row.message_id not in sent_ids]
                for row in new:
                    sent_ids[row.message_id] = None
                async for batch in slices.batches(new, BATCH_SAMPLES):
                    yield b"".join(_event(row, render) for row in batch)
                since = max(since, page[-1].recorded_at - OVERLAP)
            if not await _wait_authorized(store, signal, clock):
                yield b": keep-alive\n\n"
    finally:
        unsubscribe()


async def _wait_authorized(store: VisibleStore, signal: CommitSignal, clock: IReactorTime) -> bool:
    """Wait until ``signal`` is set; return ``False`` after :data:`KEEP_ALIVE_SECONDS`.

    The authorization is checked meanwhile: an idle stream ends with it, too, and does not take the place of another one.
    """
    began = clock.seconds()
    while not await signal.wait(RECHECK_SECONDS):
        await store.check_authorization()
        if clock.seconds() - began >= KEEP_ALIVE_SECONDS:
            return False
    return True


async def _recorded_since(
    store: VisibleStore, filter: SampleFilter, since: datetime
) -> AsyncIterator[list[StoredSample]]:
    """Yield pages of the samples recorded at ``since`` or later, oldest first."""
    asked: tuple[Expression, ...] = () if filter.expression is None else (filter.expression,)
    conditions: tuple[Expression, ...] = (Comparison("recorded_at", ">=", since),)
    while True:
        recent = replace(filter, expression=And((*conditions, *asked)))
        page = list(await store.samples(recent, PAGE_SAMPLES, OLDEST_FIRST))
        if page:
            yield page
        if len(page) < PAGE_SAMPLES:
            return
        last = page[-1]
        # The first condition follows from the second, but only the first lets the store use its index on recorded_at.
        conditions = (
            Comparison("recorded_at", ">=", last.recorded_at),
            Or((Comparison("recorded_at", ">", last.recorded_at), Comparison("message_id", ">", last.message_id))),
        )


def last_event(error: ApiError) -> bytes:
    """Return the event that says why the stream ends."""
    return b"event: end\ndata: %b\n\n" % msgspec.json.encode({"status": error.status, "reason": error.text})


def _event(row: StoredSample, render: Callable[[StoredSample], msgspec.Struct]) -> bytes:
    return b"event: sample\ndata: %b\n\n" % msgspec.json.encode(render(row))
