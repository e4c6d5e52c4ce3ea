"""Patterns of texts in queries: a subset of RE2's syntax that RE2 and PostgreSQL match alike, in time linear in the text.

A pattern is parsed, checked and written again in a form that both engines read the same way. PostgreSQL runs such a form as a
finite automaton, because it has no back-references and no look-around, and its size is bounded: repetitions with a count
repeat what they apply to, so they count as often as they repeat.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import re2

from meter.interfaces import RequestError

MAX_REPETITIONS = 255
"""Maximum count in ``{n,m}``, which is PostgreSQL's."""

MAX_PATTERN_STATES = 1000
"""Maximum number of characters and classes of a pattern, with those in a repetition counted as often as it repeats."""

MAX_GROUP_DEPTH = 50
MAX_PROGRAM_BYTES = 1 << 20
"""Maximum memory of RE2's program for a pattern."""

CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\t\n\f\r "}
"""Characters of the classes ``\\d``, ``\\w`` and ``\\s``: ASCII, in RE2 and in PostgreSQL's collation ``C``."""

POSIX_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": "\t ",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": "\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
CONTROL = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
ANCHORS = {"A": "^", "z": "$"}
_COUNTED = re.compile(r"\{(\d{1,6})(,)?(\d{1,6})?\}")
_HEXADECIMAL = re.compile(r"x(?:\{([0-9A-Fa-f]{1,8})\}|([0-9A-Fa-f]{2}))")
_GROUP_NAME = re.compile(r"\(\?P?<(?![=!])\w{1,64}>")
_FLAGS = re.compile(r"\(\?([a-zA-Z-]*)([:)])")
_SPECIAL = frozenset(r"\.+*?()|[]{}^$")


@dataclass(frozen=True, slots=True)
class TextPattern:
    """A checked pattern. ``text`` is its form for RE2 and for PostgreSQL's operator ``~``, in which ``.`` matches a newline too."""

    text: str

    def matches(self, value: str) -> bool:
        """Return whether the pattern matches anywhere in ``value``."""
        return _program(self.text).search(value.encode("utf-8", "replace")) is not None


@lru_cache(maxsize=256)
def text_pattern(given: str) -> TextPattern:
    """Return ``given`` as a pattern; :class:`RequestError` if it is invalid, unsupported or too large."""
    text = _PatternParser(given).parse()
    _program(text)
    return TextPattern(text)


