"""Matchers of labels: ``=``, ``!=``, ``=~`` and ``!~``. Regular expressions match the whole value, in RE2 as in Prometheus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import re2

from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import PromqlError

MatchOperator = Literal["=", "!=", "=~", "!~"]

MAX_PROGRAM_BYTES = 1 << 18
"""Memory of a compiled regular expression, which bounds how long compiling it and matching a value takes."""

_LITERALS = re.compile(
    r"(?:[A-Za-z0-9_ /@:,=#&;~-]|\\[.+*?()|\[\]{}^$\\-])+(?:\|(?:[A-Za-z0-9_ /@:,=#&;~-]|\\[.+*?()|\[\]{}^$\\-])+)*"
)


@dataclass(frozen=True, slots=True)
class LabelMatcher:
    """``label operator value``. A label that a series does not have has the empty value."""

    label: str
    operator: MatchOperator
    value: str

    def matches(self, value: str) -> bool:
        """Return whether a label with this value matches."""
        match self.operator:
            case "=":
                return value == self.value
            case "!=":
                return value != self.value
            case "=~":
                return whole_match(self.value, value)
        return not whole_match(self.value, value)

    @property
    def only_values(self) -> tuple[str, ...] | None:
        """The only values that match, ``None`` if others can. None of them is empty."""
        if self.operator == "=" and self.value:
            return (self.value,)
        alternatives = self.value[1:-1] if self.value[:1] == "(" and self.value[-1:] == ")" else self.value
        if self.operator == "=~" and _LITERALS.fullmatch(alternatives):
            parts = re.split(r"(?<!\\)\|", alternatives) if "\\\\" not in alternatives else None
            return None if parts is None else tuple(re.sub(r"\\(.)", r"\1", part) for part in parts)
        return None


def all_match(matchers: Sequence[LabelMatcher], labels: Labels) -> bool:
    """Return whether a series with ``labels`` meets all ``matchers``."""
    values = dict(labels)
    return all(matcher.matches(values.get(matcher.label, "")) for matcher in matchers)


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re2._Regexp:
    """Return ``pattern``, compiled so that ``fullmatch`` is as in Prometheus; :class:`PromqlError` if it is invalid."""
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.max_mem = MAX_PROGRAM_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        why = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else error
        raise PromqlError("bad_data", f"invalid regular expression {pattern[:80]!r}: {why}") from error


@lru_cache(maxsize=4096)
def whole_match(pattern: str, value: str) -> bool:
    """Return whether ``pattern`` matches all of ``value``."""
    return compiled(pattern).fullmatch(value) is not None
