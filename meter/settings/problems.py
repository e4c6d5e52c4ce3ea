"""Errors in the configuration as lines of text: where each is, what is wrong, what would be right."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from meter.positions import counted_from_one
from meter.settings.masked import masked
from meter.settings.masked import masked_settings
from meter.settings.plain_words import plain
from meter.settings.plain_words import toml_text
from meter.settings.root import Config
from meter.toml_lines import toml_lines

SECRETS = frozenset({"key", "url", "dsn", "password", "application_credential_secret", "token", "secret", "sha256"})
"""Settings whose values are not shown; what is no ``sha256`` may be the token itself."""

LISTS_WITH_SECRETS = frozenset({"keys", "tokens", "webhooks"})
"""Settings that are arrays of tables with secrets: what stands there instead may be a secret."""

NOT_A_TABLE = frozenset({"model_type", "model_attributes_type", "dict_type"})
"""Errors about a value that should be a table; it may be what should stand in the table."""

_PLACE = re.compile(r"\[(?P<section>[^\]]*)\](?: (?P<key>[\w.-]+):)?")


class ConfigError(Exception):
    """An unusable configuration. ``problems`` has a line of text for each error."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def problem_of(detail: ErrorDetails) -> str:
    """Return one line for an error of pydantic, beginning with section and key."""
    parts = counted_from_one(part for part in detail["loc"] if part != "[key]")
    if len(parts) > 2 and isinstance(detail["loc"][-1], int):
        parts[-2:] = [f"{parts[-2]}.{parts[-1]}"]  # an element of an array
    *section, name = parts
    where = f"[{'.'.join(section)}] {name}" if section else f"[{name}]"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown {'key' if section else 'section'}{_suggestion(section, name)}"
    if detail["type"] == "missing":
        return f"{where}: is missing"
    may_be_secret = name in SECRETS or name in LISTS_WITH_SECRETS or detail["type"] in NOT_A_TABLE
    is_shown = not isinstance(detail["input"], dict | list) and not may_be_secret
    given = f", not {toml_text(masked_settings(detail['input']))}" if is_shown else ""
    return f"{where}: {plain(detail['msg'])}{given}"


def placed(problems: Sequence[str], path: str, text: str) -> list[str]:
    """Return ``problems`` with the name of the file, and the line in its ``text`` where section and key of each stand."""
    lines = {".".join(counted_from_one(place)): line for place, line in toml_lines(text).items()}
    return [f"{path}{_line(problem, lines)}: {masked(problem)}" for problem in problems]


def placed_in_file(problems: Sequence[str], path: str | None) -> list[str]:
    """Return ``problems`` of what was loaded from the file at ``path``, with its name and the lines; ``None`` for the defaults."""
    text = ""
    if path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            tomllib.loads(text)
        except (OSError, ValueError, RecursionError):  # it was changed meanwhile
            text = ""
    return placed(problems, path or "built-in defaults", text)


def _line(problem: str, lines: Mapping[str, int]) -> str:
    """Return the line of the key, if it is in the file, or else of the innermost table around it, as text."""
    matched = _PLACE.match(problem)
    if matched is None:
        return ""
    section, key = matched["section"], matched["key"]
    parts = key.split(".") if key else []
    places = [".".join((section, *parts[:length])) for length in range(len(parts) + 1)]
    # Where a table should stand there may be an array of tables, whose lines are those of its elements.
    places.append(f"{places[-1]}.1")
    found = max((place for place in places if place in lines), key=len, default=None)
    return f", line {lines[found]}" if found else ""


def _suggestion(section: Sequence[str], name: str) -> str:
    """Return which known key of ``section`` may be meant by ``name``, as the end of a sentence."""
    model: Any = Config
    is_element = False  # whether the next part is a position in an array, or a free name in a table
    for part in section:
        if is_element:
            is_element = False
            continue
        annotation = model.model_fields[part].annotation if model and part in model.model_fields else None
        elements = [each for each in get_args(annotation) if _is_model(each)]
        model = next((each for each in (annotation, *elements) if _is_model(each)), None)
        is_element = bool(elements)
    known = list(model.model_fields) if model else []
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(known)}" if known else ""


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
