"""Passwords in URLs: masked wherever a setting is shown, by ``--check``, in the log and in ``/readyz``."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote
from urllib.parse import unquote

_USER_INFO = re.compile(r"(?<=://)([^\s:/@\"']{0,256}:)\S{1,1024}(?=@)")
"""User and password of a URL. The password ends at the last ``@``: one that should have been encoded may contain others."""

_URL = re.compile(r"^([a-z][a-z0-9+.-]*://[^:/@]*:)(.*)(?=@)", re.DOTALL | re.IGNORECASE)
"""User and password of a text that is a URL and nothing else: the password may have spaces, too."""

_NAME = r"(?:password|passwd|passfile|secret|token|sslpassword)"
_QUOTED = r"'(?:\\.|[^'\\])*(?:'|$)"
_PARAMETER = rf"(?<=[?&])({_NAME}=)[^\s&]*"
"""A password among the parameters of a URL."""

_WORD = re.compile(
    rf"{_PARAMETER}|({_NAME}\s*=\s*)(?:{_QUOTED}|(?:\\.|[^\s\\])+)",
    re.IGNORECASE | re.DOTALL,
)
"""A password among the parameters of a URL, or in a DSN of keywords, where quotation marks and backslashes have a meaning."""

MAX_KNOWN = 1000


class KnownPasswords:
    """Masks the passwords of the configured URLs and DSNs wherever a text has one of these, whatever characters they have.

    In a line of a log, nothing tells where a password with spaces ends. Only the text around the password in the setting is looked
    for, as ``:PASSWORD@``: a password that is a common word hides no other text.
    """

    def __init__(self) -> None:
        self._masks: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    def add(self, location: str) -> None:
        """Mask the passwords of ``location``, a URL or DSN, from now on; those of a configuration that it replaces stay masked."""
        found: dict[str, str] = {}
        if (url := _URL.match(location)) and url[2]:
            for text in (url[2], unquote(url[2]), quote(url[2], safe="")):
                found |= dict.fromkeys((f":{each}@" for each in _escaped(text)), ":***@")
        for word in _WORD.finditer(location):
            found |= dict.fromkeys(_escaped(word[0]), f"{word[1] or word[2]}***")
        if found.keys() <= self._masks.keys() or len(self._masks) >= MAX_KNOWN:
            return
        self._masks |= found
        longest_first = sorted(self._masks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def masked(self, text: str) -> str:
        """Return ``text`` without these passwords."""
        return text if self._pattern is None else self._pattern.sub(lambda match: self._masks[match[0]], text)


def _escaped(text: str) -> set[str]:
    """Return ``text`` as it is, and as Python and JSON quote it."""
    both_marks = repr(f"{text}'\"")[1:-4]  # of a text with both quotation marks, Python escapes one
    return {text, repr(text)[1:-1], both_marks, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}


known_passwords = KnownPasswords()
"""Those of this process."""


def masked(text: str) -> str:
    """Return ``text``, a URL, a DSN, or a sentence with one, without the passwords in it."""
    text = masked_urls(text)
    return _WORD.sub(_without_value, text) if "=" in text else text


def masked_urls(text: str) -> str:
    """Return ``text`` without the passwords of URLs in it. Other assignments stay: this is for any line of a log."""
    text = known_passwords.masked(text)
    return _USER_INFO.sub(r"\1***", text) if "://" in text and "@" in text else text


def masked_settings(value: Any) -> Any:
    """Return settings, as JSON, with every text masked."""
    if isinstance(value, str):
        return masked(_URL.sub(r"\1***", value))
    if isinstance(value, dict):
        return {name: masked_settings(each) for name, each in value.items()}
    return [masked_settings(each) for each in value] if isinstance(value, list) else value


def _without_value(match: re.Match[str]) -> str:
    return f"{match[1] or match[2]}***"
