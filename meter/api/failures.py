"""Renders failures as error responses, and logs those that the client is not told the cause of."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed

from meter.api.errors import RETRY_AFTER_SECONDS
from meter.api.errors import ApiError
from meter.api.errors import HttpError
from meter.api.errors import TryLater
from meter.api.fair_share import Busy
from meter.api.request.media_types import accept_header
from meter.api.root_resource import REQUEST_ID_HEADER
from meter.api.sending import with_headers
from meter.archive_unavailable import ArchiveUnavailable
from meter.archive_unavailable import SamplesLost
from meter.interfaces import RequestError
from meter.interfaces import Unavailable

UNAVAILABLE = "Temporarily unavailable: try again later. The server log has details under this request id."
"""Text of a 503 if a dependency is unavailable. Its own text can have addresses of databases, brokers and Keystone."""

MAX_LOGGED_CHARACTERS = 200
"""Characters of a request target in a log line: a client chooses up to 64 KiB."""

_log = Logger()


def render_failure(request: Request, failure: Failure) -> bytes:
    """Render an error response; an unexpected error is logged, and its text is not sent."""
    error = error_of(request, failure)
    for name, value in error.headers.items():
        request.setHeader(name, value)
    return with_headers(request, error.status, error.body(accept_header(request)))


def error_of(request: Request, failure: Failure) -> ApiError:
    """Return the error response for ``failure``, and log what its text does not say."""
    error = _to_api_error(failure.value)
    fields: dict[str, Any] = {
        "method": request.method.decode("ascii", "replace")[:MAX_LOGGED_CHARACTERS],
        "uri": request.uri.decode("ascii", "replace")[:MAX_LOGGED_CHARACTERS],
        "request_id": "".join(request.responseHeaders.getRawHeaders(REQUEST_ID_HEADER, [])),
    }
    if error is None:
        _log.failure("{method} {uri} failed, request {request_id}", failure, **fields)
        error = ApiError(500, "Internal Server Error: the server log has details under this request id.")
    elif isinstance(failure.value, Unavailable):
        _log.warn("{method} {uri} refused, request {request_id}: {error}", error=str(failure.value), **fields)
    elif isinstance(failure.value, RequestError) and failure.value.cause:
        _log.info("{method} {uri} refused, request {request_id}: {error}", error=failure.value.cause, **fields)
    return error


def _to_api_error(error: BaseException | None) -> ApiError | None:
    """Return the error response for ``error``, ``None`` for an unexpected one."""
    match error:
        case ApiError():
            return error
        case RequestError():
            return ApiError(400, str(error))
        case Busy():
            return TryLater(503, str(error))
        case SamplesLost():
            return ApiError(410, error.public_text)
        case ArchiveUnavailable():
            return ApiError(503, error.public_text, {"Retry-After": str(RETRY_AFTER_SECONDS)})
        case Unavailable():
            return ApiError(503, UNAVAILABLE, {"Retry-After": str(RETRY_AFTER_SECONDS)})
        case MethodNotAllowed():
            return HttpError(405, headers={"Allow": ", ".join(sorted(error.valid_methods or ()))})
        case HTTPException():
            return HttpError(error.code or 400)
    return None
