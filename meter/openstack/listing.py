"""Listings of OpenStack's APIs: which request lists what, a page of entries, and detection of loops in paging."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any

Item = Mapping[str, Any]
"""One entry of a listing as the service sent it: not validated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A listing of a service: ``Listing(service="image", version="v2", path="images", key="images")``.

    ``key`` is the member of the response that holds the entries. ``accepts_limit``: the request may have the query
    parameter ``limit``, the number of entries per page.
    """

    service: str
    version: str
    path: str
    key: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    accepts_limit: bool = True

    def __hash__(self) -> int:
        return hash((self.service, self.path))


@dataclass(frozen=True, slots=True)
class Page:
    """Entries of a listing; ``received_at`` is an aware ``datetime``.

    ``truncated``: the service has more entries and does not say how to get them (Keystone's ``list_limit``).
    """

    items: Sequence[Item]
    received_at: datetime
    truncated: bool = False


class LoopDetector:
    """Detects a loop in a sequence of links with constant memory (Brent's algorithm)."""

    def __init__(self) -> None:
        self._landmark: object = None
        self._steps = 0
        self._next_landmark = 1

    def seen(self, link: object) -> bool:
        """Take the next ``link``; return true if it was seen before, at the latest in the third round of a loop."""
        if link == self._landmark:
            return True
        self._steps += 1
        if self._steps == self._next_landmark:
            self._landmark = link
            self._next_landmark *= 2
        return False
