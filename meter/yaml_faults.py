"""What is wrong with a text that is no YAML, without the text itself: files of definitions and of clouds hold passwords and tokens."""

from __future__ import annotations

import re

import yaml

_QUOTED = re.compile(r"""(['"])(?:(?!\1).)*\1""")
"""A name, tag or alias of the text, a single character, or a kind of tokens such as ``'<scalar>'``."""

_CHARACTER = len(r"'\t'")


def yaml_fault(error: yaml.YAMLError) -> str:
    """Return what ``error`` says, and where, but none of the lines that it shows."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return "it has a character that YAML does not allow"
    parts = []
    for text, mark in ((error.context, error.context_mark), (error.problem, error.problem_mark)):
        if text:
            place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            parts.append(f"{_QUOTED.sub(_shown, text)}{place}")
    return ", ".join(parts)


def _shown(quoted: re.Match[str]) -> str:
    """Return a character or a kind of tokens, and no more of the text."""
    return quoted[0] if len(quoted[0]) <= _CHARACTER or quoted[0][1] == "<" else "…"


def yaml_fault_line(error: yaml.YAMLError) -> int | None:
    """Return the line, from 1, where the text is wrong, if ``error`` tells it."""
    mark = getattr(error, "problem_mark", None)
    return mark.line + 1 if mark else None
