"""Admission: how many requests and queries each project and each client address may have in progress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Hashable
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from contextlib import AsyncExitStack
from contextlib import ExitStack
from contextlib import asynccontextmanager
from contextlib import contextmanager
from contextlib import nullcontext

from twisted.internet.interfaces import IReactorTime

from meter.api.auth.requester import Requester
from meter.api.fair_share import FairQueue
from meter.api.fair_share import Places
from meter.api.limits import RequestLimits

REQUESTS = "requests in progress"
STREAMS = "live streams in progress"
COSTLY = "costly requests (exports, statistics, complex queries, segments, completeness, statements, costs, submissions of samples, the v1 API) in progress"
"""What the text of an error calls requests, streams and costly requests."""


class Admission:
    """Admits requests to places that all clients share, and their queries to connections that all clients share.

    A request needs a place of its client address and one of its project. Requests of administrators need only one of
    all places, of which some are reserved for them. Requests are refused at once if there is no place, queries wait.
    """

    def __init__(self, limits: RequestLimits, clock: IReactorTime) -> None:
        reserved = limits.reserved_requests
        self._requests = Places(limits.max_requests, limits.max_requests_per_project, reserved, what=REQUESTS)
        reserved = min(reserved, limits.max_live // 5)
        self._live = Places(limits.max_live, limits.max_live_per_project, reserved, what=STREAMS)
        # Only the share of one owner is limited here: all owners together are limited by the places above.
        self._costly = Places(limits.max_requests, limits.max_costly_per_project, what=COSTLY)
        address = "one client address"
        self._addresses = Places(limits.max_requests, limits.max_requests_per_address, what=REQUESTS, owner=address)
        self._live_addresses = Places(limits.max_live, limits.max_live_per_address, what=STREAMS, owner=address)
        self._queries = limits.readers and QueryPlaces(limits, limits.readers, clock)

    @property
    def busy(self) -> bool:
        """Whether costly requests are in progress."""
        return self._costly.taken > 0

    @contextmanager
    def request(self, requester: Requester, address: str, *, live: bool, costly: bool) -> Iterator[None]:
        """Hold the places of a request in progress.

        :class:`TryLater` 429 if its project or its address has too many, 503 if all clients together have.
        """
        owner, privileged = owner_of(requester, address), requester.is_admin
        with ExitStack() as held:
            if not privileged:
                held.enter_context((self._live_addresses if live else self._addresses).take(address))
            held.enter_context((self._live if live else self._requests).take(owner, privileged=privileged))
            if costly:
                held.enter_context(self._costly.take(owner, privileged=privileged))
            yield

    def query(self, requester: Requester, address: str, *, costly: bool) -> AbstractAsyncContextManager[None]:
        """Hold a place of a query of ``requester``; ``Unavailable`` if there is none for too long."""
        if not self._queries:
            return nullcontext()
        return self._queries.place(owner_of(requester, address), privileged=requester.is_admin, costly=costly)


class QueryPlaces:
    """The connections of the store readers, shared by queries.

    Queries of costly requests need a place among their kind first. Where tenants can use several readers, that leaves one to
    their other queries; a single one (``readers = 2``, one of them reserved) is for all queries.
    """

    def __init__(self, limits: RequestLimits, readers: int, clock: IReactorTime) -> None:
        def queue(total: int, per_owner: int, reserved: int, what: str) -> FairQueue:
            return FairQueue(
                clock,
                total=total,
                per_owner=per_owner,
                reserved=reserved,
                max_wait_seconds=limits.max_wait_seconds,
                what=what,
            )

        reserved = min(limits.reserved_readers, readers - 1)
        self._all = queue(readers, limits.max_readers_per_project, reserved, "connections of the store readers")
        # One reader is for queries that take milliseconds, if there is one more.
        costly = max(1, readers - reserved - 1)
        share = max(1, limits.max_readers_per_project // 2)
        self._costly = queue(costly, share, 0, "connections of the store readers that costly requests can use")
        self._clock = clock

    @asynccontextmanager
    async def place(self, owner: Hashable, *, privileged: bool, costly: bool) -> AsyncIterator[None]:
        """Hold the places of a query; ``Unavailable`` if there is none for too long."""
        began = self._clock.seconds()
        async with AsyncExitStack() as held:
            if costly and not privileged:
                await held.enter_async_context(self._costly.place(owner))
            # Both waits together are limited: the clock can be set back, the time waited is not negative.
            waited = max(0.0, self._clock.seconds() - began)
            await held.enter_async_context(self._all.place(owner, privileged=privileged, waited_seconds=waited))
            yield


def owner_of(requester: Requester, address: str) -> Hashable:
    """Return whose share a request counts towards: the project's, or without a project the user's or the address's."""
    return (requester.is_admin, requester.project_id or requester.user_id or address)
