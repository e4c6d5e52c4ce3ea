"""The page that says what failed, and the way to the sign-in page for who has no valid token."""

from __future__ import annotations

from http import HTTPStatus

from twisted.python.failure import Failure
from twisted.web.server import Request

from meter.api.failures import error_of
from meter.api.root_resource import REQUEST_ID_HEADER
from meter.api.sending import with_headers
from meter.api.web.page import HEADERS
from meter.api.web.page import HTML
from meter.api.web.page import environment


def render_failure_page(request: Request, failure: Failure) -> bytes:
    """Render an error response as a page."""
    error = error_of(request, failure)
    for name, value in {**HEADERS, **error.headers}.items():
        request.setHeader(name, value)
    body = (
        environment()
        .get_template("failure.html")
        .render(
            title=HTTPStatus(error.status).phrase,
            status=error.status,
            text=error.text,
            request_id="".join(request.responseHeaders.getRawHeaders(REQUEST_ID_HEADER, [])),
            requester=None,
            navigation=(),
        )
    )
    return with_headers(request, error.status, body.encode(), f"{HTML}; charset=utf-8")
