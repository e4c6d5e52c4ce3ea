"""The strict reading of messages that have only Ceilometer's signature, which several messages can share.

The signed text has neither separators nor types. :func:`check_reading` divides it into top-level members in one fixed way, and
accepts only the message that has these members. Of all messages with the same text it therefore accepts at most one: nobody
can move bytes from one top-level member to another, for example from ``message_id`` to ``project_id``. The text of
``resource_metadata`` is not divided, so bytes can still move inside the metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meter.ceilometer_signature import METADATA_FIELD
from meter.ceilometer_signature import SIGNATURE_FIELD
from meter.ceilometer_signature import BadSignature
from meter.ceilometer_signature import signed_bytes
from meter.sample import RESERVED_METADATA

LEADING = (
    "counter_name",
    "counter_type",
    "counter_unit",
    "counter_volume",
    "message_id",
    "monotonic_time",
    "project_id",
    "project_name",
    "publisher_id",
    "resource_id",
)
"""The members before ``resource_metadata``, in the order of the signed text."""

TRAILING = ("source", "timestamp", "user_id", "user_name")
"""The members after ``resource_metadata``, in the order of the signed text."""

OPTIONAL = frozenset({"monotonic_time", "project_name", "publisher_id", "user_name"})

MEMBERS = frozenset({*LEADING, METADATA_FIELD, *TRAILING, SIGNATURE_FIELD})
"""All members of the messages that Ceilometer's agents make."""

NUMBERS = frozenset({"counter_volume", "monotonic_time"})
"""Members that are numbers; the others are texts. The signed text is the same for ``1`` and ``"1"``."""

NULLABLE = OPTIONAL | {"project_id", "user_id", "source"}
"""Members that can be null, for which the signed text has ``None``."""


def check_reading(message: Mapping[str, Any]) -> None:
    """Raise :class:`BadSignature` unless ``message`` is the reading of its signed text that is accepted.

    There is one such reading, apart from the inside of the metadata."""
    if unknown := sorted(message.keys() - MEMBERS):
        raise BadSignature(f"{_shown(unknown[0])} is not a member of Ceilometer's messages")
    if missing := sorted(MEMBERS - OPTIONAL - {SIGNATURE_FIELD} - message.keys()):
        raise BadSignature(f"{missing[0]} is missing, which all of Ceilometer's messages have")
    metadata = message[METADATA_FIELD]
    if not isinstance(metadata, Mapping):
        raise BadSignature(f"{METADATA_FIELD} must be a mapping")
    if RESERVED_METADATA in metadata:
        raise BadSignature(
            f"{METADATA_FIELD}.{RESERVED_METADATA} is reserved for messages with Meter's own batch signature"
        )
    _refuse_empty_names(metadata)
    for name in (*LEADING, *TRAILING):
        if name in message:
            _check_type(name, message[name])
    read = read_members(signed_bytes(message).decode())
    for name in (*LEADING, *TRAILING):
        written = str(message[name]) if name in message else None
        if read.get(name) != written:
            raise BadSignature(
                f"{name} is {_shown(written)}, but the same signed text can also be read as {_shown(read.get(name))}:"
                " Ceilometer's signature does not distinguish the two"
            )


def _check_type(name: str, value: Any) -> None:
    """Raise :class:`BadSignature` if a value of another type than that of the member ``name`` would have the same text."""
    if value is None and name in NULLABLE:
        return
    if name in NUMBERS:
        if type(value) not in (int, float):
            raise BadSignature(f"{name} must be a number, not a {type(value).__name__}")
    elif not isinstance(value, str):
        raise BadSignature(f"{name} must be a text, not a {type(value).__name__}")
    elif value == "None" and name in NULLABLE:
        raise BadSignature(f"{name} must be null, not the text 'None': Ceilometer's signature is the same for both")


def has_second_reading(message: Mapping[str, Any]) -> bool:
    """Return whether :func:`check_reading` refuses ``message``, for example for a second reading of its text."""
    try:
        check_reading(message)
    except BadSignature:
        return True
    return False


def read_members(text: str) -> dict[str, str]:
    """Return the members of a signed text as texts, without the metadata; :class:`BadSignature` if it has not all of them.

    A member before the metadata ends where the name of a possible next member occurs first. A member after the metadata
    begins where its name occurs last.
    """
    members: dict[str, str] = {}
    number, position = 0, 0
    if not text.startswith(LEADING[0]):
        raise BadSignature(f"the signed text does not begin with {LEADING[0]}")
    while number < len(LEADING) - 1:
        position += len(LEADING[number])
        following, end = _first(text, position, _possible_next(number))
        members[LEADING[number]] = text[position:end]
        number, position = following, end
    rest = text[position + len(LEADING[-1]) :]
    user = _last(rest, "user_id", len(rest))
    timestamp = _last(rest, "timestamp", user)
    source = _last(rest, "source", timestamp)
    members["resource_id"] = rest[:source].partition(f"{METADATA_FIELD}:")[0]
    members["source"] = rest[source + len("source") : timestamp]
    members["timestamp"] = rest[timestamp + len("timestamp") : user]
    members["user_id"], has_name, user_name = rest[user + len("user_id") :].partition("user_name")
    if has_name:
        members["user_name"] = user_name
    return members


def _possible_next(number: int) -> list[int]:
    """Return the numbers of the leading members that can follow member ``number``: optional ones, and the next required one."""
    found = []
    for following in range(number + 1, len(LEADING)):
        found.append(following)
        if LEADING[following] not in OPTIONAL:
            break
    return found


def _first(text: str, position: int, numbers: list[int]) -> tuple[int, int]:
    """Return which of the leading members ``numbers`` occurs first in ``text`` from ``position`` on, and where."""
    places = [(place, number) for number in numbers if (place := text.find(LEADING[number], position)) >= 0]
    if not places:
        raise BadSignature(f"the signed text has no {LEADING[numbers[-1]]} where it must be")
    place, number = min(places)
    return number, place


def _last(text: str, name: str, end: int) -> int:
    place = text.rfind(name, 0, end)
    if place < 0:
        raise BadSignature(f"the signed text has no {name} where it must be")
    return place


def _refuse_empty_names(value: Any) -> None:
    if isinstance(value, Mapping):
        if "" in value:
            raise BadSignature(f"{METADATA_FIELD} has an empty name, which leaves no trace in Ceilometer's signature")
        for inner in value.values():
            _refuse_empty_names(inner)
    elif isinstance(value, list):
        for inner in value:
            _refuse_empty_names(inner)


def _shown(text: str | None) -> str:
    return "missing" if text is None else repr(text if len(text) <= 60 else f"{text[:57]}...")
