"""The session of a browser: its token in a cookie, and which requests a browser makes by itself for another site.

The cookie holds the token itself, so that the server keeps no sessions. Scripts cannot read it (``HttpOnly``), other sites
cannot send it but by a link (``SameSite=Lax``), and it counts in requests that change something only if the browser says that
a page of this API has sent them.
"""

from __future__ import annotations

from http.cookies import CookieError
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

from twisted.web.iweb import IRequest

COOKIE = "meter_token"

SAFE_METHODS = (b"GET", b"HEAD", b"OPTIONS")
"""Methods that change nothing."""


def cookie_token(request: IRequest) -> str | None:
    """Return the token in the cookie of ``request``, ``None`` without one, and where it does not count: see :func:`sent_by_own_page`."""
    if request.method not in SAFE_METHODS and not sent_by_own_page(request):
        return None
    for header in request.requestHeaders.getRawHeaders(b"cookie", ()):
        try:
            found = SimpleCookie(header.decode()).get(COOKIE)
        except (CookieError, UnicodeDecodeError):
            continue
        if found is not None and found.value:
            return found.value
    return None


def sent_by_own_page(request: IRequest) -> bool:
    """Return whether the browser says that a page of this API has sent ``request``, or its user by hand.

    Browsers send ``Sec-Fetch-Site`` to secure origins and to localhost, and ``Origin`` with each POST. A request with
    neither is not from a page, as far as can be told.
    """
    site = request.getHeader("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.getHeader("origin")
    return origin is not None and urlsplit(origin).netloc == request.getHeader("host")


def session_cookie(token: str, *, secure: bool) -> str:
    """Return the header ``Set-Cookie`` that begins a session with ``token``; it ends with the browser, or as :func:`ended_cookie`."""
    return f"{COOKIE}={token}; {_attributes(secure=secure)}"


def ended_cookie(*, secure: bool) -> str:
    """Return the header ``Set-Cookie`` that ends a session."""
    return f"{COOKIE}=; Max-Age=0; {_attributes(secure=secure)}"


def _attributes(*, secure: bool) -> str:
    return f"Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
