"""One definition: how the samples of one meter are made from the notifications that its patterns match."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from meter.declarative.notifications import values
from meter.declarative.notifications.deletion import Deletion
from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.paths import Path
from meter.declarative.notifications.patterns import Pattern
from meter.declarative.notifications.values import Span
from meter.declarative.notifications.values import ValueSource
from meter.notification import Notification
from meter.sample import DELETED
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.sample import with_reserved

MAX_ELEMENTS = 10_000
"""Maximum number of samples that one definition may make from one notification."""

FIELDS = ("name", "type", "unit", "volume", "resource", "user", "project", "timestamp")
"""The fields of a sample that a definition defines, in the order of evaluation."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Defines ``resource_metadata``: names with the source of each, or with nested metadata.

    The source named ``*`` finds a mapping whose members are all copied. ``user`` finds the metadata that the user set on
    the resource; members with the prefix ``metering.`` become ``user_metadata``.
    """

    sources: Mapping[str, ValueSource | Metadata]
    user: ValueSource | None = None
    _readers: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Resolve the reader of each name once, not for each notification."""
        readers = (
            (name, source.extract if isinstance(source, Metadata) else source.first)
            for name, source in self.sources.items()
        )
        object.__setattr__(self, "_readers", tuple(readers))

    def extract(self, scope: dict[str, Any]) -> dict[str, Any]:
        """Return the metadata of a notification; missing values are omitted, nulls are kept."""
        metadata: dict[str, Any] = {}
        for name, read in self._readers:
            value = read(scope)
            if name == "*":
                metadata |= value if isinstance(value, dict) else {}
            elif value is not MISSING:
                metadata[name] = value
        if self.user is not None and (marked := values.user_metadata(self.user.first(scope))):
            metadata["user_metadata"] = marked
        return metadata


