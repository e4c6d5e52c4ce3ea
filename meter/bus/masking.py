"""Masks secrets: replaces them by ``***`` before a body is logged, stored or dead-lettered.

OpenStack's services publish usable bearer tokens and passwords in some notifications. A secret is recognized by its name
(``_context_auth_token``, ``adminPass``, ``api_key``) or by its form (a Fernet or JWS token, a password in a URL). Names
and identifiers of keys stay readable: ``key_name``, ``public_key``, ``encryption_key_id``, fingerprints.
"""

from __future__ import annotations

import operator
import re
from bisect import bisect_left
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import re2

from meter.bus.incremental_json import separators

MASK = "***"

MAX_DEPTH = 64
"""Maximum number of nesting levels that are searched; a deeper value is masked as a whole."""

MAX_STRUCTURE_BYTES = 1024 * 1024
"""A larger body is masked as text: walking millions of values would block the reactor for seconds."""

MAX_STRUCTURE_VALUES = 50_000
"""The same for the number of values."""

WINDOW_CHARACTERS = 8 * 1024
"""A longer text is searched in windows of this length."""

LONGEST_NAME = 1024
"""Maximum number of characters from the beginning of a secret name to its value, blanks and signs included."""

LOOK_BEHIND = len("Bearer ")
"""How many characters before a token decide whether it is one."""

MAX_CACHED_NAME = 100
"""Maximum length of a name whose result is cached, in characters."""

_SECRET_WORDS = "|".join(
    (
        "token",
        "passw",  # password, passwd
        "passphrase",
        "secret",
        "credential",
        "cookie",
        r"(?:\b|_|admin|root|user)pass(?:\b|_)",
        r"(?:api|private|access|auth|master|session|shared|signing|ssh|storage|encryption)[_-]?keys?\b",
        r"(?:\b|_)auth(?:orization)?\b",
        r"(?:\b|_)user_?data\b",  # a guest's first-boot script, often with passwords
    )
)
_SECRET_NAME = re.compile(_SECRET_WORDS)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

