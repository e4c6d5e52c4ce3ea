"""The fields that the definitions of a resource have in common: read once for all samples of a notification.

A notification about an instance gives samples of seven meters, with the same resource, owner, time and metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from functools import lru_cache
from typing import Any

from meter.declarative.notifications import values
from meter.declarative.notifications.deletion import Deletion
from meter.declarative.notifications.metadata import Metadata
from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.values import Span
from meter.declarative.notifications.values import ValueSource
from meter.notification import Notification
from meter.sample import DELETED
from meter.sample import with_reserved

NAMES = ("resource", "user", "project", "timestamp")
"""The fields of a sample that are common fields."""


@dataclass(frozen=True, slots=True)
class CommonValues:
    """The values of :class:`CommonFields` in a notification."""

    resource_id: str
    user_id: str | None
    project_id: str | None
    timestamp: datetime
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CommonFields:
    """Defines whose a sample is, of which time, and its metadata. :func:`shared` makes equal ones the same object.

    The attributes are those of :class:`~meter.declarative.notifications.definition.Definition`.
    """

    resource: ValueSource | Span | None
    user: ValueSource | Span | None
    project: ValueSource | Span | None
    timestamp: ValueSource | Span | None
    metadata: Metadata
    deletion: Deletion | None
    optional: frozenset[str]
    state_when_sent: bool
    of_element: bool = field(init=False, compare=False)
    """Whether the values may depend on the element that a sample is made of."""
    _sources: tuple[tuple[str, ValueSource | Span], ...] = field(init=False, repr=False, compare=False)
    _labels: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """The name of each field in errors."""

    def __post_init__(self) -> None:
        """Resolve once what each notification needs."""
        sources = tuple((name, source) for name in NAMES if (source := getattr(self, name)) is not None)
        parts = (*(source for _, source in sources), self.metadata, *([] if self.deletion is None else [self.deletion]))
        object.__setattr__(self, "_sources", sources)
        object.__setattr__(
            self, "_labels", {name: name for name in NAMES} | {name: each.shown for name, each in sources}
        )
        object.__setattr__(self, "of_element", any(part.of_element for part in parts))

    def read(self, scope: Scope, root: dict[str, Any]) -> CommonValues:
        """Return the values in ``root``; raises ``ValueError``, which names the missing or bad value."""
        return self.values({name: source.first(root) for name, source in self._sources}, scope, root)

    def values(self, found: Mapping[str, Any], scope: Scope, root: dict[str, Any]) -> CommonValues:
        """Do the same with the values that were ``found`` for :data:`NAMES`."""
        resource = values.text(found.get("resource", MISSING), self._labels["resource"])
        user, project = self._owner("user", found), self._owner("project", found)
        timestamp = self._time(found, scope.notification)
        deletion = self.deletion
        ended = False
        if deletion is not None and scope.reports(deletion, root):
            timestamp = deletion.time(root, timestamp)
            ended = not deletion.ids_reused
        return CommonValues(resource, user, project, timestamp, scope.metadata(self.metadata, root, ended=ended))

    def _owner(self, name: str, found: Mapping[str, Any]) -> str | None:
        """Return the user or project; a missing user is ``None``, so that the project still gets its sample."""
        if getattr(self, name) is None:
            return None
        if name in self.optional or name == "user":
            return values.optional_text(found[name], self._labels[name])
        return values.text(found[name], self._labels[name])

    def _time(self, found: Mapping[str, Any], notification: Notification) -> datetime:
        """Return the defined timestamp, else that of the notification."""
        if self.timestamp is None:
            return notification.sent_at if self.state_when_sent else notification.timestamp
        value = found["timestamp"]
        if "timestamp" in self.optional and (value is MISSING or value is None or value == ""):
            return notification.timestamp
        return values.time(value, self._labels["timestamp"])


@lru_cache(maxsize=4096)
def shared(fields: CommonFields) -> CommonFields:
    """Return the first that is equal to ``fields``: definitions with the same object share its values in a notification."""
    return fields


class Scope:
    """The notification that paths are evaluated in, with a cache of what definitions share in it."""

    def __init__(self, notification: Notification) -> None:
        self.notification = notification
        publisher = notification.publisher_id
        self.root = {
            "event_type": notification.event_type,
            "publisher_id": publisher,
            "host": publisher.partition(".")[2] or publisher,
            "priority": notification.priority,
            "message_id": notification.message_id,
            "ctxt": notification.context,
            "payload": notification.payload,
        }
        self._common: dict[int, CommonValues] = {}
        self._deletions: dict[int, bool] = {}
        self._metadata: dict[tuple[int, bool], dict[str, Any]] = {}

    def common(self, fields: CommonFields, root: dict[str, Any]) -> CommonValues:
        """Return the values of ``fields`` in ``root``: the :attr:`root`, or one with an element added."""
        if root is not self.root and fields.of_element:
            return fields.read(self, root)
        known = self._common.get(id(fields))
        if known is None:
            known = self._common[id(fields)] = fields.read(self, self.root)
        return known

    def reports(self, deletion: Deletion, root: dict[str, Any]) -> bool:
        """Return whether ``root`` reports this ``deletion``."""
        if root is not self.root and deletion.of_element:
            return deletion.matches(root)
        known = self._deletions.get(id(deletion))
        if known is None:
            known = self._deletions[id(deletion)] = deletion.matches(self.root)
        return known

    def metadata(self, metadata: Metadata, root: dict[str, Any], *, ended: bool) -> dict[str, Any]:
        """Return ``metadata`` of ``root``, cached for the definitions that share it; of a run that has ``ended``, marked so."""
        if root is not self.root and metadata.of_element:
            found = metadata.extract(root)
            return with_reserved(found, run=DELETED) if ended else found
        key = (id(metadata), ended)
        known = self._metadata.get(key)
        if known is None:
            plain = self.metadata(metadata, self.root, ended=False) if ended else metadata.extract(self.root)
            known = self._metadata[key] = with_reserved(plain, run=DELETED) if ended else plain
        return known
