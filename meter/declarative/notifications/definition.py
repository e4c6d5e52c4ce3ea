"""One definition: how the samples of one meter are made from the notifications that its patterns match."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import msgspec

from meter.declarative.notifications import common_fields
from meter.declarative.notifications import values
from meter.declarative.notifications.common_fields import CommonFields
from meter.declarative.notifications.common_fields import CommonValues
from meter.declarative.notifications.common_fields import Scope
from meter.declarative.notifications.deletion import Conditions
from meter.declarative.notifications.deletion import Deletion
from meter.declarative.notifications.deletion import finds_text
from meter.declarative.notifications.metadata import Metadata
from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.paths import Path
from meter.declarative.notifications.patterns import Pattern
from meter.declarative.notifications.values import ELEMENT
from meter.declarative.notifications.values import Span
from meter.declarative.notifications.values import ValueSource
from meter.sample import MeterDefinition
from meter.sample import Sample

MAX_ELEMENTS = 10_000
"""Maximum number of samples that one definition may make from one notification."""

FIELDS = ("name", "type", "unit", "volume", "resource", "user", "project", "timestamp")
"""The fields of a sample that a definition defines, in the order of evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One meter, or several whose names are in the notification; these must be among ``names``, unless it is empty.

    ``fields`` has a source for each of :data:`FIELDS` that is defined. If a path of ``requires`` finds nothing, no sample is
    made, except of a deletion; if a path of ``unless`` finds one of its texts, none at all. ``optional`` contains those of
    ``project`` and ``timestamp`` that may be missing; ``user`` always may. ``each`` finds elements, of which each makes one
    sample and is ``$.each`` in its paths; ``lookup`` instead names fields whose paths find one value per sample. ``origin``
    is file and line. A notification that ``deletion`` matches gives a sample with volume 0 at the time of the deletion. With ``state_when_sent`` the time of a sample is that of the sending, although the
    notification is about an earlier time.
    """

    meters: tuple[MeterDefinition, ...]
    patterns: tuple[Pattern, ...]
    fields: Mapping[str, ValueSource | Span]
    metadata: Metadata
    origin: str
    requires: tuple[Path, ...] = ()
    unless: Conditions = ()
    optional: frozenset[str] = field(default_factory=frozenset)
    each: ValueSource | None = None
    lookup: frozenset[str] = field(default_factory=frozenset)
    names: frozenset[str] = field(default_factory=frozenset)
    deletion: Deletion | None = None
    state_when_sent: bool = False
    _common: CommonFields = field(init=False, repr=False, compare=False)
    _labels: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """The name of each field in errors."""
    _constant: tuple[str, Any, str] | None = field(init=False, repr=False, compare=False)
    """Name, type and unit, checked, if none of them is in the notification, as in most definitions; else ``None``."""

    def __post_init__(self) -> None:
        """Resolve once what each notification needs."""
        fields = self.fields
        common = CommonFields(
            resource=fields.get("resource"),
            user=fields.get("user"),
            project=fields.get("project"),
            timestamp=fields.get("timestamp"),
            metadata=self.metadata,
            deletion=self.deletion,
            optional=self.optional,
            state_when_sent=self.state_when_sent,
        )
        object.__setattr__(self, "_common", common_fields.shared(common))
        labels = {name: fields[name].shown if name in fields else name for name in FIELDS}
        object.__setattr__(self, "_labels", labels)
        object.__setattr__(self, "_constant", self._without_notification())

    def _without_notification(self) -> tuple[str, Any, str] | None:
        sources = [self.fields.get(name) for name in ("name", "type", "unit")]
        if self.lookup or not all(isinstance(each, ValueSource) and not each.paths for each in sources):
            return None
        try:
            return self._meter_of(*[each.first({}) for each in sources if each is not None])
        except ValueError:
            return None  # raised for each notification, with its name

    def samples(self, scope: Scope) -> Iterator[Sample]:
        """Yield the samples of a notification; raises ``ValueError``, which names the missing or bad value.

        Their message id is that of the notification: :func:`meter.notification.stable_ids` gives them their own.
        """
        root = scope.root
        if self.unless and finds_text(self.unless, root):
            return
        for path in self.requires:
            found = path.first(root)
            if found is MISSING or found is None:
                if self.deletion is None or not scope.reports(self.deletion, root):
                    return
                break
        if self.each is not None:
            elements = self.each.all(root)
            if len(elements) > MAX_ELEMENTS:
                raise ValueError(f"{self.each.shown} finds {len(elements)} elements, more than {MAX_ELEMENTS}")
            for element in elements:
                yield self._sample(scope, {**root, ELEMENT: element})
        elif self.lookup:
            yield from self._lookup_samples(scope)
        else:
            yield self._sample(scope, root)

    def _sample(self, scope: Scope, root: dict[str, Any]) -> Sample:
        fields = self.fields
        meter = self._constant
        if meter is None:
            meter = self._meter_of(fields["name"].first(root), fields["type"].first(root), fields["unit"].first(root))
        if self.deletion is not None and scope.reports(self.deletion, root):
            volume: Any = 0
        else:
            volume = values.number(fields["volume"].first(root), self._labels["volume"])
        return _make_sample(meter, volume, scope.common(self._common, root), scope)

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
        for number in range(count):
            found = {name: column[number] for name, column in columns.items()}
            meter = self._meter_of(found["name"], found["type"], found["unit"])
            volume = values.number(found["volume"], self._labels["volume"])
            yield _make_sample(meter, volume, self._common.values(found, scope, scope.root), scope)

    def _meter_of(self, name: Any, kind: Any, unit: Any) -> tuple[str, Any, str]:
        """Return the meter with what was found; raises ``ValueError`` for a bad value."""
        labels = self._labels
        name = values.text(name, labels["name"])
        if self.names and name not in self.names:
            raise ValueError(
                f"{labels['name']} gives {name!r:.80}, which is not one of {', '.join(sorted(self.names))}"
            )
        return name, kind, values.text(unit, labels["unit"])


def _make_sample(meter: tuple[str, Any, str], volume: int | float, common: CommonValues, scope: Scope) -> Sample:
    name, kind, unit = meter
    return Sample(
        name=name,
        type=kind,
        unit=unit,
        volume=volume,
        resource_id=common.resource_id,
        user_id=common.user_id,
        project_id=common.project_id,
        timestamp=common.timestamp,
        resource_metadata=common.metadata,
        message_id=scope.notification.message_id,
    )


class DefinitionResult(msgspec.Struct, frozen=True):
    """The samples that the definition at ``origin`` made from a notification, or the ``reason`` why it could not."""

    origin: str
    samples: tuple[Sample, ...]
    reason: str = ""
