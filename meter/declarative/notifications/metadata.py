"""The metadata that a definition takes from a notification."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from meter.declarative.notifications import values
from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.values import ValueSource

_Read = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Metadata:
    """Defines ``resource_metadata``: names with the source of each, or with nested metadata.

    The source named ``*`` finds a mapping whose members are all copied. ``user`` finds the metadata that the user set on
    the resource; members with the prefix ``metering.`` become ``user_metadata``.
    """

    sources: Mapping[str, ValueSource | Metadata]
    user: ValueSource | None = None
    of_element: bool = field(init=False, repr=False)
    """Whether the metadata may depend on the :data:`~meter.declarative.notifications.values.ELEMENT`."""
    _readers: tuple[tuple[str, str | int | None, _Read], ...] = field(init=False, repr=False)
    """Each name, the member of the payload that has its value, if it is one, and the function that finds the value."""

    def __post_init__(self) -> None:
        """Resolve the reader of each name once, not for each notification."""
        readers = (
            (name, _payload_member(source), source.extract if isinstance(source, Metadata) else source.first)
            for name, source in self.sources.items()
        )
        sources = (*self.sources.values(), *([] if self.user is None else [self.user]))
        object.__setattr__(self, "_readers", tuple(readers))
        object.__setattr__(self, "of_element", any(source.of_element for source in sources))

    def extract(self, scope: dict[str, Any]) -> dict[str, Any]:
        """Return the metadata of a notification; missing values are omitted, nulls are kept."""
        metadata: dict[str, Any] = {}
        payload = scope["payload"]
        direct = isinstance(payload, dict)
        for name, member, read in self._readers:
            value = payload.get(member, MISSING) if direct and member is not None else read(scope)
            if name == "*":
                metadata |= value if isinstance(value, dict) else {}
            elif value is not MISSING:
                metadata[name] = value
        if self.user is not None and (marked := values.user_metadata(self.user.first(scope))):
            metadata["user_metadata"] = marked
        return metadata


def _payload_member(source: ValueSource | Metadata) -> str | int | None:
    """Return ``size`` for a source that is only ``$.payload.size``: most are, and these are read without a call."""
    if isinstance(source, Metadata) or source.prefix or len(source.paths) != 1:
        return None
    steps = source.paths[0].steps or ()
    return steps[1] if len(steps) == 2 and steps[0] == "payload" and isinstance(steps[1], str) else None
