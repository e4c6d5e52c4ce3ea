"""When a resource no longer exists: from then on its gauges are 0, whichever notification reports the end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.declarative.notifications import values
from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.values import Source

CLOCK_DIFFERENCE = timedelta(minutes=5)
"""A deletion further after its own notification than this is not believed."""

UNSET_CLOCK = timedelta(days=366)
"""A deletion so long before the creation of its resource was told by a host whose clock was not set: 1970, for example."""

EMPTY = frozenset({"", "none", "null"})
"""What services write for a time that is not set."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a notification says that its resource no longer exists, and since when.

    It does so by being one of ``event_types``, by a text that is one of those of ``where``, or by having all of
    ``known`` (a resource in a state of ``unless`` has them and still exists). The end is the latest time of ``at``; a
    notification without one tells of an end at its own time, or at that of ``latest`` where that is earlier. A time of
    ``at`` far before that of ``earliest``, when the resource was made, is not believed.
    """

    event_types: frozenset[str] = frozenset()
    where: tuple[tuple[Source, frozenset[str]], ...] = ()
    known: tuple[Source, ...] = ()
    unless: tuple[tuple[Source, frozenset[str]], ...] = ()
    at: tuple[Source, ...] = ()
    latest: tuple[Source, ...] = ()
    earliest: tuple[Source, ...] = ()

    def tells(self, scope: dict[str, Any]) -> bool:
        """Return whether the notification in ``scope`` reports the end of its resource."""
        if scope["event_type"] in self.event_types or any(_is(scope, *each) for each in self.where):
            return True
        if not self.known or any(_is(scope, *each) for each in self.unless):
            return False
        return all(_text(source.first(scope)) not in EMPTY for source in self.known)

    def time(self, scope: dict[str, Any], notified: datetime) -> datetime:
        """Return since when the resource no longer exists, according to a notification sent at ``notified``."""
        made = min(_times(self.earliest, scope), default=None)
        told = [when for when in _times(self.at, scope) if made is None or made - when < UNSET_CLOCK]
        if told and (latest := max(told)) <= notified + CLOCK_DIFFERENCE:
            return latest
        return min([notified, *_times(self.latest, scope)])


def _is(scope: dict[str, Any], source: Source, texts: frozenset[str]) -> bool:
    return _text(source.first(scope)) in texts


def _text(value: Any) -> str:
    """Return a value as it is compared: services write ``True``, ``"True"``, ``DELETED`` and ``deleted``."""
    return "" if value is MISSING or value is None or isinstance(value, dict | list) else str(value)[:100].lower()


def _times(sources: tuple[Source, ...], scope: dict[str, Any]) -> list[datetime]:
    return [when for source in sources if (when := _time(source, scope)) is not None]


def _time(source: Source, scope: dict[str, Any]) -> datetime | None:
    try:
        return values.time(source.first(scope), source.shown)
    except ValueError:
        return None
