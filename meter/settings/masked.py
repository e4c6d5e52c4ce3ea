"""Passwords in URLs: masked wherever a setting is shown, by ``--check``, in the log and in ``/readyz``."""

from __future__ import annotations

import re
from typing import Any

_USER_INFO = re.compile(r"(?<=://)([^\s:/@\"']{0,256}:)[^\s\"'<>]{1,1024}(?=@)")
"""User and password of a URL. The password ends at the last ``@``: one that should have been encoded may contain others."""

_URL = re.compile(r"^([a-z][a-z0-9+.-]*://[^:/@]*:).*(?=@)", re.DOTALL | re.IGNORECASE)
"""User and password of a text that is a URL and nothing else: the password may have spaces and quotation marks."""

_WORD = re.compile(
    r"((?:password|passwd|passfile|secret|token|sslpassword)\s*=\s*)('(?:\\.|[^'])*'|[^\s&]+)", re.IGNORECASE
)
"""A password among the parameters of a URL, or in a DSN of keywords."""


def masked(text: str) -> str:
    """Return ``text``, a URL, a DSN, or a sentence with one, without the passwords in it."""
    if "://" in text:
        text = _USER_INFO.sub(r"\1***", text)
    return _WORD.sub(r"\1***", text) if "=" in text else text


def masked_urls(text: str) -> str:
    """Return ``text`` without the passwords of URLs in it. Assignments stay: this is for any line of a log."""
    return _USER_INFO.sub(r"\1***", text) if "://" in text and "@" in text else text


def masked_settings(value: Any) -> Any:
    """Return settings, as JSON, with every text masked."""
    if isinstance(value, str):
        return masked(_URL.sub(r"\1***", value))
    if isinstance(value, dict):
        return {name: masked_settings(each) for name, each in value.items()}
    return [masked_settings(each) for each in value] if isinstance(value, list) else value
