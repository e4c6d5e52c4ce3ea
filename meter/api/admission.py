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
from meter.api.errors import RETRY_AFTER_SECONDS
from meter.api.errors import ApiError
from meter.api.fair_share import AllTaken
from meter.api.fair_share import FairQueue
from meter.api.fair_share import Places
from meter.api.fair_share import ShareTaken
from meter.api.limits import RequestLimits

COSTLY = "exports, statistics, complex queries and submissions of samples"
"""What the text of an error calls costly requests."""


class Admission:
    """Admits requests to places that all clients share, and their queries to connections that all clients share.

    A request needs a place of its client address, and one of its project. Administrators need the latter only, of which
    some are reserved for them. Requests are refused at once if there is no place, queries wait.
    """

    def __init__(self, limits: RequestLimits, clock: IReactorTime) -> None:
        self._requests = Places(limits.max_requests, limits.max_requests_per_project, limits.reserved_requests)
        reserved_live = min(limits.reserved_requests, limits.max_live // 5)
        self._live = Places(limits.max_live, limits.max_live_per_project, reserved_live)
        # Only the share of one owner is limited here: all owners together are limited by the places above.
        self._costly = Places(limits.max_requests, limits.max_costly_per_project)
        self._addresses = Places(limits.max_requests, limits.max_requests_per_address)
        self._live_addresses = Places(limits.max_live, limits.max_live_per_address)
        self._queries = limits.readers and QueryPlaces(limits, limits.readers, clock)

    @property
    def busy(self) -> bool:
        """Whether costly requests are in progress."""
        return self._costly.taken > 0

    @contextmanager
    def request(self, requester: Requester, address: str, *, live: bool, costly: bool) -> Iterator[None]:
        """Hold the places of a request in progress.

        :class:`ApiError` 429 if its project or its address has too many, 503 if all clients together have.
        """
        owner, privileged = owner_of(requester, address), requester.is_admin
        noun = "streams" if live else "requests"
        with ExitStack() as held:
            if not privileged:
                _take(held, self._live_addresses if live else self._addresses, address, noun, "one client address")
            _take(held, self._live if live else self._requests, owner, noun, "one project", privileged=privileged)
            if costly:
                _take(held, self._costly, owner, COSTLY, "one project", privileged=privileged)
            yield

    def query(self, requester: Requester, address: str, *, costly: bool) -> AbstractAsyncContextManager[None]:
        """Hold a place of a query of ``requester``; ``Unavailable`` if there is none for too long."""
        if not self._queries:
            return nullcontext()
        return self._queries.place(owner_of(requester, address), privileged=requester.is_admin, costly=costly)


class QueryPlaces:
    """The connections of the store readers, shared by queries. Those of costly requests leave some to the others."""

    def __init__(self, limits: RequestLimits, readers: int, clock: IReactorTime) -> None:
        def queue(total: int, per_owner: int, reserved: int) -> FairQueue:
            return FairQueue(
                clock,
                total=total,
                per_owner=per_owner,
                reserved=reserved,
                max_wait_seconds=limits.max_wait_seconds,
                what="connections of the store readers",
            )

        reserved = min(limits.reserved_readers, readers - 1)
        self._all = queue(readers, limits.max_readers_per_project, reserved)
        # One reader is for queries that take milliseconds, if there is one more.
        costly = max(1, readers - reserved - 1)
        self._costly = queue(costly, max(1, limits.max_readers_per_project // 2), 0)

    @asynccontextmanager
    async def place(self, owner: Hashable, *, privileged: bool, costly: bool) -> AsyncIterator[None]:
        """Hold the places of a query; ``Unavailable`` if there is none for too long."""
        async with AsyncExitStack() as held:
            if costly and not privileged:
                await held.enter_async_context(self._costly.place(owner))
            await held.enter_async_context(self._all.place(owner, privileged=privileged))
            yield


def owner_of(requester: Requester, address: str) -> Hashable:
    """Return whose share a request counts towards: the project's, or without a project the user's or the address's."""
    return (requester.is_admin, requester.project_id or requester.user_id or address)


def _take(held: ExitStack, places: Places, owner: Hashable, noun: str, whose: str, *, privileged: bool = False) -> None:
    """Hold a place until ``held`` ends; :class:`ApiError` 429 if the share of ``owner`` is taken, 503 if all places are."""
    retry = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    try:
        held.enter_context(places.take(owner, privileged=privileged))
    except ShareTaken:
        text = f"{places.per_owner} {noun} of {whose} are in progress, which is the limit: try again later."
        raise ApiError(429, text, retry) from None
    except AllTaken:
        text = f"{places.total} {noun} are in progress, which is the limit: try again later."
        raise ApiError(503, text, retry) from None
