"""What ``meter-import`` imports from: pages of samples, and of records that are no samples, with the mark after each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any
from typing import Protocol
from uuid import UUID
from uuid import uuid5

from meter.sample import Sample

NAMESPACE = UUID("0c6bd6a5-0f4c-5e0b-9a3c-6f6f2c1d7a41")
"""Namespace of the ids of imported samples whose source has none. Never change it: an import that is repeated would store each
sample again."""

IMPORTED_FROM = "imported_from"
"""The member of the metadata of imported samples that names what they were imported from."""

PAGE_SAMPLES = 1000
"""Samples in a page, and at most in memory at a time."""


class ImportSourceError(Exception):
    """The source is not what the command expects, and will not be the next time; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class SourceSample:
    """A sample and the name of its record in the source, such as ``sample 4711``."""

    record: str
    sample: Sample


@dataclass(frozen=True, slots=True)
class NotImported:
    """A record that is not imported. ``details`` are what is known of it, as JSON."""

    record: str
    meter: str
    reason: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SourcePage:
    """The next records of a source. ``mark`` is the position after them, from which an import is resumed; ``None`` if that is possible
    only after a later page.

    ``done`` is by how much the progress advances, in the unit of the source.
    """

    samples: Sequence[SourceSample]
    not_imported: Sequence[NotImported]
    mark: Any
    done: int


@dataclass(frozen=True, slots=True)
class ImportSelection:
    """Which samples are imported: those of a time, ``until`` exclusive, and of the meters that match a shell pattern; none for all."""

    since: datetime | None
    until: datetime
    meters: tuple[str, ...] = ()

    def has_meter(self, name: str) -> bool:
        """Return whether samples of this meter are imported."""
        return not self.meters or any(fnmatchcase(name, pattern) for pattern in self.meters)

    def has_time(self, timestamp: datetime) -> bool:
        """Return whether samples of this time are imported."""
        return (self.since is None or self.since <= timestamp) and timestamp < self.until


class ImportSource(Protocol):
    """A source of samples. ``identity`` distinguishes it from others, as JSON without secrets; ``unit`` is what its progress counts."""

    identity: Mapping[str, Any]
    unit: str

    async def open(self) -> None:
        """Connect; raises :class:`ImportSourceError`, or :class:`~meter.interfaces.Unavailable`."""

    async def total(self, mark: Any) -> int:
        """Return how far the progress goes from ``mark``, ``None`` from the beginning."""

    def pages(self, mark: Any) -> AsyncIterator[SourcePage]:
        """Yield what follows ``mark``, always in the same order."""

    async def close(self) -> None:
        """Disconnect."""


def derived_id(*parts: str) -> str:
    """Return the id of the sample that ``parts`` identify, the same each time it is imported."""
    return str(uuid5(NAMESPACE, "\0".join(parts)))
