"""A store in memory: the readable reference for the result of every query."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from operator import itemgetter
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from meter.batch_signature import BatchEntry
from meter.batch_signature import BatchSignature
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.completeness.activity import Arrivals
from meter.completeness.activity import IActivity
from meter.completeness.activity import ResourceCounts
from meter.completeness.lives.kinds import ResourceKind
from meter.completeness.lives.life_store import ILifeStore
from meter.completeness.lives.life_store import ListedTime
from meter.completeness.lives.life_store import SampleRun
from meter.completeness_query import ICompletenessLedger
from meter.completeness_store import ICompletenessStore
from meter.completeness_store import WaitingRules
from meter.identity_names import IdentityFilter
from meter.identity_names import IdentityHistory
from meter.identity_names import IdentityKey
from meter.identity_names import IIdentityNames
from meter.identity_names import NamePeriod
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityReport
from meter.interfaces import IStore
from meter.interfaces import RequestError
from meter.message import MeteringMessage
from meter.query import AuditEntry
from meter.query import AuditFilter
from meter.query import Marker
from meter.query import Order
from meter.query import Refusal
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery
from meter.query import StoredMeter
from meter.query import StoredResource
from meter.query import StoredSample
from meter.query import WriteResult
from meter.rating.rating_store import IRated
from meter.resource_owner import describing
from meter.resource_owner import is_submitted
from meter.sample import VALID_VOLUMES
from meter.sample import volume_is_valid
from meter.sample_identity import Fact
from meter.sample_identity import compared
from meter.sample_identity import conflict
from meter.sample_identity import fact_of
from meter.sample_identity import may_differ
from meter.sample_page import ISamplePages
from meter.stored_batch import StoredBatch
from meter.stored_batch import StoredProof
from meter.stored_batch import UnstoredEntry
from meter.stored_batch import UnstoredReason
from meter.stored_batch import checks_of
from meter.testing.filters import matches
from meter.testing.memory_activity import arrivals_of
from meter.testing.memory_activity import resource_counts_of
from meter.testing.memory_identities import MemoryIdentities
from meter.testing.memory_ledger import MemoryLedgerStore
from meter.testing.memory_life_runs import runs_of_samples
from meter.testing.memory_listed import listed_times
from meter.testing.memory_rating import MemoryRating
from meter.testing.memory_sample_pages import MemorySamplePages
from meter.testing.memory_sample_pages import sort_key
from meter.testing.statistics import compute_statistics
from meter.testing.storable import unstorable


@implementer(
    IStore, IActivity, ICompletenessLedger, ICompletenessStore, IIdentityNames, ILifeStore, IRated, ISamplePages
)
class MemoryStore(MemorySamplePages, MemoryLedgerStore):
    """Stores samples in a mapping. While ``unavailable`` is set to a text, every call raises ``Unavailable`` with it.

    ``audit_log`` has the entries of the audit log, oldest first; ``listed_times`` what cycle reports listed beside
    the rows of the ledger.
    """

    def __init__(
        self,
        clock: IReactorTime | None = None,
        waiting_rules: WaitingRules = WaitingRules(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(clock or Clock(), waiting_rules)
        self._rows: defaultdict[str, list[tuple[StoredSample, MeteringMessage]]] = defaultdict(list)
        self._unstored: dict[tuple[bytes, int], UnstoredEntry] = {}
        self._callbacks: dict[object, Callable[[], object]] = {}
        self._identities = MemoryIdentities()
        self.audit_log: list[AuditEntry] = []
        self.listed_times: list[ListedTime] = []
        self.rating = MemoryRating(self)

    async def write(
        self, messages: Sequence[MeteringMessage], refused_entries: Sequence[BatchEntry] = ()
    ) -> WriteResult:
        """Store new messages, count duplicates, and refuse conflicts and what PostgreSQL cannot store either."""
        self._check()
        stored = 0
        refused = []
        recorded_at = datetime.fromtimestamp(self._clock.seconds(), UTC)
        unstored: dict[object, tuple[BatchEntry, UnstoredReason]] = {
            entry.place: (entry, "refused") for entry in refused_entries
        }
        for index, message in enumerate(messages):
            entry = message.entry
            reason = unstorable(message.fields)
            if not volume_is_valid(message.volume):
                reason = f"the volume must be {VALID_VOLUMES}"
            if reason is not None:
                refused.append(Refusal(index, reason))
                if entry is not None:
                    unstored[entry.place] = entry, "refused"
                continue
            row, rows = _row(message, recorded_at), self._rows[message.message_id]
            known = [(other, sent) for other, sent in rows if compared(other.timestamp, row.timestamp)]
            if not known:
                rows.append((row, message))
                stored += 1
                if entry is not None:
                    self._unstored.pop((entry.batch.mac, entry.position), None)
                continue
            why: UnstoredReason = "duplicate"
            if reason := conflict(message.message_id, *_stated(row), [_stated(other) for other, _ in known]):
                refused.append(Refusal(index, reason, "conflict"))
                why = "refused"
            if entry is not None:
                unstored[entry.place] = entry, why
        self._state_unstored(unstored)
        if stored:
            for callback in list(self._callbacks.values()):
                callback()
        return WriteResult(stored, len(messages) - stored - len(refused), tuple(refused))

    def _state_unstored(self, unstored: Mapping[object, tuple[BatchEntry, UnstoredReason]]) -> None:
        """Keep statements that the entries of ``unstored``, by their place, are not stored, unless they are."""
        if not unstored:
            return
        taken = {sent.entry.place for rows in self._rows.values() for _, sent in rows if sent.entry is not None}
        for place, (entry, why) in unstored.items():
            if place not in taken:
                stated = UnstoredEntry(entry.position, entry.digest, why, entry.unstored_mac(why))
                self._unstored.setdefault((entry.batch.mac, entry.position), stated)

    async def samples(
        self, filter: SampleFilter, limit: int, order: Sequence[Order] = (), after: Marker | None = None
    ) -> Sequence[StoredSample]:
        """Return the newest samples first; samples with the same timestamp are in descending order of their ids."""
        rows = self._matching(filter)[::-1]
        if after is not None:
            if order:
                raise RequestError("only a page in the order newest first can be continued after a marker")
            rows = [row for row in rows if (row.timestamp, row.message_id) < (after.timestamp, after.message_id)]
        for criterion in reversed(order):
            rows.sort(key=lambda row: sort_key(row, criterion.field), reverse=criterion.descending)
        return rows[:limit]

    async def sample(self, message_id: str, filter: SampleFilter) -> StoredSample | None:
        """Return the sample with this id if it matches ``filter``."""
        found = self._newest(message_id, filter)
        return found and found[0]

    async def meters(self, filter: SampleFilter, limit: int, unique: bool) -> Sequence[StoredMeter]:
        """Return one meter per name, resource, type and unit; per name, type and unit where ``unique``."""
        rows = self._matching(filter)
        if unique:
            no_owner = dict.fromkeys(("resource_id", "user_id", "project_id", "source"))
            unique_meters = sorted({(row.name, row.type, row.unit) for row in rows})
            return [
                StoredMeter(name=name, type=type_, unit=unit, **no_owner) for name, type_, unit in unique_meters[:limit]
            ]
        described = self._described(filter)
        newest: dict[tuple[str, ...], StoredSample] = {}
        for row in rows:
            key = row.name, row.resource_id, row.type, row.unit
            if key not in newest or described(row) or not described(newest[key]):
                newest[key] = row
        fields = tuple(StoredMeter.__dataclass_fields__)
        return [
            StoredMeter(**{field: getattr(row, field) for field in fields}) for _, row in sorted(newest.items())[:limit]
        ]

    async def resources(self, filter: SampleFilter, limit: int) -> Sequence[StoredResource]:
        """Return one resource per id, described by its matching samples only."""
        by_resource: defaultdict[str, list[StoredSample]] = defaultdict(list)
        described = self._described(filter)
        for row in self._matching(filter):
            if described(row):
                by_resource[row.resource_id].append(row)
        return [
            StoredResource(
                resource_id=resource_id,
                user_id=rows[-1].user_id,
                project_id=rows[-1].project_id,
                source=rows[-1].source,
                first_sample=rows[0].timestamp,
                last_sample=rows[-1].timestamp,
                metadata=rows[-1].metadata,
                meters=tuple(name for name, _, _ in sorted({(row.name, row.type, row.unit) for row in rows})),
            )
            for resource_id, rows in sorted(by_resource.items())[:limit]
        ]

    async def life_resources(self, filter: SampleFilter, meters: Sequence[str], limit: int) -> Sequence[str]:
        """Return the ids of resources that have samples of ``meters``."""
        selected = SampleFilter(equals=filter.equals, expression=filter.expression)
        return sorted({row.resource_id for row in self._matching(selected) if row.name in meters})[:limit]

    async def life_runs(
        self, resources: Sequence[str], meters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[SampleRun]:
        """Return consecutive samples of a series with the same metadata and volume as one run."""
        rows = self._matching(SampleFilter(as_of=as_of))
        return runs_of_samples(row for row in rows if row.name in meters and row.resource_id in resources)

    async def life_reports(
        self, resources: Sequence[str], pollsters: Sequence[str], as_of: datetime | None = None
    ) -> Sequence[ListedTime]:
        """Return what cycle reports listed, and those of ``listed_times``, that is about ``resources``."""
        self._check()
        given = [each for each in self.listed_times if each.resource_id in resources and each.pollster in pollsters]
        return [*given, *listed_times(self, resources, pollsters, as_of)]

    async def arrivals(self, project_id: str | None, since: datetime, seconds: int, limit: int) -> Arrivals:
        """Return what was stored lately."""
        return arrivals_of(self._matching(_of(project_id)), since, seconds, limit)

    async def resource_counts(
        self, project_id: str | None, kinds: Sequence[ResourceKind], since: datetime, limit: int
    ) -> ResourceCounts:
        """Return numbers of resources."""
        return resource_counts_of(self._matching(_of(project_id)), kinds, since)

    async def names_of_others(
        self, project_id: str, meters: Collection[str], resources: Collection[str]
    ) -> tuple[Collection[str], Collection[str]]:
        """Return the meters with samples that the project did not submit, and the resources of other projects."""
        rows = self._matching(SampleFilter())
        foreign = {row.resource_id for row in rows if row.project_id != project_id}
        made = {row.name for row in rows if row.project_id != project_id or not is_submitted(row)}
        return made & set(meters), foreign & set(resources)

    def _described(self, filter: SampleFilter) -> Callable[[StoredSample], bool]:
        """Return the function that tells whether a row describes its resource to who asks with ``filter``."""
        if filter.equals.get("project_id") is not None:
            return lambda row: True
        by_resource: defaultdict[str, list[StoredSample]] = defaultdict(list)
        for row in sorted(self._matching(SampleFilter()), key=lambda row: row.recorded_at):
            by_resource[row.resource_id].append(row)
        known = {id(row) for rows in by_resource.values() for row in describing(rows, rows[0].project_id)}
        return lambda row: id(row) in known

    async def statistics(self, query: StatisticsQuery) -> Sequence[Statistics]:
        """Return a row per window, unit and group, in that order."""
        return compute_statistics(query, self._matching(SampleFilter()))[: query.limit]

    async def proof(self, message_id: str, filter: SampleFilter = SampleFilter()) -> StoredProof | None:  # noqa: B008 (frozen)
        """Return the message with this id as it was signed, and its signed batch, if its sample matches ``filter``."""
        if (found := self._newest(message_id, filter)) is None:
            return None
        _, message = found
        if message.entry is None:
            return StoredProof(message=copy.deepcopy(message.fields), key_id=message.key_id, scheme=message.scheme)
        return StoredProof(
            message=_without_signature(message),
            key_id=message.key_id,
            scheme=message.scheme,
            batch=self._batch(message.entry.batch),
            position=message.entry.position,
        )

    async def voided_proof(self, message_id: str) -> StoredProof | None:
        """Return nothing: no sample is voided in this store."""
        return None

    def _batch(self, batch: BatchSignature) -> StoredBatch:
        stored = [
            (message.entry.position, _without_signature(message))
            for rows in self._rows.values()
            for _, message in rows
            if message.entry is not None and message.entry.batch.mac == batch.mac
        ]
        return StoredBatch(
            id=batch.id,
            key_id=batch.key_id,
            first=batch.first,
            last=batch.last,
            mac=batch.mac,
            checks=checks_of(batch.digests),
            messages=sorted(stored, key=itemgetter(0)),
            unstored=[self._unstored[key] for key in sorted(self._unstored) if key[0] == batch.mac],
        )

    async def audit_entries(self, filter: AuditFilter, limit: int, before: int | None = None) -> Sequence[AuditEntry]:
        """Return the newest matching entries of ``audit_log``."""
        self._check()
        found = [
            entry
            for entry in reversed(self.audit_log)
            if filter.action in (None, entry.action)
            and filter.who in (None, entry.who)
            and (filter.start is None or filter.start <= entry.at)
            and (filter.end is None or entry.at < filter.end)
            and (before is None or entry.seq < before)
        ]
        return found[:limit]

    @property
    def subscribers(self) -> int:
        """The number of subscriptions to commits."""
        return len(self._callbacks)

    async def record_identities(self, report: IdentityReport) -> None:
        """See ``IIdentityNames.record_identities``."""
        self._check()
        self._identities.record(report, datetime.fromtimestamp(self._clock.seconds(), UTC))

    async def names_at(self, kind: IdentityKind, ids: Collection[str], at: datetime) -> Mapping[str, NamePeriod]:
        """See ``IIdentityNames.names_at``."""
        self._check()
        return self._identities.names_at(kind, ids, at)

    async def histories(self, keys: Collection[IdentityKey]) -> Mapping[IdentityKey, tuple[NamePeriod, ...]]:
        """See ``IIdentityNames.histories``."""
        self._check()
        return self._identities.histories(keys)

    async def identities(
        self, filter: IdentityFilter, limit: int, after: IdentityKey | None = None
    ) -> tuple[Sequence[IdentityHistory], IdentityKey | None]:
        """See ``IIdentityNames.identities``."""
        self._check()
        return self._identities.identities(filter, limit, after)

    def subscribe_to_commits(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` after each write that stored something."""
        key = object()
        self._callbacks[key] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe

    def _newest(self, message_id: str, filter: SampleFilter) -> tuple[StoredSample, MeteringMessage] | None:
        self._check()
        found = [each for each in self._rows.get(message_id, ()) if matches(each[0], filter)]
        return max(found, key=lambda each: each[0].timestamp, default=None)

    def matching(self, filter: SampleFilter) -> list[StoredSample]:
        """Return all matching samples, oldest first."""
        return self._matching(filter)

    def clock_seconds(self) -> float:
        """Return the time of the clock, in seconds since 1970."""
        return self._clock.seconds()

    def _all_samples(self) -> Sequence[StoredSample]:
        return self._matching(SampleFilter())

    def _matching(self, filter: SampleFilter) -> list[StoredSample]:
        """Return the matching rows, oldest first."""
        self._check()
        rows = [row for same_id in self._rows.values() for row, _ in same_id if matches(row, filter)]
        rows.sort(key=lambda row: (row.timestamp, row.message_id))
        return rows


def _stated(row: StoredSample) -> tuple[Fact, frozenset[str]]:
    """Return the fact that ``row`` states, and the fields in which a repeat may differ."""
    return fact_of(row, row.volume, row.timestamp), may_differ(row.metadata)


def _row(message: MeteringMessage, recorded_at: datetime) -> StoredSample:
    return StoredSample(
        message_id=message.message_id,
        name=message.name,
        type=message.type,
        unit=message.unit,
        volume=message.volume,
        resource_id=message.resource_id,
        user_id=message.user_id,
        project_id=message.project_id,
        source=message.source,
        timestamp=message.timestamp,
        recorded_at=recorded_at,
        metadata=copy.deepcopy(message.metadata),
        signature="" if message.entry is not None else str(message.fields.get(SIGNATURE_FIELD) or ""),
        key_id=message.key_id,
        scheme=message.scheme,
    )


def _without_signature(message: MeteringMessage) -> dict[str, Any]:
    return copy.deepcopy({name: value for name, value in message.fields.items() if name != SIGNATURE_FIELD})


def _of(project_id: str | None) -> SampleFilter:
    return SampleFilter() if project_id is None else SampleFilter(equals={"project_id": project_id})
