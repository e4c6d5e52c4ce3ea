"""Who is asking, and what they may see: the one place that decides.

A route is given a :class:`VisibleStore` and never the store itself, so that none can forget to ask here.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

from twisted.web.iweb import IRequest
from zope.interface import Interface
from zope.interface import implementer

from meter.api.errors import Abort
from meter.api.errors import Fault
from meter.interfaces import IStore
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import In
from meter.query import Marker
from meter.query import Not
from meter.query import Or
from meter.query import Order
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks: an administrator sees everything, anyone else what belongs to their project."""

    is_admin: bool
    project_id: str | None = None
    user_id: str | None = None


class IAuth(Interface):
    """Finds out who is asking."""

    async def requester(request: IRequest) -> Requester:  # noqa: N805 - methods of an Interface have no self
        """Return the :class:`Requester`; raises :class:`~meter.api.errors.Unauthenticated`, or ``Unavailable``."""


@implementer(IAuth)
class Everyone:
    """Auth mode ``none``: whoever reaches the port sees everything."""

    async def requester(self, request: IRequest) -> Requester:
        """Return an administrator, whoever it is."""
        return Requester(is_admin=True)


def visible(filter: SampleFilter, requester: Requester) -> SampleFilter:
    """Return ``filter`` narrowed to what ``requester`` may see; :class:`Fault` when it asks for what they may not."""
    if requester.is_admin:
        return filter
    if not requester.project_id:
        raise Abort(403, "RBAC Authorization Failed: the token belongs to no project.")
    asked = filter.equals.get("project_id", requester.project_id)
    for project_id in (asked, *(_projects(filter.expression) if filter.expression else ())):
        if project_id != requester.project_id:
            raise Fault(401, f"Not Authorized to access project {project_id}")
    return replace(filter, equals={**filter.equals, "project_id": requester.project_id})


def _projects(expression: Expression) -> Iterator[object]:
    """Yield every project that ``expression`` names, however it is compared."""
    match expression:
        case Comparison("project_id", _, value):
            yield value
        case In("project_id", values):
            yield from values
        case And(parts) | Or(parts):
            for part in parts:
                yield from _projects(part)
        case Not(part):
            yield from _projects(part)


class VisibleStore:
    """The part of a store that one requester may see.

    A client that hangs up cancels what it asked for here, and the store stops looking for it.
    """

    def __init__(self, store: IStore, requester: Requester) -> None:
        self._store = store
        self._requester = requester

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return at most ``limit`` matching samples, newest first unless ``order`` says otherwise."""
        return await self._store.samples(visible(filter, self._requester), limit, order, after)

    async def sample(self, message_id: str) -> StoredSample | None:
        """Return the sample with this id, ``None`` when there is none to be seen."""
        return await self._store.sample(message_id, visible(SampleFilter(), self._requester))

    async def meters(self, filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """Return at most ``limit`` meters, by name and resource."""
        return await self._store.meters(visible(filter, self._requester), limit, unique)

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return at most ``limit`` resources, by id."""
        return await self._store.resources(visible(filter, self._requester), limit)

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """Return the rows of statistics, oldest first."""
        seen = replace(query, filter=visible(query.filter, self._requester))
        return await self._store.statistics(seen)

    async def message(self, message_id: str) -> Mapping[str, Any] | None:
        """Return the metering message with this id as it was signed, ``None`` when there is none to be seen."""
        return await self._store.message(message_id, visible(SampleFilter(), self._requester))

    def check(self, filter: SampleFilter) -> None:
        """Raise the :class:`Fault` that asking for ``filter`` would raise."""
        visible(filter, self._requester)

    def follow(self, heard: Callable[[], object]) -> Callable[[], None]:
        """Call ``heard`` after commits, of whomever: it tells nothing but that there may be something to ask for."""
        return self._store.follow(heard)
