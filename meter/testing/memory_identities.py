"""Names of projects, domains and users in memory: the readable reference for those in PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime

from meter.completeness.identities.identity_history import Change
from meter.completeness.identities.identity_history import Sighting
from meter.completeness.identities.identity_history import is_keystone
from meter.completeness.identities.identity_history import period_at
from meter.completeness.identities.identity_history import periods_of
from meter.completeness.identities.identity_merging import ListRange
from meter.completeness.identities.identity_merging import check_not_ahead
from meter.completeness.identities.identity_merging import deletions_in
from meter.completeness.identities.identity_merging import matching
from meter.completeness.identities.identity_merging import merged_deletions
from meter.completeness.identities.identity_merging import merged_names
from meter.completeness.identities.identity_merging import seen_in
from meter.identity_names import IdentityFilter
from meter.identity_names import IdentityHistory
from meter.identity_names import IdentityKey
from meter.identity_names import NamePeriod
from meter.identity_report import KINDS
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityReport
from meter.identity_report import check_identity_report
from meter.identity_report import time_of


class MemoryIdentities:
    """Sightings by kind and origin, changes and complete lists; see :class:`~meter.identity_names.IIdentityNames`."""

    def __init__(self) -> None:
        self._sightings: defaultdict[tuple[str, str], dict[str, Sequence[Sighting]]] = defaultdict(dict)
        self._changes: defaultdict[IdentityKey, set[Change]] = defaultdict(set)
        self._lists: defaultdict[tuple[str, str], set[ListRange]] = defaultdict(set)

    def record(self, report: IdentityReport, now: datetime) -> None:
        """Add what ``report`` says."""
        check_identity_report(report)
        check_not_ahead(report, now)
        for change in report.changes:
            self._changes[IdentityKey(change.kind, change.id)].add(Change(time_of(change.at), change.change))
        for kind in KINDS:
            place = kind, report.origin
            if kind in report.complete or any(each.kind == kind for each in report.names):
                stored = self._sightings[place]
                deletions = self._deletions(kind) if is_keystone(report.origin) else {}
                seen = seen_in(report, kind)
                stored |= merged_names(report, kind, seen, stored, self._sorted_lists(place), deletions)
            if kind in report.complete:
                self._lists[place].add(ListRange(time_of(report.at), report.after, report.until))
            times = deletions_in(report, kind)
            for each in [each for each in self._sightings if each[0] == kind and is_keystone(each[1])]:
                known = {id: seen for id, seen in self._sightings[each].items() if id in times}
                self._sightings[each] |= merged_deletions(times, known, self._sorted_lists(each), self._deletions(kind))

    def names_at(self, kind: IdentityKind, ids: Collection[str], at: datetime) -> Mapping[str, NamePeriod]:
        """Return the name of each identity that is valid ``at`` a time, or the nearest one."""
        found = {id: period_at(self._history(IdentityKey(kind, id)).names, at) for id in ids}
        return {id: period for id, period in found.items() if period is not None}

    def histories(self, keys: Collection[IdentityKey]) -> Mapping[IdentityKey, tuple[NamePeriod, ...]]:
        """Return all names of each of ``keys``."""
        return {key: names for key in keys if (names := self._history(key).names)}

    def identities(
        self, filter: IdentityFilter, limit: int, after: IdentityKey | None
    ) -> tuple[Sequence[IdentityHistory], IdentityKey | None]:
        """Return a page of identities, and where the next one begins."""
        known = {
            (kind, id): seen
            for (kind, _), stored in self._sightings.items()
            for id, seen in stored.items()
            if seen and (filter.name is None or any(each.name == filter.name for each in seen))
        }
        keys = [
            IdentityKey(kind, id)  # type: ignore[arg-type]
            for kind, id in sorted(known)
            if (after is None or (kind, id) > after)
            and filter.kind in (None, kind)
            and filter.id in (None, id)
            and (filter.among is None or (kind, id) in filter.among)
        ]
        page = [self._history(each) for each in keys[:limit]]
        return matching(page, filter), keys[limit - 1] if len(keys) > limit else None

    def _history(self, key: IdentityKey) -> IdentityHistory:
        by_origin = {
            origin: stored[key.id]
            for (kind, origin), stored in self._sightings.items()
            if kind == key.kind and key.id in stored
        }
        return IdentityHistory(key.kind, key.id, periods_of(by_origin, sorted(self._changes.get(key, ()))))

    def _sorted_lists(self, place: tuple[str, str]) -> list[ListRange]:
        return sorted(self._lists[place], key=lambda each: (each.at, each.after))

    def _deletions(self, kind: IdentityKind) -> dict[str, list[datetime]]:
        return {
            key.id: sorted(each.at for each in changes if each.change == "deleted")
            for key, changes in self._changes.items()
            if key.kind == kind
        }
