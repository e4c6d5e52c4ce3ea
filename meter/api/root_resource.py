"""The root resource: request ids, CORS, and the checks that precede routing."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.resource import Resource
from twisted.web.server import Request

from meter.api.auth.requester import TOKEN_HEADER
from meter.api.errors import ApiError
from meter.daemon.http_server import request_problem
from meter.daemon.http_server import set_response_headers

REQUEST_ID_HEADER = "x-openstack-request-id"
EXPOSED_HEADERS = ("allow", "link", "retry-after", "warning", "www-authenticate", REQUEST_ID_HEADER)
"""Response headers that scripts of another origin can read, besides those that browsers always expose."""

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token, as defined in RFC 9110."""


class RootResource(Resource):
    """Passes requests to ``inner``, the resource of klein, after checking what klein would reject in HTML or plain text.

    ``render_failure`` returns the body of an error response. Scripts from ``cors_origins`` can use the API in a browser,
    from any origin if ``*`` is one of them.
    """

    isLeaf = True  # noqa: N815 - Twisted's name

    def __init__(
        self, inner: IResource, render_failure: Callable[[Request, Failure], bytes], cors_origins: frozenset[str]
    ) -> None:
        super().__init__()
        self._inner = inner
        self._render_failure = render_failure
        self._cors_origins = cors_origins

    def render(self, request: Request) -> Any:
        """Render the response of ``inner``, or of an error that occurs before routing."""
        request.setHeader(REQUEST_ID_HEADER, f"req-{uuid.uuid4()}")
        set_response_headers(request.responseHeaders)
        segments = request.postpath or []
        if len(segments) > 1 and not segments[-1]:
            segments.pop()  # one slash at the end is tolerated
        try:
            if problem := request_problem(request):
                raise ApiError(400, problem)
            if self._handle_cors(request):
                return b""
            _check_request_line(request.method, b"/".join(segments))
            return self._inner.render(request)
        except Exception:
            return self._render_failure(request, Failure())

    def _handle_cors(self, request: Request) -> bool:
        """Set the CORS headers for an allowed origin; return whether the request is a preflight, which needs no more."""
        origin = request.getHeader("origin") or ""
        if not origin or self._cors_origins.isdisjoint((origin, "*")):
            return False
        request.setHeader("access-control-allow-origin", origin)
        request.setHeader("access-control-expose-headers", ", ".join(EXPOSED_HEADERS))
        request.setHeader("vary", "origin")
        if request.method != b"OPTIONS" or not request.getHeader("access-control-request-method"):
            return False
        request.setResponseCode(204)
        request.setHeader("access-control-allow-methods", "GET, HEAD, POST")
        request.setHeader("access-control-allow-headers", f"{TOKEN_HEADER}, authorization, content-type, accept")
        request.setHeader("access-control-max-age", "600")
        return True


def _check_request_line(method: bytes, path: bytes) -> None:
    """Raise :class:`ApiError` 400 for a method or a path that cannot be routed."""
    if not _METHOD.fullmatch(method):
        raise ApiError(400, "The request method is not a valid token.")
    try:
        path.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, "The path must be percent-encoded UTF-8.") from error
    if b"\0" in path:
        raise ApiError(400, "The path must not contain NUL characters.")