class Scope:
    """The notification that paths are evaluated in, with a cache of the metadata extracted from it."""

    def __init__(self, notification: Notification) -> None:
        self.notification = notification
        self.root = {
            "event_type": notification.event_type,
            "publisher_id": notification.publisher_id,
            "host": notification.publisher_id.partition(".")[2] or notification.publisher_id,
            "priority": notification.priority,
            "message_id": notification.message_id,
            "ctxt": notification.context,
            "payload": notification.payload,
        }
        self._metadata: dict[int, dict[str, Any]] = {}

    def metadata(self, metadata: Metadata, root: dict[str, Any]) -> dict[str, Any]:
        """Return ``metadata`` of ``root``, cached for the definitions that share it."""
        if root is not self.root:
            return metadata.extract(root)
        known = self._metadata.get(id(metadata))
        if known is None:
            known = self._metadata[id(metadata)] = metadata.extract(root)
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One meter, or several whose names are in the notification; these must be among ``names``, unless it is empty.

    ``fields`` has a source for each of :data:`FIELDS` that is defined. If a path of ``requires`` finds nothing, no sample is
    made, except of a deletion. ``optional`` contains those of ``project`` and ``timestamp`` that may be missing; ``user`` always may. ``each`` finds
    elements, of which each makes one sample and is ``$.each`` in its paths; ``lookup`` instead names fields whose paths
    find one value per sample. ``origin`` is file and line. A notification that ``deletion`` matches gives a sample with
    volume 0 at the time of the deletion. With ``state_when_sent`` the time of a sample is that of the sending, although the
    notification is about an earlier time.
    """

    meters: tuple[MeterDefinition, ...]
    patterns: tuple[Pattern, ...]
    fields: Mapping[str, ValueSource | Span]
    metadata: Metadata
    origin: str
    requires: tuple[Path, ...] = ()
    optional: frozenset[str] = field(default_factory=frozenset)
    each: ValueSource | None = None
    lookup: frozenset[str] = field(default_factory=frozenset)
    names: frozenset[str] = field(default_factory=frozenset)
    deletion: Deletion | None = None
    state_when_sent: bool = False
    _labels: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """The name of each field in errors."""

    def __post_init__(self) -> None:
        """Compute the labels once, not for each sample."""
        labels = {name: self.fields[name].shown if name in self.fields else name for name in FIELDS}
        object.__setattr__(self, "_labels", labels)

    def samples(self, scope: Scope) -> Iterator[Sample]:
        """Yield the samples of a notification; raises ``ValueError``, which names the missing or bad value."""
        lacking = any(path.first(scope.root) in (MISSING, None) for path in self.requires)
        if lacking and not (self.deletion is not None and self.deletion.matches(scope.root)):
            return
        if self.each is not None:
            elements = self.each.all(scope.root)
            if len(elements) > MAX_ELEMENTS:
                raise ValueError(f"{self.each.shown} finds {len(elements)} elements, more than {MAX_ELEMENTS}")
            for element in elements:
                yield self._sample(scope, {**scope.root, "each": element})
        elif self.lookup:
            yield from self._lookup_samples(scope)
        else:
            yield self._sample(scope, scope.root)

    def _sample(self, scope: Scope, root: dict[str, Any]) -> Sample:
        deletion = self.deletion if self.deletion is not None and self.deletion.matches(root) else None
        found = {
            name: source.first(root) if deletion is None or name != "volume" else 0
            for name, source in self.fields.items()
        }
        metadata = self._metadata(scope, root)
        if deletion is None:
            return self._make_sample(found, scope, metadata)
        sample = self._make_sample(
            found, scope, metadata if deletion.ids_reused else with_reserved(metadata, run=DELETED)
        )
        return replace(sample, timestamp=deletion.time(root, sample.timestamp))

    def _lookup_samples(self, scope: Scope) -> Iterator[Sample]:
        columns = {name: source.all(scope.root) for name, source in self.fields.items()}
        count = len(columns["name"])
        if not 0 < count <= MAX_ELEMENTS:
            if count:
                raise ValueError(f"{self.fields['name'].shown} finds {count} names, more than {MAX_ELEMENTS}")
            return
        for name, column in columns.items():
            if name not in self.lookup and len(column) <= 1:
                columns[name] = [column[0] if column else MISSING] * count
            elif len(column) != count:
                shown = self.fields[name].shown
                raise ValueError(f"{shown} finds {len(column)} values for {count} samples: there must be one for each")
        metadata = self._metadata(scope, scope.root)
        for number in range(count):
            yield self._make_sample({name: column[number] for name, column in columns.items()}, scope, metadata)

    def _metadata(self, scope: Scope, root: dict[str, Any]) -> dict[str, Any]:
        return scope.metadata(self.metadata, root)

    def _make_sample(self, found: dict[str, Any], scope: Scope, metadata: dict[str, Any]) -> Sample:
        labels = self._labels
        name = values.text(found["name"], labels["name"])
        if self.names and name not in self.names:
            raise ValueError(
                f"{labels['name']} gives {name!r:.80}, which is not one of {', '.join(sorted(self.names))}"
            )
        return Sample(
            name=name,
            type=found["type"],
            unit=values.text(found["unit"], labels["unit"]),
            volume=values.number(found["volume"], labels["volume"]),
            resource_id=values.text(found["resource"], labels["resource"]),
            user_id=self._owner("user", found),
            project_id=self._owner("project", found),
            timestamp=self._timestamp(found, scope),
            resource_metadata=metadata,
        )

    def _owner(self, name: str, found: dict[str, Any]) -> str | None:
        """Return the user or project; a missing user is ``None``, so that the project still gets its sample."""
        if name not in self.fields:
            return None
        if name in self.optional or name == "user":
            return values.optional_text(found[name], self._labels[name])
        return values.text(found[name], self._labels[name])

    def _timestamp(self, found: dict[str, Any], scope: Scope) -> datetime:
        """Return the defined timestamp, else that of the notification."""
        if "timestamp" not in self.fields:
            notification = scope.notification
            return notification.sent_at if self.state_when_sent else notification.timestamp
        value = found["timestamp"]
        if "timestamp" in self.optional and (value is MISSING or value is None or value == ""):
            return scope.notification.timestamp
        return values.time(value, self._labels["timestamp"])


@dataclass(frozen=True, slots=True)
class DefinitionResult:
    """The samples that the definition at ``origin`` made from a notification, or the ``reason`` why it could not."""

    origin: str
    samples: tuple[Sample, ...]
    reason: str = ""
