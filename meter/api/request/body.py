"""The body of a request: its media type, its bytes and its JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.server import Request

from meter.api.errors import ApiError
from meter.api.limits import MAX_COMPLEX_QUERY_BYTES
from meter.api.limits import MAX_POSTED_SAMPLE_BYTES
from meter.api.limits import MAX_POSTED_SAMPLES
from meter.api.request.media_types import FORM_TYPE
from meter.api.request.media_types import JSON_TYPES
from meter.api.request.media_types import body_type
from meter.api.request.strict_json import BadJson
from meter.api.request.strict_json import strict_json
from meter.daemon.shared_slices import OwnedSlices

MAX_OBJECTS_PER_SAMPLE = 5
"""Opening braces per sample that a list may have on average: enough for metadata whose values contain braces."""


class _AnyObject(msgspec.Struct):
    """A JSON object, whose members are skipped."""


def read_body(request: Request, *, json_only: bool) -> tuple[str, bytes]:
    """Return media type and content of the body; :class:`ApiError` 415 for an unsupported media type.

    JSON is supported, and unless ``json_only``, forms and bodies without a media type too. The content is
    empty if there is no body.
    """
    content = b"" if request.content is None else request.content.read()
    if not content and json_only:
        return "", content
    media_type = body_type(request)
    if content and media_type not in (JSON_TYPES if json_only else (*JSON_TYPES, FORM_TYPE, "")):
        raise ApiError(415, f"Unknown mimetype: {media_type}")
    return media_type, content


def decode_body(content: bytes) -> Any:
    """Return the decoded JSON body, ``UNSET`` if it is empty; :class:`ApiError` 400 if it is not JSON."""
    if not content.strip():
        return msgspec.UNSET
    try:
        return strict_json(content)
    except BadJson as error:
        raise ApiError(400, f"The body cannot be decoded: {error}") from error


def check_size(content: bytes) -> None:
    """Raise :class:`ApiError` 400 for a body, other than a list of samples, that is too large to be parsed in one step."""
    if len(content) > MAX_COMPLEX_QUERY_BYTES:
        raise ApiError(
            400, f"The body of a query can have at most {MAX_COMPLEX_QUERY_BYTES} bytes; this one has {len(content)}."
        )


async def decode_list(content: bytes, slices: OwnedSlices) -> Any:
    """Return the decoded JSON body, a list of objects, which are decoded one by one in ``slices``; ``UNSET`` if it is empty.

    Raises :class:`ApiError` 400 if it is not JSON, has too many objects, or a too large one. A body that is not a list is
    returned as it is, if it is small.
    """
    if not content.strip():
        return msgspec.UNSET
    if content.count(b"{") > MAX_POSTED_SAMPLES * MAX_OBJECTS_PER_SAMPLE:
        raise ApiError(400, f"A request can have at most {MAX_POSTED_SAMPLES} samples.")
    try:
        msgspec.json.decode(content, type=list[_AnyObject])  # fails at the first item that is not an object
        items = msgspec.json.decode(content, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        check_size(content)
        return decode_body(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ApiError(400, f"The body cannot be decoded: invalid JSON: {error}") from error
    if len(items) > MAX_POSTED_SAMPLES:
        raise ApiError(400, f"A request can have at most {MAX_POSTED_SAMPLES} samples; this one has {len(items)}.")
    decoded: list[Any] = []
    async for batch in slices.batches(items, 1):
        for item in batch:
            if len(bytes(item)) > MAX_POSTED_SAMPLE_BYTES:
                raise ApiError(
                    400,
                    f"Sample {len(decoded)}: a sample can have at most {MAX_POSTED_SAMPLE_BYTES} bytes;"
                    f" this one has {len(bytes(item))}.",
                )
            decoded.append(decode_body(bytes(item)))
    return decoded
