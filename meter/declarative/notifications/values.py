"""Finds values in a notification and converts them to a number, a text or a time; raises ``ValueError`` with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any

from meter.declarative.notifications.paths import MISSING
from meter.declarative.notifications.paths import Path
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.sample import VALID_VOLUMES
from meter.sample import volume_is_valid

MAX_ID_CHARACTERS = 512
"""Maximum length of a name, unit or id, in characters."""

ELEMENT = "each"
"""The member of a scope with the element that a sample is made of, if a definition makes one of each."""

USER_METADATA_PREFIX = "metering."
MAX_USER_METADATA = 256

_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})?")
_TOO_LARGE = 2**63


@dataclass(frozen=True, slots=True)
class ValueSource:
    """The source of a field: the first of ``paths`` that finds a value other than null, or the ``literal``.

    ``prefix`` is put before a text that is found: ``instance:`` before the name of a flavor. ``first`` returns the value in
    a scope, null or :data:`~meter.declarative.notifications.paths.MISSING`.
    """

    paths: tuple[Path, ...] = ()
    literal: Any = MISSING
    prefix: str = ""
    first: Callable[[dict[str, Any]], Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Use the path's own function for a source of one path, the most common one."""
        plain = len(self.paths) == 1 and not self.prefix
        object.__setattr__(self, "first", self.paths[0].first if plain else self._first)

    @property
    def of_element(self) -> bool:
        """Whether the value may depend on the :data:`ELEMENT`."""
        return any(path.steps is None or path.steps[:1] in ((), (ELEMENT,)) for path in self.paths)

    def _first(self, scope: dict[str, Any]) -> Any:
        if not self.paths:
            return self.literal
        found = MISSING
        for path in self.paths:
            value = path.first(scope)
            if value is not MISSING and value is not None:
                return self.prefix + value if self.prefix and isinstance(value, str) else value
            found = value if found is MISSING else found
        return found

    def all(self, scope: dict[str, Any]) -> list[Any]:
        """Return all values of the first path that finds any, or the literal."""
        if not self.paths:
            return [self.literal]
        return next((found for path in self.paths if (found := path.all(scope))), [])

    @property
    def shown(self) -> str:
        """The name of the value in errors: ``payload.size``."""
        return " or ".join(path.shown for path in self.paths) if self.paths else f"the literal {self.literal!r}"


@dataclass(frozen=True, slots=True)
class Span:
    """The seconds between two times, never negative; Ceilometer's plugin ``timedelta``."""

    start: ValueSource
    end: ValueSource

    def first(self, scope: dict[str, Any]) -> Any:
        """Return the seconds as a ``float``; raises ``ValueError``, which names the bad time."""
        times = [time(source.first(scope), source.shown) for source in (self.start, self.end)]
        return abs((times[1] - times[0]).total_seconds())

    def all(self, scope: dict[str, Any]) -> list[Any]:
        """Return a list of the one value."""
        return [self.first(scope)]

    @property
    def of_element(self) -> bool:
        """Whether the span may depend on the :data:`ELEMENT`."""
        return self.start.of_element or self.end.of_element

    @property
    def shown(self) -> str:
        """The name of the value in errors."""
        return f"{self.start.shown} to {self.end.shown}"


def number(value: Any, label: str) -> int | float:
    """Return a volume; some services write numbers as texts such as ``"64"`` and ``"1.5"``."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value) if "." in value else int(value)
    # 0 <= NaN is false, so NaN, infinity and huge integers are refused as well.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _TOO_LARGE:
        raise ValueError(f"{label} must be a number from 0 to 2**63 - 1, not {shown(value)}")
    if not volume_is_valid(value):
        raise ValueError(f"{label} must be {VALID_VOLUMES}, not {shown(value)}")
    return value


def text(value: Any, label: str) -> str:
    """Return an id or a name."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{label} must be a non-empty text, not {shown(value)}")
    if len(value) > MAX_ID_CHARACTERS:
        raise ValueError(f"{label} must have at most {MAX_ID_CHARACTERS} characters, not {len(value)}")
    return value


def optional_text(value: Any, label: str) -> str | None:
    """Return an optional id; ``None`` if it is missing, null or empty."""
    return None if value is MISSING or value is None or value == "" else text(value, label)


def time(value: Any, label: str) -> datetime:
    """Return a time in UTC from any of the ISO 8601 formats that OpenStack's services use."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{label} must be a time like 2026-11-22T17:00:59.5, not {shown(value)}")
    try:
        return parse_timestamp(value, label)
    except BadMessage as error:
        raise ValueError(str(error)) from error


def user_metadata(metadata: Any) -> dict[str, str]:
    """Return members with the prefix ``metering.``: ``metering.cost.centre`` becomes ``cost_centre``."""
    if isinstance(metadata, list):  # pairs, as Cinder sends them, and Nova before 2013
        pairs: Sequence[tuple[Any, Any]] = [
            (pair.get("key"), pair.get("value")) for pair in metadata if isinstance(pair, dict)
        ]
    else:
        pairs = list(metadata.items()) if isinstance(metadata, dict) else []
    return {
        name.removeprefix(USER_METADATA_PREFIX).replace(".", "_"): _short_text(value)
        for name, value in pairs
        if isinstance(name, str) and name.startswith(USER_METADATA_PREFIX) and name != USER_METADATA_PREFIX
    }


def _short_text(value: Any) -> str:
    """Return ``value``, which may be of any size and depth, as the text of user metadata."""
    if isinstance(value, str):
        return value[:MAX_USER_METADATA]
    try:
        return str(value)[:MAX_USER_METADATA]
    except (RecursionError, ValueError):
        return shown(value)[:MAX_USER_METADATA]


def shown(value: Any) -> str:
    """Return ``value``, which may be of any size, as a short text for an error."""
    if value is MISSING:
        return "missing"
    if isinstance(value, dict | list):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value[:60] if isinstance(value, str) else value)
