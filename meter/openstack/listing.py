"""Listings: what they are asked for, a page of one, and seeing that their pages lead round in a circle."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any

Item = Mapping[str, Any]
"""One entry of a listing, as the service gave it: anything may be missing or wrong in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A listing of a service: ``Listing(service="image", version="v2", path="images", key="images")``.

    ``key`` holds the entries. ``sized`` is whether the service may be told how many entries a page should have.
    """

    service: str
    version: str
    path: str
    key: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    sized: bool = True

    def __hash__(self) -> int:
        return hash((self.service, self.path))


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a listing, and when they came: an aware ``datetime``."""

    items: Sequence[Item]
    received_at: datetime


class LoopDetector:
    """Sees that a walk goes in circles, and remembers one step only (Brent's way)."""

    def __init__(self) -> None:
        self._landmark: object = None
        self._steps = 0
        self._next_landmark = 1

    def seen(self, place: object) -> bool:
        """Take the next ``place``; return whether the walk was there before, at the latest in its third round."""
        if place == self._landmark:
            return True
        self._steps += 1
        if self._steps == self._next_landmark:
            self._landmark = place
            self._next_landmark *= 2
        return False
