"""The words of pydantic's errors, in words of TOML."""

from __future__ import annotations

PLAIN_WORDS = {
    "Value error, ": "",
    "Input should be": "should be",
    "a valid string": "a text",
    "a valid number": "a number",
    "a valid integer": "a whole number",
    "a valid boolean": "true or false",
    "a valid list": "an array",
    "a valid dictionary": "a table",
    "List should": "should",
    "String should": "should",
    "Dictionary should": "should",
    ", unable to parse string as a number": "",
    ", unable to parse string as an integer": "",
    ", unable to interpret input": "",
    ", got a number with a fractional part": "",
    " after validation": "",
}
"""Words of pydantic, and the same in words of TOML."""


def plain(message: str) -> str:
    """Return the ``msg`` of an error of pydantic as the end of a sentence that begins with the name of a setting."""
    for word, plain in PLAIN_WORDS.items():
        message = message.replace(word, plain)
    return f"{message[:1].lower()}{message[1:]}"
