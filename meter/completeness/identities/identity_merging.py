"""Merges an identity report with what is known already: the same for every store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from datetime import timedelta
from typing import NamedTuple

from meter.completeness.identities.identity_history import Sighting
from meter.completeness.identities.identity_history import add_sighting
from meter.completeness.identities.identity_history import listed
from meter.identity_names import IdentityFilter
from meter.identity_names import IdentityHistory
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.identity_report import time_of
from meter.message import BadMessage

MAX_AHEAD = timedelta(hours=1)
"""How far ahead of the store's clock a report may be. Names from the future would hide those of the present."""

Sightings = Mapping[str, Sequence[Sighting]]
"""Sightings of identities of one kind and one origin, by id; each sequence is sorted by time."""

Deletions = Mapping[str, Sequence[datetime]]
"""Times of notifications that an identity was deleted, by id, sorted."""


class ListRange(NamedTuple):
    """A complete list: its time, and which ids it covers: those after ``after`` and not after ``until``."""

    at: datetime
    after: str = ""
    until: str | None = None

    def covers(self, identity: str) -> bool:
        """Return whether an identity with this id would be in the list."""
        return self.after < identity and (self.until is None or identity <= self.until)


def check_not_ahead(report: IdentityReport, now: datetime) -> None:
    """Raise :class:`~meter.message.BadMessage` if a time in ``report`` is too far ahead of ``now``."""
    times = [report.at, *(each.since for each in report.names), *(each.at for each in report.changes)]
    latest = max(map(time_of, times))
    if latest > now + MAX_AHEAD:
        raise BadMessage(f"the identity report is from the future: {latest}, and it is {now}")


def seen_in(report: IdentityReport, kind: IdentityKind) -> dict[str, list[Sighting]]:
    """Return what ``report`` saw, by id, sorted: a name that is valid since before the report was seen by the report as well."""
    at = time_of(report.at)
    result: defaultdict[str, list[Sighting]] = defaultdict(list)
    for each in report.names:
        if each.kind == kind:
            result[each.id].append(_sighting(each))
    for seen in result.values():
        seen.sort(key=lambda each: each.seen)
        if seen[-1].seen < at:
            seen.append(seen[-1]._replace(seen=at, exact=False))
    return dict(result)


def deletions_in(report: IdentityReport, kind: IdentityKind) -> dict[str, list[datetime]]:
    """Return the times at which identities were deleted according to the changes in ``report``, by id, sorted."""
    result: defaultdict[str, list[datetime]] = defaultdict(list)
    for each in report.changes:
        if each.kind == kind and each.change == "deleted":
            result[each.id].append(time_of(each.at))
    return {id: sorted(times) for id, times in result.items()}


def merged_names(
    report: IdentityReport,
    kind: IdentityKind,
    seen: Sightings,
    stored: Sightings,
    lists: Sequence[ListRange],
    deletions: Deletions,
) -> dict[str, Sequence[Sighting]]:
    """Return the sightings of each identity that ``report`` is about, with what it says.

    ``seen`` is :func:`seen_in` the report. ``stored`` has all sightings of these identities and, for a complete report, of those
    that existed in its range; ``lists`` are the earlier and the later complete lists of the origin, sorted.
    """
    this = ListRange(time_of(report.at), report.after, report.until) if kind in report.complete else None
    news = dict(seen)
    if this is not None:
        news |= {id: [Sighting(this.at, None)] for id in stored if id not in seen and this.covers(id)}
    changed = {}
    overlapping = overlapping_lists(lists, news)
    for id, new in news.items():
        result: Sequence[Sighting] = stored.get(id, ())
        if len(new) == 1 and result and result[-1].seen < new[0].seen and result[-1].value == new[0].value:
            continue  # the usual case: nothing is new
        covering = [each.at for each in overlapping if each.covers(id)]
        for sighting in new:
            # Who states since when a name is valid is not refuted by lists that did not have it yet.
            known = [each for each in covering if each < sighting.seen] if sighting.exact else covering
            result = add_sighting(result, sighting, known, deletions.get(id, ()))
        changed[id] = listed(result, this.at) if this is not None and this.covers(id) else result
    return changed


def merged_deletions(
    times: Deletions, stored: Sightings, lists: Sequence[ListRange], deletions: Deletions
) -> dict[str, Sequence[Sighting]]:
    """Return the sightings of each identity in ``stored`` with its deletions at ``times``."""
    changed = {}
    overlapping = overlapping_lists(lists, stored)
    for id, result in stored.items():
        covering = [each.at for each in overlapping if each.covers(id)]
        for time in times.get(id, ()):
            result = add_sighting(result, Sighting(time, None, exact=True), covering, deletions.get(id, ()))
        changed[id] = result
    return changed


def overlapping_lists(lists: Sequence[ListRange], ids: Collection[str]) -> list[ListRange]:
    """Return the lists that may cover some of ``ids``: a long list has many parts, and few of them do."""
    if not ids:
        return []
    first, last = min(ids), max(ids)
    return [each for each in lists if each.after < last and (each.until is None or first <= each.until)]


def matching(histories: Collection[IdentityHistory], filter: IdentityFilter) -> list[IdentityHistory]:
    """Return the histories with a name that ``filter`` asks for, each with the one of ``filter.at`` alone if there is one."""
    result = []
    for each in histories:
        at = filter.at
        names = [p for p in each.names if at is None or (p.since <= at and (p.until is None or at < p.until))]
        if any(filter.name is None or period.name == filter.name for period in names):
            result.append(IdentityHistory(each.kind, each.id, tuple(names)))
    return result


def _sighting(name: IdentityName) -> Sighting:
    if name.deleted:
        return Sighting(time_of(name.since), None, None, name.exact)
    return Sighting(time_of(name.since), name.name, name.domain, name.exact)
