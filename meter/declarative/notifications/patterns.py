"""Patterns of event types: which definitions want a notification, found in one pass however many there are.

This module alone imports RE2, whose matching takes a time proportional to the text whatever the pattern: a definition
that would backtrack for ever in :mod:`re` is merely matched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import re2

LONGEST_PATTERN = 1000
"""Characters; RE2's memory grows with the pattern."""

KNOWN_EVENT_TYPES = 1024
"""Event types whose definitions are remembered; others are matched again."""

_LOOKAHEAD = re.compile(r"(?P<before>(?:[\w.:-]|\\[.\w-])*)\(\?!(?P<without>[^()]*)\)(?P<after>.*)", re.DOTALL)
_PREFIX = re.compile(r"(?:[\w:-]|\\\.|\.)(?![*+?{])")


class BadPattern(ValueError):
    """A pattern that cannot be used; the text says why and what would be right."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Event types that match ``wanted`` from their start and, if there is one, do not match ``unwanted``: RE2 both.

    ``shell`` is a shell pattern that matches at least as much: what the listener asks the collector for.
    """

    wanted: str
    unwanted: str | None
    shell: str


def shell_pattern(text: str) -> Pattern:
    """Return the pattern of a shell pattern with ``*`` and ``?``."""
    if len(text) > LONGEST_PATTERN or not text or "[" in text:
        raise BadPattern(
            f"should be an event type of at most {LONGEST_PATTERN} characters, with * and ?, not {text:.60}"
        )
    parts = [".*" if part == "*" else "." if part == "?" else re2.escape(part) for part in re.split(r"([*?])", text)]
    return Pattern(f"(?s:{''.join(parts)})$", None, text)


def regular_expression(text: str) -> Pattern:
    """Return the pattern of a regular expression as in ``meters.yaml``: it matches from the start, and need not reach the end.

    RE2 knows no ``(?!…)``. Where what stands before it has one length, ``a(?!b)c`` is ``ac`` and not ``ab``.
    """
    if len(text) > LONGEST_PATTERN:
        raise BadPattern(f"should have at most {LONGEST_PATTERN} characters, not {len(text)}")
    lookahead = _LOOKAHEAD.fullmatch(text)
    if lookahead:
        wanted = lookahead["before"] + lookahead["after"]
        unwanted: str | None = f"{lookahead['before']}(?:{lookahead['without']})"
    else:
        wanted, unwanted = text, None
    for expression in filter(None, (wanted, unwanted)):
        try:
            re2.compile(expression, _quiet())
        except re2.error as error:
            why = error.args[0].decode() if isinstance(error.args[0], bytes) else error
            advice = "use a regular expression of RE2; (?!…) may stand once, after text without * + ? or groups"
            raise BadPattern(f"{text!r:.80} is no pattern ({why}): {advice}") from error
    return Pattern(wanted, unwanted, _shell_beginning(text))


def _quiet() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    return options


def _shell_beginning(text: str) -> str:
    """Return a shell pattern of the part of a regular expression that is plain, and anything after it."""
    if "|" in re.sub(r"\([^()]*\)", "", text):
        return "*"
    beginning, end = "", 0
    while plain := _PREFIX.match(text, end):
        beginning += {".": "?"}.get(plain[0], plain[0].removeprefix("\\"))
        end = plain.end()
    return beginning + "*"


class PatternIndex:
    """Finds which of many owners, numbered from 0, want an event type."""

    def __init__(self, owners: Sequence[Iterable[Pattern]]) -> None:
        self._meanings: list[tuple[int, bool, int]] = []
        self._set = re2.Set.MatchSet()
        for owner, patterns in enumerate(owners):
            for number, pattern in enumerate(patterns):
                self._add(pattern.wanted, (owner, True, number))
                if pattern.unwanted is not None:
                    self._add(pattern.unwanted, (owner, False, number))
        if self._meanings:
            self._set.Compile()
        self.wanting = lru_cache(KNOWN_EVENT_TYPES)(self._wanting)

    def _add(self, expression: str, meaning: tuple[int, bool, int]) -> None:
        self._set.Add(expression)
        self._meanings.append(meaning)

    def _wanting(self, event_type: str) -> tuple[int, ...]:
        """Return the numbers of the owners with a pattern that matches, ascending."""
        if not self._meanings:
            return ()
        matched = {self._meanings[index] for index in self._set.Match(event_type) or ()}
        return tuple(
            sorted({owner for owner, wants, number in matched if wants and (owner, False, number) not in matched})
        )
