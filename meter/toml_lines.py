"""In which lines of a TOML file its tables and keys stand: :mod:`tomllib` does not tell."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_left
from collections.abc import Mapping

Path = tuple[str | int, ...]
"""Keys, and positions in arrays: ``("price", 2, "tiers", 0, "up_to")``."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL = re.compile(r"'[^']*'")
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})(?!")', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'''(?:'{0,2})(?!')", re.DOTALL)
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*|[^\s,\]}#]+")
_BLANK = re.compile(r"[ \t]*")
_SPACE = re.compile(r"(?:[\s,]|#[^\n]*)*")


def toml_lines(text: str) -> dict[Path, int]:
    """Return the lines, from 1, of all tables and keys of ``text``, which must be valid TOML."""
    return _LineScanner(text).lines


def toml_fault_line(text: str, error: tomllib.TOMLDecodeError) -> int:
    """Return the line, from 1, where ``text`` is no TOML, as the text of the error tells it."""
    found = re.search(r"\(at line (\d+),", str(error))
    return int(found[1]) if found else len(text.splitlines())  # "at end of document"


def innermost_line(lines: Mapping[Path, int], path: Path) -> int:
    """Return the line of what stands at ``path``, or else of the innermost thing around it; 1 if there is none."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _LineScanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._arrays: dict[Path, int] = {}
        prefix: Path = ()
        self._skip(_SPACE)
        while self._at < len(text):
            if text.startswith("[", self._at):
                prefix = self._header()
            else:
                self._pair(prefix)
            self._skip(_SPACE)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if match := pattern.match(self._text, self._at):
            self._at = match.end()

    def _record(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, bisect_left(self._breaks, at) + 1)

    def _header(self) -> Path:
        start = self._at
        is_array = self._text.startswith("[[", start)
        self._at += 2 if is_array else 1
        path: Path = ()
        keys = self._keys()
        for number, key in enumerate(keys):
            path = (*path, key)
            if is_array and number == len(keys) - 1:
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
            self._record(path, start)
        self._at += 2 if is_array else 1
        return path

    def _pair(self, prefix: Path) -> None:
        start = self._at
        path = prefix
        for key in self._keys():
            path = (*path, key)
            self._record(path, start)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            quote = self._text[self._at]
            pattern = {'"': _BASIC, "'": _LITERAL}.get(quote, _BARE_KEY)
            match = pattern.match(self._text, self._at)
            assert match is not None, "the text is no TOML"
            self._at = match.end()
            keys.append(tomllib.loads(f"x = {match[0]}")["x"] if quote in "\"'" else match[0])
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first == "[":
            self._at += 1
            self._skip(_SPACE)
            number = 0
            while self._text[self._at] != "]":
                self._record((*path, number), self._at)
                self._value((*path, number))
                number += 1
                self._skip(_SPACE)
            self._at += 1
        elif first == "{":
            self._at += 1
            self._skip(_SPACE)
            while self._text[self._at] != "}":
                self._pair(path)
                self._skip(_SPACE)
            self._at += 1
        elif self._text.startswith('"""', self._at):
            self._skip(_LONG_BASIC)
        elif self._text.startswith("'''", self._at):
            self._skip(_LONG_LITERAL)
        else:
            self._skip({'"': _BASIC, "'": _LITERAL}.get(first, _SCALAR))
