"""What PostgreSQL cannot store, and a store in memory refuses too."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any


def unstorable(value: Any) -> str | None:
    """Return why PostgreSQL cannot store ``value``, any JSON: a NUL or half of a surrogate pair; ``None`` if it can."""
    if isinstance(value, str):
        if "\0" in value:
            return f"a text holds a NUL character: {value[:80]!r}"
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"a text holds half of a surrogate pair: {value[:80]!r}"
        return None
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = (*value, *value.values())
    elif isinstance(value, list | tuple):
        inner = value
    return next((reason for reason in map(unstorable, inner) if reason is not None), None)