# Every pattern takes time linear in the text: nothing unbounded precedes a part that may fail to match.
_TOKENS = re.compile(
    r"""gAAAAA[\w-]{20,}=*                                  # Fernet
      | (?<![\w-])eyJ[\w-]{8,}+\.[\w-]{8,}+\.[\w-]{8,}+     # JWS
      | (?<=[Bb]earer[ ])[\w.~+/-]{8,}+=*
      | (?<=://)[^\s/:@"'\\]{0,128}:[^\s/@"'\\]{1,256}(?=@) # user:password of a URL
    """,
    re.ASCII | re.VERBOSE,
)
_QUOTED_PAIR = re.compile(
    # "name": "value" at any depth of quoting: in JSON within a JSON text, quotes follow 1, 3, 7… backslashes.
    rf"""(?:{_SECRET_WORDS})[\w.-]{{0,64}}
         (?P<quote>(?P<slashes>\\{{0,15}})["'])\s{{0,16}}[:=]\s{{0,16}}
         (?:(?P=quote)(?P<text>(?:(?!(?<!\\)(?P=quote)).)*)|(?P<bare>[\w.+-]+))""",
    re.ASCII | re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_PLAIN_PAIR = re.compile(
    rf"""(?P<name>(?:{_SECRET_WORDS})[\w.-]{{0,64}}\s{{0,16}}[:=]\s{{0,16}})(?P<value>[^\s"'\\,;&<>{{}}\[\]()]+)""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_STEM = re.compile("token|pass|secret|credential|cookie|key|auth|user_?data")
"""Every secret word contains one of these. Searching for them is fifty times faster than the patterns."""

FARTHEST_STEM = len("encryption_")
"""Largest offset of the stem from the beginning of a secret word, in characters."""

LONGEST_STEM = len("credential")
"""Maximum length of a stem, in characters."""

_MAY_BE_SECRET = re2.compile(
    r"(?i:token|pass|secret|credential|cookie|auth(?:orization)?\b|user[_-]?data"
    r"|(?:api|private|access|auth|master|session|shared|signing|ssh|storage|encryption)[_-]?key"
    r"|gAAAAA|eyJ|earer )"
    r"""|://[^/\s"']*@"""
    r"|\\u"  # a character of JSON within JSON that may be a letter of a secret word
)
"""Found in the JSON of every value that has a secret, and rarely in others: RE2 takes a microsecond for a value that
takes thirty to walk."""

_NOT_SECRET = frozenset({"none", "null", "true", "false"})


def is_secret_name(name: str) -> bool:
    """Return whether a value with this name is masked, in any spelling: ``adminPass``, ``X-Auth-Token``."""
    return _is_secret_name(name) if len(name) <= MAX_CACHED_NAME else _is_secret_name.__wrapped__(name)


@lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    """Cached, because the same names recur."""
    return _SECRET_NAME.search(_CAMEL.sub("_", name).lower().replace("-", "_")) is not None


def masked(value: Any) -> Any:
    """Return ``value`` with its secrets masked; the same object if it has none. ``value`` is not modified.

    It is JSON, or anything that is written as JSON: tuples, sets, dataclasses, times.
    Null, booleans and empty values stay under a secret name. In ``{"key": "password", "value": "…"}`` the value is masked
    too. A text that is JSON itself is searched as well.
    """
    return value if _has_no_secret(value) else _masked(value, MAX_DEPTH)


def encoded_and_masked(value: Any) -> bytes:
    """Return :func:`masked` ``value`` as JSON; it is encoded once if it has no secret. Raises as the encoder of ``msgspec`` does."""
    encoded = msgspec.json.encode(value)
    return encoded if _has_no_secret_in(encoded) else msgspec.json.encode(_masked(value, MAX_DEPTH))


def _has_no_secret(value: Any) -> bool:
    """Return whether ``value`` certainly has no secret, without looking at its parts one by one."""
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return _has_no_secret_in(encoded)


def _has_no_secret_in(encoded: bytes) -> bool:
    # What is nested more deeply than is searched is masked as a whole.
    if encoded.count(b"{") + encoded.count(b"[") >= MAX_DEPTH:
        return False
    return _MAY_BE_SECRET.search(encoded) is None


def _masked(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return _masked_leaf(value, levels)
    if value is None or isinstance(value, int | float):
        return value
    if not isinstance(value, Mapping | list | tuple):
        return _masked_object(value, levels)
    if not levels:
        return MASK
    return _masked_mapping(value, levels - 1) if isinstance(value, Mapping) else _masked_elements(value, levels - 1)


def _masked_object(value: Any, levels: int) -> Any:
    """Mask what is no JSON and is written as JSON, such as a set or a dataclass of a plugin; returns JSON if it has a secret."""
    try:
        content = msgspec.to_builtins(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return value  # it cannot be written
    hidden = _masked(content, levels)
    return value if hidden == content else hidden


def _masked_elements(value: list[Any] | tuple[Any, ...], levels: int) -> list[Any] | tuple[Any, ...]:
    elements = [_masked(element, levels) for element in value]
    if not any(map(operator.is_not, elements, value)):
        return value
    return tuple(elements) if isinstance(value, tuple) else elements


def _masked_mapping(value: Mapping[Any, Any], levels: int) -> Mapping[Any, Any]:
    pair = value.get("key", value.get("name"))
    secret_pair = isinstance(pair, str) and is_secret_name(pair)
    changed = {}
    for name, element in value.items():
        if (isinstance(name, str) and is_secret_name(name)) or (secret_pair and name == "value"):
            hidden = _hidden(element)
        else:
            hidden = _masked(element, levels)
        if hidden is not element:
            changed[name] = hidden
    return {**value, **changed} if changed else value


def _hidden(value: Any) -> Any:
    return value if value is None or isinstance(value, bool) or value in ("", {}, [], ()) else MASK


def _masked_leaf(text: str, levels: int) -> str:
    if text[:1] in ("{", "[") and levels:
        try:
            inner = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            return masked_text(text)
        hidden = _masked(inner, levels - 1)
        return text if hidden == inner else msgspec.json.encode(hidden).decode()
    return masked_text(text)


def masked_text(text: str) -> str:
    """Return ``text``, JSON or not, with everything that looks like a secret, or is assigned to a secret name, masked."""
    if len(text) > WINDOW_CHARACTERS:
        return _masked_in_windows(text)
    if _may_have_token(text):  # fast checks first: this runs for every text
        text = _TOKENS.sub(MASK, text)
    if ":" not in text and "=" not in text:
        return text  # no name with a value
    for pattern, hide in ((_QUOTED_PAIR, _quoted_hidden), (_PLAIN_PAIR, _plain_hidden)):
        text = _replaced(pattern, hide, text)
    return text


def _may_have_token(text: str) -> bool:
    return "gAAAAA" in text or "eyJ" in text or "earer " in text or "://" in text


def _token_starts(text: str, first: int, stop: int, limit: int) -> Sequence[int] | None:
    """Return where a token may begin from ``first`` to ``stop``: nowhere, or ``None`` for anywhere."""
    return None if _may_have_token(text[max(first - LOOK_BEHIND, 0) : limit]) else ()


def _name_starts(text: str, first: int, stop: int, limit: int) -> Sequence[int] | None:
    """Return where a secret name may begin from ``first`` to ``stop``: near stems, or ``None`` for anywhere."""
    window = text[first:limit]
    if ":" not in window and "=" not in window:
        return ()  # no name with a value
    lowered = window.lower()
    if len(lowered) != len(window):
        return None  # lowering changed the length, so positions differ
    starts: list[int] = []
    for stem in _STEM.finditer(lowered, 0, stop - first + FARTHEST_STEM + LONGEST_STEM):
        # Up to the end of the stem: finditer misses overlapping stems, such as the second one in "passecret".
        after = starts[-1] + 1 if starts else 0
        starts += range(max(after, stem.start() - FARTHEST_STEM), stem.end())
        if len(starts) > WINDOW_CHARACTERS // 8:
            return None  # too many stems: searching everything is faster
    return [first + start for start in starts if first + start < stop]


def _masked_in_windows(text: str) -> str:
    """Return :func:`masked_text` of a long text, searched in windows.

    A search is one call that holds Python's global lock: over 8 MB it takes seconds. A window takes milliseconds, so that
    a thread which masks gives way to others. A token whose recognition needs more than :data:`WINDOW_CHARACTERS` is not
    recognized by its form.
    """
    text = _replaced_in_windows(_TOKENS, lambda _: MASK, _token_starts, WINDOW_CHARACTERS, text)
    text = _replaced_in_windows(_QUOTED_PAIR, _quoted_hidden, _name_starts, LONGEST_NAME, text)
    return _replaced_in_windows(_PLAIN_PAIR, _plain_hidden, _name_starts, LONGEST_NAME, text)


def _replaced_in_windows(
    pattern: re.Pattern[str],
    hide: Callable[[re.Match[str]], str],
    starts_in: Callable[[str, int, int, int], Sequence[int] | None],
    ahead: int,
    text: str,
) -> str:
    """Return ``pattern.sub(hide, text)``; a match is recognized by at most ``ahead`` characters, and may be longer."""
    windows = []
    end = 0
    for first in range(0, len(text), WINDOW_CHARACTERS):
        parts = []
        stop = min(first + WINDOW_CHARACTERS, len(text))
        limit = min(stop + ahead, len(text))
        starts = starts_in(text, first, stop, limit)
        position = max(first, end)
        while position < stop:
            match = _next_match(pattern, text, starts, position, limit)
            if match is None or match.start() >= stop:
                break
            parts.append(text[end : match.start()])
            if match.end() < limit or limit == len(text):
                end = match.end()
            elif pattern is _QUOTED_PAIR and match["text"] is not None:
                end = _end_of_quoted(text, match["quote"], match.start("text"))
            else:
                match = pattern.match(text, match.start()) or match  # it goes on beyond the limit
                end = match.end()
            parts.append(hide(match))
            position = max(end, match.start() + 1)
        # Joined here: to free millions of short texts at once would take a tenth of a second.
        if parts:
            windows.append("".join(parts))
    return "".join([*windows, text[end:]]) if windows else text


def _next_match(
    pattern: re.Pattern[str], text: str, starts: Sequence[int] | None, position: int, limit: int
) -> re.Match[str] | None:
    if starts is None:
        return pattern.search(text, position, limit)
    for start in starts[bisect_left(starts, position) :]:
        if match := pattern.match(text, start, limit):
            return match
    return None


def _end_of_quoted(text: str, quote: str, start: int) -> int:
    """Return the position of the ``quote`` that ends the text at ``start``: one that no backslash precedes."""
    found = text.find(quote, start)
    while found > start and text[found - 1] == "\\":
        found = text.find(quote, found + 1)
    return found if found >= 0 else len(text)


def _replaced(pattern: re.Pattern[str], hide: Callable[[re.Match[str]], str], text: str) -> str:
    """Return ``pattern.sub(hide, text)`` for a pattern that begins with a secret word: tried near stems only."""
    lowered = text.lower()
    if len(lowered) != len(text):
        return pattern.sub(hide, text)  # lowering changed the length, so positions differ
    parts = []
    end = searched = tried = 0
    for stem in _STEM.finditer(lowered):
        # Up to the end of the stem: finditer misses overlapping stems, such as the second one in "passecret".
        positions = range(max(searched, stem.start() - FARTHEST_STEM), stem.end())
        for start in positions:
            if match := pattern.match(text, start):
                parts += [text[end:start], hide(match)]
                end = match.end()
                break
        searched = max(end, stem.end())
        tried += len(positions)
        if tried > len(text) // 8:
            return pattern.sub(hide, text)  # too many stems: searching everything is faster
    return "".join([*parts, text[end:]]) if parts else text


def _quoted_hidden(match: re.Match[str]) -> str:
    group = "text" if match["text"] is not None else "bare"
    if not match[group] or match[group].lower() in _NOT_SECRET:
        return match[0]
    first = match.start(group) - match.start()
    last = match.end(group) - match.start()
    hidden = MASK if group == "text" else f"{match['quote']}{MASK}{match['quote']}"
    return match[0][:first] + hidden + match[0][last:]


def _plain_hidden(match: re.Match[str]) -> str:
    return match[0] if match["value"].lower() in _NOT_SECRET else match["name"] + MASK


def masked_body(body: bytes) -> bytes:
    """Return the body of a message with its secrets masked; byte for byte the same if it has none."""
    if len(body) <= MAX_STRUCTURE_BYTES and separators(body) <= MAX_STRUCTURE_VALUES:
        try:
            content = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            pass
        else:
            hidden = masked(content)
            if hidden != content:
                return msgspec.json.encode(hidden)
            # Decoding keeps only the last value of a repeated name, so the text is searched as well.
    # Latin-1 maps every byte to a character and back, so that bytes that are not UTF-8 are preserved.
    return masked_text(body.decode("latin-1")).encode("latin-1")
