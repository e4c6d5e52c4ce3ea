"""Patterns of event types: finds the definitions that want an event type in one pass, however many there are.

Matching uses RE2, which takes time linear in the text for every pattern: a pattern on which :mod:`re` would backtrack
without end does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import re2

MAX_PATTERN = 1000
"""Maximum length of a pattern, in characters, because RE2's memory grows with the pattern."""

CACHED_EVENT_TYPES = 1024
"""Event types whose matching definitions are cached."""

_LOOKAHEAD = re.compile(r"(?P<before>(?:[\w.:-]|\\[.\w-])*)\(\?!(?P<without>[^()]*)\)(?P<after>.*)", re.DOTALL)
_PREFIX = re.compile(r"(?:[\w:-]|\\\.|\.)(?![*+?{])")


class BadPattern(ValueError):
    """An invalid pattern; the text says why and what is allowed."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Event types that match ``wanted`` from their start and do not match ``unwanted``; both are in RE2's syntax.

    ``shell`` is a shell pattern that matches at least these event types, for ``IListener.event_types``.
    """

    wanted: str
    unwanted: str | None
    shell: str


def shell_pattern(text: str) -> Pattern:
    """Return the :class:`Pattern` of a shell pattern with ``*`` and ``?``; raises :class:`BadPattern`."""
    if len(text) > MAX_PATTERN or not text or "[" in text:
        raise BadPattern(f"should be an event type of at most {MAX_PATTERN} characters, with * and ?, not {text:.60}")
    parts = [".*" if part == "*" else "." if part == "?" else re2.escape(part) for part in re.split(r"([*?])", text)]
    return Pattern(f"(?s:{''.join(parts)})$", None, text)


def regular_expression(text: str) -> Pattern:
    """Return the :class:`Pattern` of a regular expression in ``meters.yaml``, which matches a prefix of the event type.

    RE2 does not support ``(?!…)``. If the part before it has a fixed length, ``a(?!b)c`` is converted into ``ac`` and not
    ``ab``. Raises :class:`BadPattern`.
    """
    if len(text) > MAX_PATTERN:
        raise BadPattern(f"should have at most {MAX_PATTERN} characters, not {len(text)}")
    lookahead = _LOOKAHEAD.fullmatch(text)
    if lookahead:
        wanted = lookahead["before"] + lookahead["after"]
        unwanted: str | None = f"{lookahead['before']}(?:{lookahead['without']})"
    else:
        wanted, unwanted = text, None
    for expression in filter(None, (wanted, unwanted)):
        try:
            re2.compile(expression, _options())
        except re2.error as error:
            why = error.args[0].decode() if isinstance(error.args[0], bytes) else error
            advice = "use RE2 syntax; (?!…) is allowed once, after text without * + ? or groups"
            raise BadPattern(f"{text!r:.80} is not a valid pattern ({why}): {advice}") from error
    return Pattern(wanted, unwanted, _shell_beginning(text))


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    return options


def _shell_beginning(text: str) -> str:
    """Return a shell pattern: the literal beginning of a regular expression, and ``*``."""
    if "|" in re.sub(r"\([^()]*\)", "", text):
        return "*"
    beginning, end = "", 0
    while plain := _PREFIX.match(text, end):
        beginning += {".": "?"}.get(plain[0], plain[0].removeprefix("\\"))
        end = plain.end()
    return beginning + "*"


class PatternIndex:
    """Finds the owners, numbered from 0, of the patterns that match an event type."""

    def __init__(self, owners: Sequence[Iterable[Pattern]]) -> None:
        self._expressions: list[tuple[int, bool, int]] = []
        self._set = re2.Set.MatchSet()
        for owner, patterns in enumerate(owners):
            for number, pattern in enumerate(patterns):
                self._add(pattern.wanted, (owner, True, number))
                if pattern.unwanted is not None:
                    self._add(pattern.unwanted, (owner, False, number))
        if self._expressions:
            self._set.Compile()
        self.wanting = lru_cache(CACHED_EVENT_TYPES)(self._wanting)

    def _add(self, expression: str, owner: tuple[int, bool, int]) -> None:
        self._set.Add(expression)
        self._expressions.append(owner)

    def _wanting(self, event_type: str) -> tuple[int, ...]:
        """Return the numbers of the owners with a matching pattern, ascending."""
        if not self._expressions:
            return ()
        matched = {self._expressions[index] for index in self._set.Match(event_type) or ()}
        return tuple(
            sorted({owner for owner, wants, number in matched if wants and (owner, False, number) not in matched})
        )
