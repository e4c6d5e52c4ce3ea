"""Pages: where one ends and the next begins, as an opaque text and as a ``Link`` header."""

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


def marker_after(row: StoredSample) -> str:
    """Return the marker with which the page after ``row`` is asked for: letters, digits, ``-`` and ``_``."""
    return base64.urlsafe_b64encode(f"{utc_text(row.timestamp)} {row.message_id}".encode()).decode().rstrip("=")


def read_marker(text: str) -> Marker:
    """Return the marker that ``text`` is; :class:`~meter.api.errors.Fault` 400 where it is none of ours."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
        timestamp, _, message_id = decoded.partition(" ")
        if not message_id or "\0" in message_id:
            raise ValueError(text)
        return Marker(parse_timestamp(timestamp, "marker"), message_id)
    except (ValueError, binascii.Error, BadMessage) as error:
        raise invalid_input("marker", text, "it must come from the Link header of the page before.") from error


def place_after(*values: str) -> str:
    """Return the marker with which the page after what has ``values`` is asked for, in a list that is ordered by them."""
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def beyond(text: str, fields: Sequence[Field]) -> Expression:
    """Return what holds beyond the marker ``text``, in a list that is ordered by ``fields``; :class:`Fault` 400."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        values = msgspec.json.decode(decoded, type=list[str])
        if len(values) != len(fields) or any("\0" in value for value in values):
            raise ValueError(text)
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise invalid_input("marker", text, "it must come from the Link header of the page before.") from error
    same = [Comparison(field, "=", value) for field, value in zip(fields, values, strict=True)]
    return Or(
        tuple(
            And((*same[:n], Comparison(field, ">", value)))
            for n, (field, value) in enumerate(zip(fields, values, strict=True))
        )
    )


def next_link(url: str, marker: str) -> str:
    """Return the ``Link`` header that leads from the page at ``url`` to the one after ``marker``."""
    path, _, query = url.partition("?")
    kept = [pair for pair in query.split("&") if pair and not pair.startswith("marker=")]
    return f'<{path}?{"&".join([*kept, f"marker={quote(marker)}"])}>; rel="next"'
