"""Decodes large JSON in steps of limited size.

The decoder of a JSON library is one call that holds Python's global lock until it returns: for 8 MB of small values more
than half a second, in which no other thread runs, not even the reactor's. Here no single call decodes more than
:data:`STEP_CHARACTERS`, so a thread that decodes gives way to the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

STEP_CHARACTERS = 32 * 1024
"""Maximum length of a value that is decoded by one call; a longer mapping or list is decoded member by member."""

FIRST_STEP_CHARACTERS = 2048
"""A first attempt: most values of a large list are short, and a step copies its text."""

MAX_STEPPED_DEPTH = 32
"""Maximum number of nested mappings and lists that are longer than a step."""

_BLANKS = re.compile(r"[ \t\n\r]*")


class NotJson(ValueError):
    """The text is not JSON, or is nested too deeply; the message says where."""


def separators(body: bytes) -> int:
    """Return an upper bound of the number of values in JSON ``body``: commas, colons in texts included, and brackets."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


class IncrementalDecoder:
    """Decodes like ``json.loads`` with these functions for numbers. An object with a repeated name has its last value."""

    def __init__(
        self,
        parse_float: Callable[[str], Any] | None = None,
        parse_constant: Callable[[str], Any] | None = None,
    ) -> None:
        self._decode = json.JSONDecoder(parse_float=parse_float, parse_constant=parse_constant).raw_decode

    def decode(self, text: str) -> Any:
        """Return the value of ``text``; raises :class:`NotJson`."""
        value, end = self._value(text, _after_blanks(text, 0), MAX_STEPPED_DEPTH)
        if _after_blanks(text, end) != len(text):
            raise NotJson(f"more text after the value, at character {end}")
        return value

    def _value(self, text: str, start: int, levels: int) -> tuple[Any, int]:
        """Return the value that begins at ``start``, and where it ends."""
        for length in (FIRST_STEP_CHARACTERS, STEP_CHARACTERS):
            step = text[start : start + length]
            complete = start + length >= len(text)
            try:
                value, used = self._decode(step)
            except json.JSONDecodeError as error:
                if complete and length == STEP_CHARACTERS:
                    raise NotJson(f"{error.msg} at character {start + error.pos}") from error
            except RecursionError as error:
                raise NotJson(f"nested too deeply at character {start}") from error
            except ValueError as error:
                raise NotJson(f"{error}, at character {start}") from error
            else:
                # A number that ends with the step may go on after it.
                if complete or used < len(step):
                    return value, start + used
        first = text[start : start + 1]
        if first == '"':
            return _long_text(text, start)
        if first not in ("{", "["):
            raise NotJson(f"no value of at most {STEP_CHARACTERS} characters at character {start}")
        if not levels:
            raise NotJson(f"nested too deeply at character {start}")
        return (self._mapping if first == "{" else self._list)(text, start + 1, levels - 1)

    def _mapping(self, text: str, start: int, levels: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        position = _after_blanks(text, start)
        if text[position : position + 1] == "}":
            return found, position + 1
        while True:
            if text[position : position + 1] != '"':
                raise NotJson(f"expected a name at character {position}")
            name, position = self._value(text, position, levels)
            position = _after(text, position, ":")
            found[name], position = self._value(text, position, levels)
            position = _after_blanks(text, position)
            if text[position : position + 1] == "}":
                return found, position + 1
            position = _after(text, position, ",")

    def _list(self, text: str, start: int, levels: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        position = _after_blanks(text, start)
        if text[position : position + 1] == "]":
            return found, position + 1
        while True:
            value, position = self._value(text, position, levels)
            found.append(value)
            position = _after_blanks(text, position)
            if text[position : position + 1] == "]":
                return found, position + 1
            position = _after(text, position, ",")


def _after_blanks(text: str, start: int) -> int:
    found = _BLANKS.match(text, start)
    return start if found is None else found.end()


def _after(text: str, start: int, sign: str) -> int:
    """Return where the next token after ``sign`` begins; blanks around it are skipped."""
    position = _after_blanks(text, start)
    if text[position : position + 1] != sign:
        raise NotJson(f"expected {sign!r} at character {position}")
    return _after_blanks(text, position + 1)


def _long_text(text: str, start: int) -> tuple[str, int]:
    """Return a text longer than a step. msgspec decodes escapes ten times as fast as ``json``."""
    end = start + 1
    while True:
        end = text.find('"', end)
        if end < 0:
            raise NotJson(f"unterminated text at character {start}")
        before = end - 1
        while text[before] == "\\":
            before -= 1
        if (end - before) % 2:
            break
        end += 1
    try:
        return msgspec.json.decode(text[start : end + 1], type=str), end + 1
    except (msgspec.DecodeError, UnicodeError) as error:
        raise NotJson(f"{error}, in the text at character {start}") from error
