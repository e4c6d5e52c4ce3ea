"""The session of a browser: its token in a cookie, and which requests a browser makes by itself for another site.

The cookie holds the token itself, so that the server keeps no sessions. Scripts cannot read it (``HttpOnly``), other sites
cannot send it but by a link (``SameSite=Lax``), and it counts in requests that change something only if the browser says that
a page of this API has sent them. Over TLS its name begins with ``__Host-``: other hosts of the same domain cannot set it,
and one without it does not count there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import quote
from urllib.parse import unquote
from urllib.parse import urlsplit

from twisted.web.iweb import IRequest

if TYPE_CHECKING:
    from meter.api.auth.requester import Requester

COOKIE = "meter_token"

ISSUED_COOKIE = "meter_token_issued"
"""Present if Meter itself got the token from Keystone, so that signing out revokes it."""

SECURE_PREFIX = "__Host-"
"""Browsers accept a cookie with such a name only from the host itself, over TLS, for all paths."""

SAFE_METHODS = (b"GET", b"HEAD", b"OPTIONS")
"""Methods that change nothing."""

MAX_COOKIE_CHARACTERS = 4000
"""Browsers keep 4096 bytes of name, value and attributes."""


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """What a page knows of the request of a browser, besides its parameters.

    ``mode`` is that of authentication. ``address`` is that of the client for limits. ``secure``: the browser uses TLS.
    ``token`` is in the cookie, and ``issued`` to Meter; it has been checked unless the operation is public.
    """

    mode: str
    requester: Requester
    address: str = ""
    secure: bool = False
    token: str | None = field(default=None, repr=False)
    issued: bool = False


def browser_session(
    request: IRequest, *, mode: str, requester: Requester, address: str, base_url: str
) -> BrowserSession:
    """Return the session of ``request``. It is secure if this server, ``base_url`` or the browser says so."""
    return BrowserSession(
        mode,
        requester,
        address,
        secure=sent_over_tls(request) or base_url.startswith("https:"),
        token=cookie_token(request),
        issued=bool(_cookie(request, ISSUED_COOKIE)),
    )


def cookie_token(request: IRequest) -> str | None:
    """Return the token in the cookie of ``request``, ``None`` without one, and where it does not count.

    It does not count where something is changed but by :func:`sent_by_own_page`, nor in what a page of another site loads,
    apart from links that are followed.
    """
    if request.method in SAFE_METHODS:
        if request.getHeader("sec-fetch-site") in ("cross-site", "same-site"):
            loaded = request.getHeader("sec-fetch-mode") != "navigate"
            if loaded or request.getHeader("sec-fetch-dest") not in (None, "document"):
                return None
    elif not sent_by_own_page(request):
        return None
    return _cookie(request, COOKIE) or None


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


def sent_over_tls(request: IRequest) -> bool:
    """Return whether the browser that sent ``request`` surely uses TLS, perhaps to a proxy in front of this server.

    Browsers send ``Sec-Fetch-Site`` over TLS, and without it to hosts of their own machine alone.
    """
    if request.isSecure() or (request.getHeader("origin") or "").startswith("https:"):
        return True
    host = _host_name(request.getHeader("host") or "")
    return request.getHeader("sec-fetch-site") is not None and not _is_own_machine(host)


def _host_name(host: str) -> str:
    """Return ``host`` without its port, empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_own_machine(host: str) -> bool:
    """Return whether browsers trust ``host`` without TLS; an empty one says nothing."""
    if host in ("", "localhost") or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def session_cookie(token: str, *, secure: bool) -> str:
    """Return the header ``Set-Cookie`` that begins a session with ``token``; it ends with the browser, or as :func:`ended_cookies`."""
    return _set_cookie(COOKIE, quote(token, safe=""), secure=secure)


def session_cookies(token: str, *, issued: bool, secure: bool) -> tuple[str, ...]:
    """Return the headers ``Set-Cookie`` that begin a session with ``token``, ``issued`` to Meter or brought by its owner."""
    mark = _set_cookie(ISSUED_COOKIE, "1", secure=secure) if issued else _end_cookie(ISSUED_COOKIE, secure=secure)
    return session_cookie(token, secure=secure), mark


def ended_cookies(*, secure: bool) -> tuple[str, ...]:
    """Return the headers ``Set-Cookie`` that end a session."""
    return _end_cookie(COOKIE, secure=secure), _end_cookie(ISSUED_COOKIE, secure=secure)


def has_session_cookie(request: IRequest) -> bool:
    """Return whether the browser has a cookie with a token, valid or not."""
    return bool(_cookie(request, COOKIE))


def _set_cookie(name: str, value: str, *, secure: bool) -> str:
    prefix = SECURE_PREFIX if secure else ""
    return f"{prefix}{name}={value}; {_attributes(secure=secure)}"


def _end_cookie(name: str, *, secure: bool) -> str:
    prefix = SECURE_PREFIX if secure else ""
    return f"{prefix}{name}=; Max-Age=0; {_attributes(secure=secure)}"


def _attributes(*, secure: bool) -> str:
    return f"Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"


def _cookie(request: IRequest, name: str) -> str:
    """Return the value of a cookie, empty if there is none, or if there are different ones of the same name.

    Cookies of other programs on the same host can have any form; they are skipped.
    """
    found: dict[str, set[str]] = {}
    for each, value in _cookies(request):
        found.setdefault(each, set()).add(value)
    # Over TLS, one without the prefix has been set by another host of the domain, or by who changes traffic without TLS.
    names = (f"{SECURE_PREFIX}{name}",) if sent_over_tls(request) else (f"{SECURE_PREFIX}{name}", name)
    for each in names:
        if values := found.get(each):
            return unquote(values.pop()) if len(values) == 1 else ""
    return ""


def _cookies(request: IRequest) -> Iterator[tuple[str, str]]:
    for header in request.requestHeaders.getRawHeaders(b"cookie", ()):
        for pair in header.decode("utf-8", "replace").split(";"):
            name, _, value = pair.partition("=")
            yield name.strip(), value.strip()