@lru_cache(maxsize=256)
def _program(text: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.dot_nl = True
    options.max_mem = MAX_PROGRAM_BYTES
    try:
        return re2.compile(text.encode("utf-8", "replace"), options)
    except re2.error as error:
        why = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else error
        raise RequestError(f"the pattern is not a regular expression in the syntax of RE2: {why}") from error


class _PatternParser:
    """Parses one pattern by recursive descent; each method returns the new text and the number of its states."""

    def __init__(self, given: str) -> None:
        self._given = given
        self._at = 0
        self._ignore_case = False

    def parse(self) -> str:
        while flags := _FLAGS.match(self._given, self._at):
            if flags[2] == ":" or not flags[1] or set(flags[1]) - {"i", "s"}:
                break
            self._ignore_case |= "i" in flags[1]
            self._at = flags.end()
        text, states = self._alternatives(0)
        if self._at < len(self._given):
            raise self._invalid("it has a closing parenthesis too many")
        self._check_size(states)
        return text

    def _invalid(self, why: str) -> RequestError:
        return RequestError(f"{self._given[:80]!r} is not a regular expression of the supported syntax: {why}")

    def _check_size(self, states: int) -> None:
        if states > MAX_PATTERN_STATES:
            raise self._invalid(
                f"with its repetitions written out it has more than {MAX_PATTERN_STATES} characters and classes"
            )

    def _next(self, text: str) -> bool:
        return self._given.startswith(text, self._at)

    def _alternatives(self, depth: int) -> tuple[str, int]:
        if depth > MAX_GROUP_DEPTH:
            raise self._invalid(f"groups are nested more than {MAX_GROUP_DEPTH} levels deep")
        branches = [self._branch(depth)]
        while self._next("|"):
            self._at += 1
            branches.append(self._branch(depth))
        return "|".join(text for text, _ in branches), sum(states for _, states in branches)

    def _branch(self, depth: int) -> tuple[str, int]:
        texts, total = [], 0
        while self._at < len(self._given) and self._given[self._at] not in "|)":
            text, states, can_repeat = self._atom(depth)
            text, states = self._repeated(text, states, can_repeat)
            texts.append(text)
            total += states
        # PostgreSQL refuses an empty branch in a group, so it is written as an empty group.
        return "".join(texts) or ("(?:)" if self._given else ""), total

    def _atom(self, depth: int) -> tuple[str, int, bool]:
        """Return the next atom, its states and whether it can be repeated."""
        character = self._given[self._at]
        if character == "(":
            return self._group(depth)
        if character == "[":
            return self._bracket(), 1, True
        if character == "\\":
            return self._escape()
        self._at += 1
        if character in "^$":
            return character, 0, False
        if character == ".":
            return ".", 1, True
        if character in "*+?":
            raise self._invalid(f"{character} has nothing to repeat")
        return self._literal(character), 1, True

    def _group(self, depth: int) -> tuple[str, int, bool]:
        if named := _GROUP_NAME.match(self._given, self._at):
            self._at = named.end()
        elif self._next("(?:"):
            self._at += 3
        elif self._given.startswith(("(?=", "(?!", "(?<=", "(?<!"), self._at):
            raise self._invalid("look-around, such as (?=…) and (?!…), is not supported")
        elif self._next("(?"):
            raise self._invalid(
                "of the groups with (?, only (?:…), named groups, and (?i) at the beginning are supported"
            )
        else:
            self._at += 1
        text, states = self._alternatives(depth + 1)
        if not self._next(")"):
            raise self._invalid("a group is not closed")
        self._at += 1
        return f"(?:{text})", states + 1, text != "(?:)"

    def _repeated(self, text: str, states: int, can_repeat: bool) -> tuple[str, int]:
        counted = _COUNTED.match(self._given, self._at)
        if counted is None and not (self._at < len(self._given) and self._given[self._at] in "*+?"):
            return text, states
        if not can_repeat:
            raise self._invalid("an anchor or an empty group cannot be repeated")
        if counted is None:
            repetition, times = self._given[self._at], 1
            self._at += 1
        else:
            least, most = int(counted[1]), int(counted[3] or counted[1])
            if not least <= most <= MAX_REPETITIONS:
                raise self._invalid(f"{counted[0]} is not a repetition from 0 to {MAX_REPETITIONS}")
            repetition, times = counted[0], max(most, 1)
            self._at = counted.end()
        if self._next("?"):  # whether a repetition is greedy makes no difference to whether the pattern matches
            self._at += 1
        if _COUNTED.match(self._given, self._at) or (self._at < len(self._given) and self._given[self._at] in "*+?"):
            raise self._invalid("a repetition cannot be repeated")
        self._check_size(states * times)
        return f"{text}{repetition}", states * times

    def _escape(self) -> tuple[str, int, bool]:
        character = self._given[self._at + 1 : self._at + 2]
        if character in ANCHORS:
            self._at += 2
            return ANCHORS[character], 0, False
        if character.lower() in CLASSES:
            self._at += 2
            return f"[{'^' if character.isupper() else ''}{CLASSES[character.lower()]}]", 1, True
        return self._literal(self._escaped_character()), 1, True

    def _escaped_character(self) -> str:
        """Return the character that an escape stands for."""
        character = self._given[self._at + 1 : self._at + 2]
        if hexadecimal := _HEXADECIMAL.match(self._given, self._at + 1):
            self._at = hexadecimal.end()
            code = int(hexadecimal[1] or hexadecimal[2], 16)
            if not 0 < code <= 0x10FFFF or 0xD800 <= code < 0xE000:
                raise self._invalid(f"\\x{code:x} is not a character of a text")
            return chr(code)
        self._at += 2
        if character in CONTROL:
            return CONTROL[character]
        if character.isdigit():
            raise self._invalid("back-references, such as \\1, and octal numbers are not supported")
        if not character or character.isalnum() or not character.isascii():
            raise self._invalid(f"the escape \\{character} is not supported")
        return character

    def _literal(self, character: str) -> str:
        others = self._other_cases(character)
        if others:
            return f"[{character}{others}]"
        return f"\\{character}" if character in _SPECIAL else character

    def _other_cases(self, character: str) -> str:
        if not self._ignore_case:
            return ""
        cases = {character.lower(), character.upper()} - {character}
        return "".join(sorted(each for each in cases if len(each) == 1))

    def _bracket(self) -> str:
        """Return a bracket expression, written with characters, ranges and escapes only."""
        self._at += 1
        negated = self._next("^")
        self._at += negated
        parts: list[str] = []
        while not parts or not self._next("]"):
            if self._at >= len(self._given):
                raise self._invalid("a bracket expression is not closed")
            parts.append(self._bracket_item())
        self._at += 1
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _bracket_item(self) -> str:
        if self._given.startswith(("[.", "[="), self._at):
            raise self._invalid("collating elements, such as [=a=], are not supported")
        if self._next("[:"):
            name, closed, _ = self._given[self._at + 2 :].partition(":]")
            if not closed or name not in POSIX_CLASSES:
                raise self._invalid(f"[:…:] takes one of {', '.join(POSIX_CLASSES)}")
            self._at += len(name) + 4
            return "A-Za-z" if self._ignore_case and name in ("lower", "upper") else POSIX_CLASSES[name]
        escaped = self._given[self._at + 1 : self._at + 2] if self._next("\\") else ""
        if escaped and escaped.lower() in CLASSES:
            if escaped.isupper():
                raise self._invalid(f"\\{escaped} is not supported within brackets")
            self._at += 2
            return CLASSES[escaped]
        first = self._bracket_character()
        if not self._next("-") or self._given.startswith("-]", self._at):
            return self._in_bracket(first) + "".join(map(self._in_bracket, self._other_cases(first)))
        self._at += 1
        last = self._bracket_character()
        if first > last:
            raise self._invalid(f"{first}-{last} is not a range")
        return f"{self._in_bracket(first)}-{self._in_bracket(last)}{self._other_range(first, last)}"

    def _bracket_character(self) -> str:
        if self._next("\\"):
            return self._escaped_character()
        if self._at >= len(self._given):
            raise self._invalid("a bracket expression is not closed")
        self._at += 1
        return self._given[self._at - 1]

    def _other_range(self, first: str, last: str) -> str:
        """Return the letters of a range in their other case."""
        if not self._ignore_case:
            return ""
        if not last.isascii():
            raise self._invalid("with (?i), the ends of a range must be ASCII characters")
        others = {chr(code).swapcase() for code in range(ord(first), ord(last) + 1) if chr(code).isalpha()}
        return "".join(sorted(each for each in others if not first <= each <= last))

    @staticmethod
    def _in_bracket(character: str) -> str:
        return f"\\{character}" if character in r"\[]^-" else character
