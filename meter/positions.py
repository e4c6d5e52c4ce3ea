"""How messages name a place in a document: people count the entries of a list from 1."""

from __future__ import annotations

from collections.abc import Iterable


def counted_from_one(place: Iterable[str | int]) -> list[str]:
    """Return the keys, and the positions in lists, of ``place`` as text: ``["tiers", "2", "up_to"]`` for the second tier."""
    return [str(each + 1) if isinstance(each, int) else each for each in place]
