"""JSON from clients: duplicate names in an object are refused, where decoders silently keep the last one."""

from __future__ import annotations

import json
from typing import Any

import msgspec


class BadJson(ValueError):
    """What is wrong with a text that should be JSON."""


def strict_json(content: bytes | str) -> Any:
    """Return the decoded ``content``; :class:`BadJson` for what is not JSON, and for a name twice in one object."""
    try:
        msgspec.json.decode(content)  # refuses what json takes: NaN, halves of surrogates, numbers beyond floats
        return json.loads(content, object_pairs_hook=_each_once)
    except BadJson:
        raise
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise BadJson(f"it is not JSON: {error}") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise BadJson(f'it has "{name[:80]}" twice in one object')
        members[name] = value
    return members
