"""The body of a request: its media type, its bytes and its JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.web.server import Request

from meter.api.errors import ApiError
from meter.api.request.media_types import FORM_TYPE
from meter.api.request.media_types import JSON_TYPES
from meter.api.request.media_types import body_type
from meter.api.request.strict_json import BadJson
from meter.api.request.strict_json import strict_json


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
