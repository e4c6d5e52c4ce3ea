"""The page that says what failed, and the way to the sign-in page for who has no valid token."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from twisted.python.failure import Failure
from twisted.web.server import Request

from meter.api.auth.authorization import AuthorizationEnded
from meter.api.auth.browser_session import SAFE_METHODS
from meter.api.auth.browser_session import BrowserSession
from meter.api.auth.browser_session import has_session_cookie
from meter.api.errors import DEFAULT_TEXTS
from meter.api.errors import ApiError
from meter.api.errors import Unauthenticated
from meter.api.failures import error_of
from meter.api.root_resource import REQUEST_ID_HEADER
from meter.api.sending import add_headers
from meter.api.sending import with_headers
from meter.api.web.page import HEADERS
from meter.api.web.page import HTML
from meter.api.web.page import NAVIGATION
from meter.api.web.page import environment
from meter.api.web.session import SessionView
from meter.api.web.session import own_path
from meter.api.web.session import session_view
from meter.interfaces import Unavailable

TEXTS = {
    403: "You may not see this.",
    404: "There is no such page, or what it should show does not exist or is not yours.",
    405: "This address does not take that kind of request.",
    503: "Meter cannot answer now: its database, or another part that it needs, does not answer.",
}
"""Texts instead of those for programs, by status, where those say nothing more."""

NO_PROJECT = "Your token is for no project, so there is nothing that you may see here."
OTHER_PROJECT = "This page shows another project than that of your token."


def render_failure_page(request: Request, failure: Failure) -> bytes:
    """Render an error response as a page; who has no valid token is sent to the sign-in page."""
    error = error_of(request, failure)
    session = getattr(request, "browser_session", None)
    here = own_path(request.uri.decode("ascii", "replace")) if request.method in SAFE_METHODS else "/"
    if isinstance(failure.value, Unauthenticated) or (
        isinstance(failure.value, AuthorizationEnded) and error.status == HTTPStatus.UNAUTHORIZED
    ):
        reason = "expired" if has_session_cookie(request) else "needed"
        add_headers(request, {**HEADERS, "Location": f"/sign-in?next={quote(here, safe='')}&reason={reason}"})
        return with_headers(request, HTTPStatus.SEE_OTHER, b"", f"{HTML}; charset=utf-8")
    # What a program is told by 401, that the token is that of another project, no sign-in with the same token mends.
    status = HTTPStatus.FORBIDDEN if error.status == HTTPStatus.UNAUTHORIZED else error.status
    add_headers(request, {**HEADERS, **error.headers})
    view = None if session is None else session_view(session, here)
    body = (
        environment()
        .get_template("failure.html")
        .render(
            title=HTTPStatus(status).phrase,
            status=int(status),
            text=_text(error, failure, session),
            advice=_advice(status, view),
            retry_seconds=_retry_seconds(error),
            request_id="".join(request.responseHeaders.getRawHeaders(REQUEST_ID_HEADER, [])),
            here=here,
            requester=None,
            session=view,
            navigation=NAVIGATION if view is not None else (),
        )
    )
    return with_headers(request, status, body.encode(), f"{HTML}; charset=utf-8")


def _text(error: ApiError, failure: Failure, session: BrowserSession | None) -> str:
    if error.status == HTTPStatus.UNAUTHORIZED:
        return OTHER_PROJECT
    asked = None if session is None or session.mode == "none" else session.requester
    if error.status == HTTPStatus.FORBIDDEN and asked and not asked.is_admin and not asked.project_id:
        return NO_PROJECT
    if isinstance(failure.value, Unavailable) and error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return TEXTS[503]
    return TEXTS.get(error.status, error.text) if error.text == DEFAULT_TEXTS.get(error.status) else error.text


def _advice(status: int, view: SessionView | None) -> str:
    if status == HTTPStatus.FORBIDDEN and view is not None and view.mode == "tokens":
        return "Sign out, and sign in with another token to see more."
    return ""


def _retry_seconds(error: ApiError) -> int | None:
    seconds = error.headers.get("Retry-After", "")
    return int(seconds) if seconds.isdecimal() else None
