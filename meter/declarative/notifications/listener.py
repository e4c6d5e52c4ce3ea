"""The listener of a file of definitions."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from zope.interface import implementer

from meter.declarative.notifications.common_fields import Scope
from meter.declarative.notifications.definition import Definition
from meter.declarative.notifications.definition import DefinitionResult
from meter.declarative.notifications.files import read_definitions
from meter.declarative.notifications.patterns import PatternIndex
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import IListener
from meter.interfaces import IPluginContext
from meter.interfaces import Topic
from meter.notification import Notification
from meter.sample import MeterDefinition
from meter.sample import Sample


@implementer(IListener)
class DefinedListener:
    """Makes the samples of one or more ``definitions``. A definition that fails does not affect the others."""

    options: None = None

    def __init__(self, name: str, definitions: Sequence[Definition], exchanges: Sequence[str]) -> None:
        self.name = name
        self.definitions = tuple(definitions)
        self.meters: tuple[MeterDefinition, ...] = tuple(
            dict.fromkeys(meter for each in definitions for meter in each.meters)
        )
        self.topics: tuple[Topic, ...] = tuple(Topic(exchange) for exchange in exchanges)
        shells = [pattern.shell for each in definitions for pattern in each.patterns]
        self.event_types: tuple[str, ...] = tuple(dict.fromkeys(shells))
        self._index = PatternIndex([each.patterns for each in definitions])

    def configured(self, options: None) -> Self:
        """Return itself: it has no options."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return :class:`Enabled`: a subscription without notifications costs nothing."""
        return Enabled()

    def samples(self, notification: Notification) -> Iterator[Sample]:
        """Yield the samples of all definitions, then raise ``ValueError`` with the reasons of those that failed."""
        reasons: dict[str, None] = {}
        for result in self.results(notification):
            yield from result.samples
            if result.reason:
                reasons[result.reason] = None
        if reasons:
            raise ValueError("; ".join(reasons))

    def results(self, notification: Notification) -> Iterator[DefinitionResult]:
        """Yield the result of each definition that wants the event type, in their order."""
        scope = Scope(notification)
        for number in self._index.wanting(notification.event_type):
            definition = self.definitions[number]
            try:
                if not isinstance(notification.payload, dict):
                    raise ValueError(f"payload must be a mapping, not a {type(notification.payload).__name__}")
                yield DefinitionResult(definition.origin, tuple(definition.samples(scope)))
            except ValueError as error:
                yield DefinitionResult(definition.origin, (), str(error))

    def __repr__(self) -> str:
        return f"<listener {self.name}: {len(self.definitions)} definitions>"


def built_in(package_file: str, stem: str) -> DefinedListener:
    """Return the listener of ``<stem>.toml`` in the folder of ``package_file``; raises ``ValueError`` for a bad definition.

    Its name is that of the folder and the file: ``glance.image``.
    """
    folder = Path(package_file).parent
    path = folder / f"{stem}.toml"
    file = read_definitions(path, f"{folder.name}/{path.name}")
    if file.problems:
        raise ValueError("; ".join(file.problems))
    return DefinedListener(f"{folder.name}.{stem}", file.definitions, file.exchanges)
