"""The requester, the authenticated sender of a request, and the interface of the authentication modes."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field

from twisted.web.iweb import IRequest
from zope.interface import Interface
from zope.interface import implementer

from meter.api.auth.browser_session import cookie_token

TOKEN_HEADER = "X-Auth-Token"

MAX_TOKEN_CHARACTERS = 8192
"""Longer tokens are refused; Keystone's tokens have a few hundred characters."""

_TOKEN = re.compile(rb"[!-~]{1,%d}" % MAX_TOKEN_CHARACTERS)
"""Visible ASCII characters."""

_PHRASE = re.compile(rb"(?=.{1,%d}\Z)[!-~](?:[ -~]*[!-~])?" % MAX_TOKEN_CHARACTERS)
"""Visible ASCII characters with blanks between them."""


def well_formed_token(request: IRequest, *, blanks: bool = False) -> str | None:
    """Return the token of ``request``; ``None`` if it has none, or several, or one that cannot be a token by its form.

    It is in ``X-Auth-Token``; in ``Authorization: Bearer``, as Prometheus and Grafana send it; in the cookie of a browser; or,
    if it is in none of these, in ``Authorization: Basic`` as the password of any user, for clients that have nothing else.
    With ``blanks`` it can contain some: whoever writes a token into the configuration can choose a phrase.
    """
    values = request.requestHeaders.getRawHeaders(TOKEN_HEADER.encode()) or []
    values = [*values, *_authorization_tokens(request, b"bearer")]
    if not values and (in_cookie := cookie_token(request)) is not None:
        values = [in_cookie.encode()]
    values = values or [*_authorization_tokens(request, b"basic")]
    return checked_form(values[0], blanks=blanks) if len(values) == 1 else None


def checked_form(value: bytes, *, blanks: bool = False) -> str | None:
    """Return ``value`` as a token, ``None`` for what cannot be one by its form."""
    form = _PHRASE if blanks else _TOKEN
    return value.decode("ascii") if form.fullmatch(value) else None


def _authorization_tokens(request: IRequest, wanted: bytes) -> Iterator[bytes]:
    """Yield the tokens in ``Authorization`` headers with the scheme ``wanted``."""
    for value in request.requestHeaders.getRawHeaders(b"authorization") or ():
        scheme, _, credentials = value.partition(b" ")
        if scheme.lower() == wanted:
            yield credentials.strip(b" ") if wanted == b"bearer" else _password(credentials.strip(b" "))


def _password(credentials: bytes) -> bytes:
    """Return the password in the credentials of basic authentication (RFC 7617), empty if there is none."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


@dataclass(frozen=True, slots=True)
class Requester:
    """An authenticated client. An administrator sees all samples, anyone else those of ``project_id``.

    ``expires_at`` is the expiry of the token, in seconds since 1970; names are for people, and empty if they are not known.
    These do not count when requesters are compared.
    """

    is_admin: bool
    project_id: str | None = None
    user_id: str | None = None
    expires_at: float | None = field(default=None, compare=False)
    user_name: str = field(default="", compare=False)
    project_name: str = field(default="", compare=False)


class IAuth(Interface):
    """Authenticates requests."""

    async def requester(request: IRequest) -> Requester:  # noqa: N805 - methods of an Interface have no self
        """Return the :class:`Requester`; raises :class:`~meter.api.errors.Unauthenticated`, or ``Unavailable``."""


class ITokenAuth(IAuth):
    """Authenticates requests by a token, and people who sign in with one."""

    async def owner(token: str, address: str) -> Requester:  # noqa: N805
        """Return whom ``token``, from the client ``address``, identifies; raises as :meth:`IAuth.requester` does."""

    def forget(token: str) -> None:  # noqa: N805
        """Do not accept ``token``, which has been revoked, from a cache."""


@implementer(IAuth)
class NoAuth:
    """Auth mode ``none``: every client is an administrator."""

    async def requester(self, request: IRequest) -> Requester:
        """Return an administrator."""
        return Requester(is_admin=True)
