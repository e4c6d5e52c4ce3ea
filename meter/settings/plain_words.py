"""The words of pydantic's errors, and values of Python, in words of TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from datetime import time
from typing import Any

PLAIN_WORDS = {
    "Value error, ": "",
    "Input should be": "should be",
    "a valid string": "a text",
    "a valid number": "a number",
    "a valid integer": "a whole number",
    "a valid boolean": "true or false",
    "a valid list": "an array",
    "a valid dictionary": "a table",
    "a valid datetime": "a date and time, such as 2026-11-01T00:00:00Z",
    "List should": "should",
    "String should": "should",
    "Dictionary should": "should",
    ", unable to parse string as a number": "",
    ", unable to parse string as an integer": "",
    ", unable to interpret input": "",
    ", got a number with a fractional part": "",
    " after validation": "",
    "match pattern": "match the regular expression",
}
"""Words of pydantic, and the same in words of TOML."""

_CLASS = re.compile(r" or instance of \w+")
_ALLOWED = re.compile(r"'([^']*)'(?=,| or |$)")
"""A value that is allowed."""

MAX_SHOWN = 80


def plain(message: str) -> str:
    """Return the ``msg`` of an error of pydantic as the end of a sentence that begins with the name of a setting."""
    message = _CLASS.sub("", message)
    for word, plain in PLAIN_WORDS.items():
        message = message.replace(word, plain)
    if message.startswith("should be '"):
        message = _ALLOWED.sub(r'"\1"', message)
    return f"{message[:1].lower()}{message[1:]}"


def toml_text(value: Any) -> str:
    """Return ``value`` as it is written in a TOML file: ``true``, ``"text"``, ``[1, 2]``. What is long is cut off."""
    text = _toml_text(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _toml_text(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {_toml_text(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_text, value))}]"
    return "nothing" if value is None else str(value)
