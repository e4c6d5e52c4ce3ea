"""The canonical form of a statement piece by piece, for readers that must not work at one thing for long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rfc8785

from meter.rating.statements.statement import Statement
from meter.rating.statements.statement import builtins


def canonical_parts(statement: Statement) -> Iterator[bytes]:
    """Yield the canonical form (RFC 8785) of ``statement``: joined, the parts are what is signed. A part has at most one line."""
    before = b"{"
    # The names of the fields are ASCII: their order by code units is that of strings.
    for name in sorted(statement.__struct_fields__):
        yield before + rfc8785.dumps(name) + b":"
        value: Any = getattr(statement, name)
        if isinstance(value, tuple):
            yield from _list(value)
        else:
            yield rfc8785.dumps(builtins(value))
        before = b","
    yield b"}"


def _list(items: tuple[Any, ...]) -> Iterator[bytes]:
    before = b"["
    for item in items:
        yield before + rfc8785.dumps(builtins(item))
        before = b","
    yield b"]" if items else b"[]"
