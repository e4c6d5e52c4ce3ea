"""Keys of lines: the same usage or charge has the same key in every rating of a period."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote


def line_key(*parts: str) -> str:
    """Return ``parts`` joined by ``/``, each percent-encoded."""
    return "/".join(quote(part, safe="") for part in parts)


def values_part(values: Mapping[str, str]) -> str:
    """Return the values of a line as one part of its key: ``flavor=m1.small&state=active``."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(values.items()))
