"""Visibility: restricts every query to what its requester may see, while the requester is authorized.

Handlers get a :class:`VisibleStore`, never the store itself, so that no handler can omit the checks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from meter.api.auth.requester import Requester
from meter.api.auth.restriction import restrict
from meter.api.auth.visible_budgets import VisibleBudgets
from meter.api.auth.visible_statements import VisibleStatement
from meter.api.auth.visible_statements import VisibleStatements
from meter.api.errors import HttpError
from meter.completeness.activity import Arrivals
from meter.completeness.activity import IActivity
from meter.completeness.activity import ResourceCounts
from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.life_store import ILifeStore
from meter.completeness.lives.resource_lives import Pausing
from meter.completeness.lives.resource_lives import ResourceLife
from meter.completeness.lives.resource_lives import lives_page
from meter.completeness_query import AuditedPeriod
from meter.completeness_query import Closable
from meter.completeness_query import CompletenessQuery
from meter.completeness_query import CompletenessRow
from meter.completeness_query import Gap
from meter.completeness_query import ICompletenessLedger
from meter.completeness_query import ReportingAgent
from meter.completeness_query import Unmetered
from meter.completeness_store import ICompletenessStore
from meter.completeness_store import StoredHeartbeat
from meter.identity_names import IdentityFilter
from meter.identity_names import IdentityHistory
from meter.identity_names import IdentityKey
from meter.identity_names import IIdentityNames
from meter.identity_names import NamePeriod
from meter.interfaces import IStore
from meter.query import AuditEntry
from meter.query import AuditFilter
from meter.query import IdField
from meter.query import Marker
from meter.query import Order
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.rating.book.book_text import directory_from_text
from meter.rating.book.price_book import PriceDirectory
from meter.rating.costs.cost_query import CostQuery
from meter.rating.costs.cost_query import CostSum
from meter.rating.costs.cost_query import cost_points
from meter.rating.costs.cost_query import cost_sums
from meter.rating.costs.rated_days import RatedDay
from meter.rating.costs.rated_days import RatedDays
from meter.rating.costs.unpriced_usage import RecentUnpricedUsage
from meter.rating.costs.unpriced_usage import UnpricedGroup
from meter.rating.rating_store import IRated
from meter.rating.statements.book_comparison import BookComparison
from meter.rating.statements.book_comparison import ProjectDifference
from meter.rating.statements.preview import Previews
from meter.rating.statements.recent_previews import RecentPreviews
from meter.sample_page import NOTHING_KNOWN
from meter.sample_page import ISamplePages
from meter.sample_page import KnownDimensions
from meter.sample_page import SamplePage
from meter.stored_batch import StoredProof

T = TypeVar("T")


async def _always() -> None:
    """Authorize."""


class VisibleStore:
    """A view of a store that is restricted to one requester, whose queries each take a ``place`` among those of others; so do its writes.

    ``authorize`` is awaited before each query and before its result is returned; what it raises is the result, so that
    a long query, or the next of many, returns nothing to a requester whose token has become invalid
    (:meth:`~meter.api.auth.authorization.Authorization.check`).

    ``recent_previews`` are those that all requests share; so is ``recent_unpriced``.
    When a client disconnects, the pending call is cancelled, which cancels the query in the store.
    """

    def __init__(
        self,
        store: IStore,
        requester: Requester,
        *,
        authorize: Callable[[], Awaitable[None]] = _always,
        place: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        recent_previews: RecentPreviews | None = None,
        recent_unpriced: RecentUnpricedUsage | None = None,
    ) -> None:
        self._store = store
        self._requester = requester
        self._authorize = authorize
        self.place = place
        self._recent_previews = recent_previews or RecentPreviews()
        self._recent_unpriced = recent_unpriced or RecentUnpricedUsage()

    async def check_authorization(self) -> None:
        """Raise what a query would raise because the requester is not authorized any more."""
        await self._authorize()

    async def _authorized(self, query: Callable[[], Awaitable[T]]) -> T:
        await self._authorize()
        async with self.place():
            result = await query()
        await self._authorize()
        return result

    @property
    def statements(self) -> VisibleStatements:
        """The statements that the requester may see."""
        return VisibleStatements(IRated(self._store).rating.statements, self._requester, self._authorized)

    @property
    def budgets(self) -> VisibleBudgets:
        """The budgets that the requester may see."""
        return VisibleBudgets(lambda: IRated(self._store).rating.budgets, self._visible_project, self._authorized)

    def _visible_project(self, project_id: str | None) -> str | None:
        equals: dict[IdField, str | None] = {} if project_id is None else {"project_id": project_id}
        return restrict(SampleFilter(equals=equals), self._requester).equals.get("project_id")

    async def preview(
        self,
        directory: PriceDirectory,
        account_id: str | None,
        project_id: str | None,
        period: str | None,
        now: datetime,
        correct_periods: int,
        slices: Pausing,
    ) -> VisibleStatement | None:
        """Return an open statement; see :meth:`VisibleStatements.preview`."""
        await self.check_authorization()
        previews = Previews(
            IRated(self._store).rating,
            ICompletenessLedger(self._store),
            IIdentityNames(self._store),
            directory,
            directory_from_text,
            correct_periods=correct_periods,
            slices=slices,
        )
        return await self.statements.preview(
            previews, self._recent_previews, directory.accounts, account_id, project_id, period, now
        )

    async def book_differences(
        self, directory: PriceDirectory, other: PriceDirectory, period: str, now: datetime
    ) -> list[ProjectDifference]:
        """Return what ``period`` costs by two price directories, to administrators; :class:`HttpError` 403 for others.

        :raises ValueError: ``period`` is not the name of a period.
        """
        if not self._requester.is_admin:
            raise HttpError(403, "RBAC Authorization Failed: only administrators compare price books.")
        await self.check_authorization()
        rating, names = IRated(self._store).rating, IIdentityNames(self._store)
        comparison = BookComparison(rating, names, directory, other)
        return await self._authorized(lambda: comparison.compare(period, now))

    async def unpriced_usage(
        self, directory: PriceDirectory, now: datetime, slices: Pausing
    ) -> Sequence[UnpricedGroup]:
        """Return the usage of all accounts without a price, to administrators; :class:`HttpError` 403 for others."""
        await self.check_authorization()
        if not self._requester.is_admin:
            raise HttpError(403, "RBAC Authorization Failed: only administrators see unpriced usage.")
        stores = IRated(self._store).rating, IIdentityNames(self._store)
        return await self._authorized(lambda: self._recent_unpriced.groups(*stores, directory, now, slices))

    async def cost_sums(self, directory: PriceDirectory, query: CostQuery, slices: Pausing) -> list[CostSum]:
        """Return sums of costs by the price ``directory``, to a tenant those of the requester's project."""
        await self.check_authorization()
        query = replace(query, project_id=self.statements.visible_project(query.project_id))
        return await self._authorized(
            lambda: cost_sums(self._rated_days(directory, query, query.by_resource, slices), query)
        )

    async def cost_points(
        self, directory: PriceDirectory, query: CostQuery, offset: int, limit: int, slices: Pausing
    ) -> tuple[list[RatedDay], int]:
        """Return a page of the costs of resources and days, and their number, as :meth:`cost_sums` does."""
        await self.check_authorization()
        query = replace(query, project_id=self.statements.visible_project(query.project_id))
        return await self._authorized(
            lambda: cost_points(self._rated_days(directory, query, True, slices), query, offset, limit)
        )

    def _rated_days(
        self, directory: PriceDirectory, query: CostQuery, by_resource: bool, slices: Pausing
    ) -> AsyncIterator[RatedDay]:
        rating, names = IRated(self._store).rating, IIdentityNames(self._store)
        days = RatedDays(rating, names, directory, directory_from_text, slices)
        return days.between(query.begin, query.end, query.project_id, by_resource=by_resource)

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return at most ``limit`` matching samples, newest first unless ``order`` is given."""
        return await self._authorized(
            lambda: self._store.samples(restrict(filter, self._requester), limit, order, after)
        )

    async def sample_page(
        self,
        filter: SampleFilter,
        limit: int,
        order: Sequence[Order] = (),
        after: Marker | None = None,
        known: KnownDimensions = NOTHING_KNOWN,
    ) -> SamplePage:
        """Return what :meth:`samples` does, for rendering in bulk."""
        return await self._authorized(
            lambda: ISamplePages(self._store).sample_page(restrict(filter, self._requester), limit, order, after, known)
        )

    async def sample(self, message_id: str) -> StoredSample | None:
        """Return the sample with this id, ``None`` if there is no visible one."""
        return await self._authorized(lambda: self._store.sample(message_id, restrict(SampleFilter(), self._requester)))

    async def meters(self, filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """Return at most ``limit`` meters, ordered by name and resource."""
        return await self._authorized(lambda: self._store.meters(restrict(filter, self._requester), limit, unique))

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return at most ``limit`` resources, ordered by id."""
        return await self._authorized(lambda: self._store.resources(restrict(filter, self._requester), limit))

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """Return the rows of statistics, oldest first."""
        return await self._authorized(
            lambda: self._store.statistics(replace(query, filter=restrict(query.filter, self._requester)))
        )

    async def names_of_others(
        self, meters: Collection[str], resources: Collection[str]
    ) -> tuple[Collection[str], Collection[str]]:
        """Return which of ``meters`` and ``resources`` are not of the requester's project alone; none to an administrator."""
        project_id = self._requester.project_id
        if self._requester.is_admin or not project_id:
            return (), ()
        return await self._authorized(lambda: self._store.names_of_others(project_id, meters, resources))

    async def lives(
        self,
        filter: SampleFilter,
        start: datetime | None,
        end: datetime,
        now: datetime,
        kinds: Sequence[ResourceKind],
        limit: int,
        slices: Pausing,
    ) -> tuple[list[ResourceLife], str | None]:
        """Return a page of lives, see :func:`meter.completeness.lives.resource_lives.lives_page`: the segments of visible projects."""
        return await self._authorized(
            lambda: lives_page(
                ILifeStore(self._store),
                restrict(filter, self._requester),
                start,
                end,
                now=now,
                kinds=kinds,
                limit=limit,
                slices=slices,
            )
        )

    async def proof(self, message_id: str) -> StoredProof | None:
        """Return the metering message with this id as it was signed, ``None`` if there is no visible one.

        An administrator sees voided samples here, if no other has the id.
        """
        found = await self._authorized(lambda: self._store.proof(message_id, restrict(SampleFilter(), self._requester)))
        if found is None and self._requester.is_admin:
            return await self._authorized(lambda: self._store.voided_proof(message_id))
        return found

    async def identities(
        self, filter: IdentityFilter, limit: int, after: IdentityKey | None = None
    ) -> tuple[Sequence[IdentityHistory], IdentityKey | None]:
        """Return a page of identities; to a tenant the requester's project, its domains, and the requester's user."""
        if not self._requester.is_admin:
            filter = replace(filter, among=await self._own_identities())
        return await self._authorized(lambda: IIdentityNames(self._store).identities(filter, limit, after))

    async def name_histories(self, keys: Collection[IdentityKey]) -> Mapping[IdentityKey, tuple[NamePeriod, ...]]:
        """Return all names of each of ``keys``, oldest first; to a tenant only those of :meth:`identities`."""
        if not self._requester.is_admin:
            keys = (await self._own_identities()).intersection(keys)
        return await self._authorized(lambda: IIdentityNames(self._store).histories(keys))

    async def _own_identities(self) -> frozenset[IdentityKey]:
        """Return what a tenant may see. Raises :class:`HttpError` 403 for a requester without a project."""
        restrict(SampleFilter(), self._requester)
        project = IdentityKey("project", self._requester.project_id or "")
        known = IdentityFilter(among=frozenset({project}))
        histories, _ = await self._authorized(lambda: IIdentityNames(self._store).identities(known, 1))
        domains = {period.domain for each in histories for period in each.names if period.domain is not None}
        user = self._requester.user_id
        return frozenset(
            {
                project,
                *(IdentityKey("domain", each) for each in domains),
                *([IdentityKey("user", user)] if user else []),
            }
        )

    async def audit_entries(self, filter: AuditFilter, limit: int, before: int | None = None) -> Sequence[AuditEntry]:
        """Return entries of the audit log, newest first; :class:`HttpError` 403 for anyone but an administrator."""
        if not self._requester.is_admin:
            raise HttpError(403, "The audit log is for administrators.")
        return await self._authorized(lambda: self._store.audit_entries(filter, limit, before))

    async def completeness(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[CompletenessRow]:
        """Return numbers of expected and missing samples, of the requester's project."""
        return await self._authorized(
            lambda: ICompletenessLedger(self._store).completeness(self._visible(query), now, limit)
        )

    async def completeness_gaps(self, query: CompletenessQuery, now: datetime, limit: int) -> Sequence[Gap]:
        """Return gaps of the requester's project."""
        return await self._authorized(
            lambda: ICompletenessLedger(self._store).completeness_gaps(self._visible(query), now, limit)
        )

    async def closable(self, query: CompletenessQuery, now: datetime) -> Closable:
        """Return whether a period of the requester's project may be closed."""
        return await self._authorized(lambda: ICompletenessLedger(self._store).closable(self._visible(query), now))

    async def agent_states(self, now: datetime) -> Sequence[ReportingAgent]:
        """Return all agents; :class:`HttpError` 403 for anyone but an administrator."""
        if not self._requester.is_admin:
            raise HttpError(403, "Agents are shown to administrators only.")
        return await self._authorized(lambda: ICompletenessLedger(self._store).agent_states(now))

    async def heartbeats(self) -> Sequence[StoredHeartbeat]:
        """Return the last heartbeat of each daemon; :class:`HttpError` 403 for anyone but an administrator."""
        if not self._requester.is_admin:
            raise HttpError(403, "Daemons are shown to administrators only.")
        return await self._authorized(lambda: ICompletenessStore(self._store).heartbeats())

    async def hours_not_final(self, start: datetime, end: datetime, now: datetime) -> Sequence[datetime]:
        """Return hours that should be final and are not; :class:`HttpError` 403 for anyone but an administrator."""
        if not self._requester.is_admin:
            raise HttpError(403, "Which hours are final is shown to administrators only.")
        return await self._authorized(lambda: ICompletenessLedger(self._store).hours_not_final(start, end, now))

    async def arrivals(self, since: datetime, seconds: int, limit: int) -> Arrivals:
        """Return what was stored lately, of the requester's project; see ``IActivity.arrivals``."""
        project = self._visible_project(None)
        return await self._authorized(lambda: IActivity(self._store).arrivals(project, since, seconds, limit))

    async def resource_counts(self, kinds: Sequence[ResourceKind], since: datetime, limit: int) -> ResourceCounts:
        """Return how many resources the requester's project has, by kind and state."""
        project = self._visible_project(None)
        return await self._authorized(lambda: IActivity(self._store).resource_counts(project, kinds, since, limit))

    async def unmetered(self) -> Sequence[Unmetered]:
        """Return what reconciliation found; :class:`HttpError` 403 for anyone but an administrator."""
        if not self._requester.is_admin:
            raise HttpError(403, "The results of reconciliation are shown to administrators only.")
        return await self._authorized(lambda: ICompletenessLedger(self._store).unmetered())

    async def audited_periods(self, start: datetime, end: datetime) -> Sequence[AuditedPeriod]:
        """Return the audit periods of Nova; :class:`HttpError` 403 for anyone but an administrator."""
        if not self._requester.is_admin:
            raise HttpError(403, "The audits of Nova are shown to administrators only.")
        return await self._authorized(lambda: ICompletenessLedger(self._store).audited_periods(start, end))

    def _visible(self, query: CompletenessQuery) -> CompletenessQuery:
        return replace(query, project_id=self._visible_project(query.project_id))

    def check(self, filter: SampleFilter) -> None:
        """Raise the :class:`ApiError` that a query with ``filter`` would raise."""
        restrict(filter, self._requester)

    def subscribe_to_commits(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` after commits of any project; it conveys no data. Return the function that unsubscribes."""
        return self._store.subscribe_to_commits(callback)
