"""HTTP error responses, in the JSON shapes that Ceilometer's clients parse."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from meter.daemon.http_server import error_body

DEFAULT_TEXTS: Mapping[int, str] = {
    403: "Access was denied to this resource.",
    404: "The resource could not be found.",
    405: "The method is not allowed for this resource.",
    406: "The Accept header excludes every media type of this resource.",
    410: "This resource is no longer available. No forwarding address is given.",
}
"""Text of an :class:`HttpError` that has none of its own, by HTTP status."""


CREDENTIALS_REFUSED = frozenset({401, 403})
"""Statuses of responses to credentials that are not accepted, whether Keystone's or Meter's own."""

RETRY_AFTER_SECONDS = 5
"""The header ``Retry-After`` of responses to requests that may succeed later, if nothing better is known."""


class ApiError(Exception):
    """An error response: HTTP status, text for the client, and additional headers.

    The body is that of WSME, which Ceilometer uses for errors in parameters and bodies: an object with ``faultstring``.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or {}

    def body(self, accept: str) -> bytes:
        """Return the JSON body; ``accept``, the request's ``Accept`` header, is not used here."""
        return error_body(self.status, self.text)


class TryLater(ApiError):
    """A limit is reached, and the same request may succeed later: 429 if it is one of the client, 503 if it is one of all.

    ``seconds`` is when to try again, if that is known.
    """

    def __init__(self, status: int, text: str, seconds: int = RETRY_AFTER_SECONDS) -> None:
        super().__init__(status, f"{text}: try again later.", {"Retry-After": str(seconds)})


class HttpError(ApiError):
    """An error in the path, the method, the media types or the permission.

    The body is that of pecan: an object if the ``Accept`` header contains ``json``, a string otherwise.
    """

    def __init__(self, status: int, text: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, text or DEFAULT_TEXTS.get(status, HTTPStatus(status).description), headers)

    def body(self, accept: str) -> bytes:
        """Return the JSON body in the shape that matches the request's ``Accept`` header."""
        title = HTTPStatus(self.status).phrase
        if "json" in accept.lower():
            return _encode_error({"code": self.status, "title": title, "description": self.text})
        return _encode_error(f"{self.status} {title}\n\n{self.text}\n\n ")


class Unauthenticated(ApiError):
    """A missing or invalid token (401). The body is that of keystonemiddleware."""

    def __init__(self, challenge: str) -> None:
        super().__init__(401, "The request you have made requires authentication.", {"WWW-Authenticate": challenge})

    def body(self, accept: str) -> bytes:
        """Return the JSON body; ``accept`` is not used here."""
        return msgspec.json.encode({"error": {"code": self.status, "title": "Unauthorized", "message": self.text}})


def _encode_error(content: Any) -> bytes:
    return msgspec.json.encode({"error_message": content})


def invalid_input(name: str, value: object, reason: str) -> ApiError:
    """Return the error 400 for the invalid ``value`` of the parameter or member ``name``."""
    return ApiError(400, f"Invalid input for field/attribute {name}. Value: '{value}'. {reason}")


def unknown_argument(name: str, reason: str = "") -> ApiError:
    """Return the error 400 for a parameter or field that is unknown, or not supported by this operation."""
    return ApiError(400, f'Unknown argument: "{name}"{": " if reason else ""}{reason}')
