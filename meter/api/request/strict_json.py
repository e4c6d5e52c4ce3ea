"""Strict JSON: rejects duplicate keys in an object, of which decoders silently keep the last."""

from __future__ import annotations

import json
from typing import Any

import msgspec


class BadJson(ValueError):
    """Invalid JSON; the text says why."""


def strict_json(content: bytes | str) -> Any:
    """Return the decoded ``content``; :class:`BadJson` for invalid JSON and for a duplicate key."""
    try:
        msgspec.json.decode(content)  # rejects what json accepts: NaN, lone surrogates, numbers beyond a double
        return json.loads(content, object_pairs_hook=_unique)
    except BadJson:
        raise
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise BadJson(f"invalid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise BadJson(f'duplicate key "{name[:80]}" in an object')
        members[name] = value
    return members
