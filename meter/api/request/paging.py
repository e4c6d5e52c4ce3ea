"""Paging: markers, which are opaque to clients, and the ``Link`` header that leads to the next page."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from meter.api.errors import invalid_input
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import Field
from meter.query import Marker
from meter.query import Or
from meter.query import StoredSample
from meter.sample import utc_text

INVALID_MARKER = "it must be taken from the Link header of the previous page."


def sample_marker(row: StoredSample | Marker) -> str:
    """Return the marker of the page that begins after ``row``: letters, digits, ``-`` and ``_``."""
    return _encode(f"{utc_text(row.timestamp)} {row.message_id}".encode())


def parse_sample_marker(text: str) -> Marker:
    """Return the decoded marker; :class:`~meter.api.errors.ApiError` 400 if ``text`` is not a marker of samples."""
    try:
        timestamp, _, message_id = _decode(text).decode().partition(" ")
        if not message_id or "\0" in message_id:
            raise ValueError(text)
        return Marker(parse_timestamp(timestamp, "marker"), message_id)
    except (ValueError, binascii.Error, BadMessage) as error:
        raise invalid_input("marker", text, INVALID_MARKER) from error


def key_marker(*values: str) -> str:
    """Return the marker of the page after the entry with ``values``, the fields by which the list is ordered."""
    return _encode(msgspec.json.encode(values))


def key_of_marker(text: str, count: int) -> list[str]:
    """Return the ``count`` values of the marker ``text``; :class:`~meter.api.errors.ApiError` 400 if it is not such a marker."""
    try:
        values = msgspec.json.decode(_decode(text), type=list[str])
        if len(values) != count or any("\0" in value for value in values):
            raise ValueError(text)
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise invalid_input("marker", text, INVALID_MARKER) from error
    return values


def after_key_marker(text: str, fields: Sequence[Field]) -> Expression:
    """Return the condition of entries after the marker ``text`` in a list ordered by ``fields``.

    Raises :class:`~meter.api.errors.ApiError` 400 if ``text`` is not a marker of such a list.
    """
    values = key_of_marker(text, len(fields))
    same = [Comparison(field, "=", value) for field, value in zip(fields, values, strict=True)]
    return Or(
        tuple(
            And((*same[:n], Comparison(field, ">", value)))
            for n, (field, value) in enumerate(zip(fields, values, strict=True))
        )
    )


MAX_OFFSET = 1_000_000
"""Entries after which a list has no further page."""


def offset_of(marker: str | None) -> int:
    """Return how many entries come before the page ``marker``, in a list that is computed as a whole for each page.

    Raises :class:`~meter.api.errors.ApiError` 400 if it is not the marker of such a list.
    """
    if marker is None:
        return 0
    if not (marker.isascii() and marker.isdecimal() and len(marker) < 8 and int(marker) <= MAX_OFFSET):
        raise invalid_input("marker", marker, INVALID_MARKER)
    return int(marker)


def offset_page_link(url: str, offset: int, limit: int, found: int) -> dict[str, str]:
    """Return the header that leads to the next page, if there are more than ``limit`` entries from ``offset`` on."""
    following = offset + limit
    return {"Link": next_link(url, str(following))} if found > following and following <= MAX_OFFSET else {}


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def next_link(url: str, marker: str) -> str:
    """Return the ``Link`` header that leads from the page at ``url`` to the one after ``marker``."""
    path, _, query = url.partition("?")
    pairs = [pair for pair in query.split("&") if pair and not pair.startswith("marker=")]
    return f'<{path}?{"&".join([*pairs, f"marker={quote(marker)}"])}>; rel="next"'
