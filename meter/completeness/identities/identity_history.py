"""Histories of names: what was seen of an identity at some times becomes names with a beginning and an end.

Evidence are *sightings* (an identity had this name, or did not exist, at this time), *complete lists* (what they do not contain
did not exist) and *changes* (notifications: an exact time, and no name). The result does not depend on the order in which they
arrive, nor on how often.
"""

from __future__ import annotations

from bisect import bisect_left
from bisect import bisect_right
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from meter.identity_names import NamePeriod
from meter.identity_report import ChangeKind

FILE = "file"
NOTIFICATION = "notification"
KEYSTONE = "keystone"


class Sighting(NamedTuple):
    """What an identity was called when it was ``seen``; ``name`` is ``None`` if it did not exist.

    ``exact``: ``seen`` is the time of the change. ``not_before``: the time of the last complete list before ``seen``.
    """

    seen: datetime
    name: str | None
    domain: str | None = None
    exact: bool = False
    not_before: datetime | None = None

    @property
    def value(self) -> tuple[str | None, str | None]:
        """What is compared with other sightings."""
        return self.name, self.domain


class Change(NamedTuple):
    """The time of a notification, and what it said."""

    at: datetime
    change: ChangeKind


ABSENT = (None, None)


def is_keystone(origin: str) -> bool:
    """Return whether names of ``origin`` are those of a Keystone, which notifications are about."""
    return origin == KEYSTONE or origin.startswith(f"{KEYSTONE} ")


def add_sighting(
    sightings: Sequence[Sighting], new: Sighting, lists: Sequence[datetime] = (), deletions: Sequence[datetime] = ()
) -> list[Sighting]:
    """Return ``sightings``, sorted by time, with ``new``, without those that repeat the one before.

    ``lists`` are times of complete lists that cover the identity, ``deletions`` times of notifications that it was deleted, both
    sorted. The first of them after ``new`` tells how long ``new`` can be valid: a list that was the same as the sighting before
    ``new`` is not a sighting of its own until ``new`` comes between.
    """
    place = bisect_left(sightings, new.seen, key=_seen)
    before, after = list(sightings[:place]), list(sightings[place:])
    covering = before[-1].value if before else ABSENT
    new = new._replace(not_before=_last_before(lists, new.seen))
    if after and after[0].seen == new.seen:
        same = after.pop(0)
        if not _outweighs(new, same):
            return list(sightings)
        covering = same.value
    elif new.value == covering:
        return list(sightings)
    confirmed = []
    ends = [_first_after(lists, new.seen), _first_after(deletions, new.seen)]
    known = [each for each in ends if each is not None]
    if known and (not after or min(known) < after[0].seen):
        at = min(known)
        deleted = at == ends[1]
        value = ABSENT if deleted else covering
        confirmed = [Sighting(at, *value, deleted, _last_before(lists, at))]
    return _without_repetitions([*before, new, *confirmed, *after])


def listed(sightings: Sequence[Sighting], at: datetime) -> list[Sighting]:
    """Return ``sightings`` after a complete list ``at`` a time covered them: what came later was not so before that list."""
    return [
        each._replace(not_before=at) if each.seen > at and (each.not_before is None or each.not_before < at) else each
        for each in sightings
    ]


def periods_of(by_origin: Mapping[str, Sequence[Sighting]], changes: Sequence[Change]) -> tuple[NamePeriod, ...]:
    """Return the names of an identity, oldest first, from its sightings by origin and its changes, all sorted by time.

    Where several Keystones know it, the one that was heard of last tells its names from then on. What a file says comes first.
    """
    histories = {
        origin: _periods(sightings, changes if is_keystone(origin) else ())
        for origin, sightings in sorted(by_origin.items())
    }
    stated = histories.pop(FILE, [])
    result: list[NamePeriod] = []
    for periods in sorted((each for each in histories.values() if each), key=lambda each: each[0].since):
        result = _followed(result, periods)
    for period in stated:
        result = _overlaid(result, period)
    return tuple(sorted(result, key=lambda each: each.since))


