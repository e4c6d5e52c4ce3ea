"""Recognizes notifications of deleted resources: their gauges are 0 from the time of the deletion on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.declarative.notifications import values
from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.values import ValueSource

CLOCK_DIFFERENCE = timedelta(minutes=5)
"""A deletion time later than its notification by more than this is ignored."""

UNSET_CLOCK = timedelta(days=366)
"""A deletion time this long before the creation is from a host whose clock was not set, and ignored: 1970, for example."""

EMPTY = frozenset({"", "none", "null"})
"""Texts, in lower case, that services write for a time that is not set."""

Conditions = tuple[tuple[ValueSource, frozenset[str]], ...]
"""Sources, each with texts in lower case."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """How a notification reports that its resource is deleted, and since when.

    It matches if its event type is one of ``event_types``, if a source of ``where`` finds one of its texts, or if all
    sources of ``all_set`` find a value and no source of ``unless`` finds one of its texts. The resource is deleted since the
    latest time of ``at``; without one, since the notification, or since ``latest`` if that is earlier. A time of ``at`` that
    is far before ``earliest``, the creation, is ignored. With ``ids_reused`` another resource may get the same id later, so that
    samples after the deletion count.
    """

    event_types: frozenset[str] = frozenset()
    where: Conditions = ()
    all_set: tuple[ValueSource, ...] = ()
    unless: Conditions = ()
    at: tuple[ValueSource, ...] = ()
    latest: tuple[ValueSource, ...] = ()
    earliest: tuple[ValueSource, ...] = ()
    ids_reused: bool = False

    @property
    def of_element(self) -> bool:
        """Whether it may depend on the :data:`~meter.declarative.notifications.values.ELEMENT`."""
        conditions = (source for source, _ in (*self.where, *self.unless))
        return any(each.of_element for each in (*conditions, *self.all_set, *self.at, *self.latest, *self.earliest))

    def matches(self, scope: dict[str, Any]) -> bool:
        """Return whether the notification in ``scope`` reports that its resource is deleted."""
        if scope["event_type"] in self.event_types or finds_text(self.where, scope):
            return True
        if not self.all_set:
            return False
        for source in self.all_set:
            if _text(source.first(scope)) in EMPTY:
                return False
        return not finds_text(self.unless, scope)

    def time(self, scope: dict[str, Any], notified: datetime) -> datetime:
        """Return since when the resource is deleted, from a notification with the timestamp ``notified``."""
        created = min(_times(self.earliest, scope), default=None)
        times = [when for when in _times(self.at, scope) if created is None or created - when < UNSET_CLOCK]
        if times and (latest := max(times)) <= notified + CLOCK_DIFFERENCE:
            return latest
        return min([notified, *_times(self.latest, scope)])


def finds_text(conditions: Conditions, scope: dict[str, Any]) -> bool:
    """Return whether a source finds one of its texts."""
    return any(_text(source.first(scope)) in texts for source, texts in conditions)


def _text(value: Any) -> str:
    """Return a value as lower-case text for comparison: services write ``True``, ``"True"``, ``DELETED`` and ``deleted``."""
    if type(value) is str:
        return value[:100].lower()
    return "" if value is MISSING or value is None or isinstance(value, dict | list) else str(value)[:100].lower()


def _times(sources: tuple[ValueSource, ...], scope: dict[str, Any]) -> list[datetime]:
    return [when for source in sources if (when := _time(source, scope)) is not None]


def _time(source: ValueSource, scope: dict[str, Any]) -> datetime | None:
    try:
        return values.time(source.first(scope), source.shown)
    except ValueError:
        return None
