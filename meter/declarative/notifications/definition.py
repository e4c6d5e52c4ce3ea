"""One definition: how one meter's samples are made from the notifications that its patterns match."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import datetime
from typing import Any

from meter.declarative.notifications import values
from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.paths import Path
from meter.declarative.notifications.patterns import Pattern
from meter.declarative.notifications.resource_end import Ended
from meter.declarative.notifications.values import Source
from meter.declarative.notifications.values import Span
from meter.notification import Notification
from meter.sample import MeterDefinition
from meter.sample import Sample

MOST_ELEMENTS = 10_000
"""Elements of one notification that a definition makes samples of."""

FIELDS = ("name", "type", "unit", "volume", "resource", "user", "project", "timestamp")
"""What a definition says of a sample, in the order in which it is asked."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What becomes ``resource_metadata``: names and where each comes from, or further such mappings.

    The source named ``*`` leads to a mapping whose members are all taken. ``user`` leads to what the resource's user
    said of it; the part marked with ``metering.`` is taken.
    """

    sources: Mapping[str, Source | Metadata]
    user: Source | None = None
    _readers: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look up once what is called for each notification."""
        readers = (
            (name, source.taken if isinstance(source, Metadata) else source.first)
            for name, source in self.sources.items()
        )
        object.__setattr__(self, "_readers", tuple(readers))

    def taken(self, scope: dict[str, Any]) -> dict[str, Any]:
        """Return the metadata of a notification; what it does not have is left out, null stays null."""
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
    """What the paths of definitions lead into: a notification, with the metadata already taken from it."""

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
        """Return ``metadata`` of ``root``; definitions that share it share the answer."""
        if root is not self.root:
            return metadata.taken(root)
        known = self._metadata.get(id(metadata))
        if known is None:
            known = self._metadata[id(metadata)] = metadata.taken(root)
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One meter, or some whose names are found in the notification; of ``names``, unless that is empty.

    ``fields`` has a source for each of :data:`FIELDS` that is defined.
    ``requires``: without these nothing is said of the meter, and no sample is made. ``optional``: of ``project`` and
    ``timestamp`` those that may be missing; ``user`` always may. ``each`` leads to elements that make a sample each, under
    ``$.each``; ``lookup`` instead names fields whose paths have a value for each sample. ``origin`` is file and line.
    Where ``ended`` says that the resource no longer exists, the volume is 0 from the end of it on.
    """

    meters: tuple[MeterDefinition, ...]
    patterns: tuple[Pattern, ...]
    fields: Mapping[str, Source | Span]
    metadata: Metadata
    origin: str
    requires: tuple[Path, ...] = ()
    optional: frozenset[str] = field(default_factory=frozenset)
    each: Source | None = None
    lookup: frozenset[str] = field(default_factory=frozenset)
    names: frozenset[str] = field(default_factory=frozenset)
    ended: Ended | None = None
    _labels: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """How errors name each field."""

    def __post_init__(self) -> None:
        """Name the fields once: every sample is asked for all of them."""
        labels = {name: self.fields[name].shown if name in self.fields else name for name in FIELDS}
        object.__setattr__(self, "_labels", labels)

    def samples(self, scope: Scope) -> Iterator[Sample]:
        """Yield the samples of a notification; ``ValueError`` names what is missing or wrong in it."""
        if any(path.first(scope.root) in (MISSING, None) for path in self.requires):
            return
        if self.each is not None:
            elements = self.each.all(scope.root)
            if len(elements) > MOST_ELEMENTS:
                raise ValueError(f"{self.each.shown} leads to {len(elements)} elements, more than {MOST_ELEMENTS}")
            for element in elements:
                yield self._sample(scope, {**scope.root, "each": element})
        elif self.lookup:
            yield from self._looked_up(scope)
        else:
            yield self._sample(scope, scope.root)

    def _sample(self, scope: Scope, root: dict[str, Any]) -> Sample:
        ended = self.ended is not None and self.ended.tells(root)
        found = {name: 0 if ended and name == "volume" else source.first(root) for name, source in self.fields.items()}
        made = self._made(found, scope, self._metadata(scope, root))
        if not ended or self.ended is None:
            return made
        return replace(made, timestamp=self.ended.time(root, made.timestamp))

    def _looked_up(self, scope: Scope) -> Iterator[Sample]:
        columns = {name: source.all(scope.root) for name, source in self.fields.items()}
        count = len(columns["name"])
        if not 0 < count <= MOST_ELEMENTS:
            if count:
                raise ValueError(f"{self.fields['name'].shown} leads to {count} names, more than {MOST_ELEMENTS}")
            return
        for name, column in columns.items():
            if name not in self.lookup and len(column) <= 1:
                columns[name] = [column[0] if column else MISSING] * count
            elif len(column) != count:
                shown = self.fields[name].shown
                raise ValueError(f"{shown} has {len(column)} values for {count} samples: there must be one for each")
        metadata = self._metadata(scope, scope.root)
        for number in range(count):
            yield self._made({name: column[number] for name, column in columns.items()}, scope, metadata)

    def _metadata(self, scope: Scope, root: dict[str, Any]) -> dict[str, Any]:
        return scope.metadata(self.metadata, root)

    def _made(self, found: dict[str, Any], scope: Scope, metadata: dict[str, Any]) -> Sample:
        labels = self._labels
        name = values.text(found["name"], labels["name"])
        if self.names and name not in self.names:
            raise ValueError(f"{labels['name']} makes {name!r:.80}, which is none of {', '.join(sorted(self.names))}")
        return Sample(
            name=name,
            type=found["type"],
            unit=values.text(found["unit"], labels["unit"]),
            volume=values.number(found["volume"], labels["volume"]),
            resource_id=values.text(found["resource"], labels["resource"]),
            user_id=self._owner("user", found),
            project_id=self._owner("project", found),
            timestamp=self._time(found, scope),
            resource_metadata=metadata,
        )

    def _owner(self, name: str, found: dict[str, Any]) -> str | None:
        """Return the owner. A missing user never prevents a project's sample."""
        if name not in self.fields:
            return None
        if name in self.optional or name == "user":
            return values.optional_text(found[name], self._labels[name])
        return values.text(found[name], self._labels[name])

    def _time(self, found: dict[str, Any], scope: Scope) -> datetime:
        """Return the time the definition names, else that of the notification."""
        if "timestamp" not in self.fields:
            return scope.notification.timestamp
        written = found["timestamp"]
        if "timestamp" in self.optional and (written is MISSING or written is None or written == ""):
            return scope.notification.timestamp
        return values.time(written, self._labels["timestamp"])


@dataclass(frozen=True, slots=True)
class DefinitionResult:
    """The samples that the definition at ``origin`` made of a notification, or the ``reason`` why it could not."""

    origin: str
    samples: tuple[Sample, ...]
    reason: str = ""