def period_at(periods: Sequence[NamePeriod], at: datetime) -> NamePeriod | None:
    """Return the name that is valid ``at`` a time, else the last one before it, else the first one; ``None`` if there is none."""
    earlier = [each for each in periods if each.since <= at]
    return earlier[-1] if earlier else periods[0] if periods else None


def _seen(sighting: Sighting) -> datetime:
    return sighting.seen


def _outweighs(new: Sighting, old: Sighting) -> bool:
    """Return whether ``new`` replaces ``old``, of the same time: any rule does that does not depend on the order."""
    rank = [(each.exact, each.name is not None, each.name or "", each.domain or "") for each in (new, old)]
    return rank[0] > rank[1]


def _last_before(times: Sequence[datetime], at: datetime) -> datetime | None:
    place = bisect_left(times, at)
    return times[place - 1] if place else None


def _first_after(times: Sequence[datetime], at: datetime) -> datetime | None:
    place = bisect_right(times, at)
    return times[place] if place < len(times) else None


def _without_repetitions(sightings: Iterable[Sighting]) -> list[Sighting]:
    result: list[Sighting] = []
    for each in sightings:
        if each.value != (result[-1].value if result else ABSENT):
            result.append(each)
    return result


def _periods(sightings: Sequence[Sighting], changes: Sequence[Change]) -> list[NamePeriod]:
    periods: list[NamePeriod] = []
    previous: Sighting | None = None
    for sighting in sightings:
        since, exact = _began(sighting, previous, changes)
        if periods and periods[-1].until is None:
            periods[-1] = periods[-1]._replace(until=since, exact_until=exact)
        if sighting.name is not None:
            periods.append(NamePeriod(sighting.name, sighting.domain, since, None, exact, False))
        previous = sighting
    return periods


def _began(sighting: Sighting, previous: Sighting | None, changes: Sequence[Change]) -> tuple[datetime, bool]:
    """Return since when what was seen is so, and whether that is the time of the change or the one when it was found."""
    if sighting.exact or sighting.name is None:
        return sighting.seen, sighting.exact
    limits = [each for each in (sighting.not_before, previous and previous.seen) if each is not None]
    recent = [each for each in changes if each.at <= sighting.seen and all(each.at > limit for limit in limits)]
    created = [each.at for each in recent if each.change == "created"]
    updated = [each.at for each in recent if each.change == "updated"]
    if previous is not None and previous.name is not None:
        return (updated[0], True) if len(updated) == 1 else (sighting.seen, False)
    if not created:
        return sighting.seen, False
    # An update after the creation may have changed the name; which one it had until then was not seen.
    return created[-1], not any(each > created[-1] for each in updated)


def _followed(earlier: list[NamePeriod], later: list[NamePeriod]) -> list[NamePeriod]:
    """Return ``earlier`` until the first of ``later``, then ``later``; a name that goes on is one period."""
    start = later[0].since
    kept = [_ended(each, start) for each in earlier if each.since < start]
    if kept and kept[-1].until == start and (kept[-1].name, kept[-1].domain) == (later[0].name, later[0].domain):
        first = kept.pop()
        later = [later[0]._replace(since=first.since, exact_since=first.exact_since), *later[1:]]
    return kept + later


def _ended(period: NamePeriod, at: datetime) -> NamePeriod:
    if period.until is not None and period.until <= at:
        return period
    return period._replace(until=at, exact_until=False)


def _overlaid(periods: list[NamePeriod], stated: NamePeriod) -> list[NamePeriod]:
    """Return ``periods`` outside of ``stated``, and ``stated``."""
    result = [stated]
    for each in periods:
        if each.since < stated.since:
            result.append(_ended(each, stated.since))
        if stated.until is not None and (each.until is None or each.until > stated.until):
            since = max(each.since, stated.until)
            moved = since != each.since
            result.append(each._replace(since=since, exact_since=each.exact_since and not moved))
    return sorted(result, key=lambda each: each.since)
