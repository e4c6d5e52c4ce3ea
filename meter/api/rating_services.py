"""What the API needs for rating besides the store: files of the operator, read by collaborators."""

from __future__ import annotations

from dataclasses import dataclass

from meter.rating.statements.published_keys import PublishedKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingServices:
    """The public ``keys`` of statements; previews have the corrections of the last ``correct_periods`` closed periods."""

    keys: PublishedKeys
    correct_periods: int = 0
