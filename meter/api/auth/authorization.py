"""The authorization of one request, which is checked again while the request is in progress.

A token can be revoked, expire or lose its roles during an export, a live stream or a long query. Therefore one rule
applies to all requests: data of the store are read and sent only while the authorization is valid.
:class:`~meter.api.auth.visibility.VisibleStore` checks it before and after each query, and
:func:`~meter.api.streaming.backpressure.stream` before each chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from meter.api.auth.requester import IAuth
from meter.api.auth.requester import Requester
from meter.api.errors import CREDENTIALS_REFUSED
from meter.api.errors import ApiError
from meter.daemon.services import wall_seconds
from meter.interfaces import Unavailable

RECHECK_SECONDS = 1.0
"""The authentication is asked at most once in this time. A revoked token is accepted while it is cached there."""

RETRY_SECONDS = 5.0
"""Pause after the authentication was unavailable, because an attempt can last as long as its timeout."""

MAX_LIMITED_SECONDS = 30.0
"""How long a request goes on while a limit prevents the check, such as one on checks from an address. It is short because a
client can bring that about."""


class AuthorizationEnded(ApiError):
    """The authorization of a request in progress has ended: its token is not valid any more (401), or unchecked for too long (503).

    ``cause`` is for the log: it can have addresses of internal services.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None, cause: str = "") -> None:
        super().__init__(status, text, headers)
        self.cause = cause

    def body(self, accept: str) -> bytes:
        """Return the JSON body, in the shape of :class:`~meter.api.errors.Unauthenticated`; ``accept`` is not used here."""
        title = HTTPStatus(self.status).phrase
        return msgspec.json.encode({"error": {"code": self.status, "title": title, "message": self.text}})


class Authorization:
    """The authorization of ``request``, whose token ``auth`` has identified as that of ``requester``.

    While ``auth`` is unavailable the authorization stays valid for ``max_unchecked_seconds`` after the last successful
    check, but not beyond the expiry of the token; while it refuses to check because of a limit, for
    :data:`MAX_LIMITED_SECONDS`.
    """

    def __init__(
        self,
        auth: IAuth,
        request: IRequest,
        requester: Requester,
        clock: IReactorTime,
        *,
        max_unchecked_seconds: float,
    ) -> None:
        self._auth = auth
        self._request = request
        self._requester = requester
        self._clock = clock
        self._max_unchecked_seconds = max_unchecked_seconds
        self._checked_at = clock.seconds()
        self._next_check = self._checked_at + RECHECK_SECONDS
        self._limited_since: float | None = None

    async def check(self) -> None:
        """Return if the authorization is valid, else raise :class:`AuthorizationEnded`. Most calls return at once."""
        self._check_expiry()
        if self._clock.seconds() < self._next_check:
            return
        try:
            requester = await self._auth.requester(self._request)
        except Unavailable as error:
            self._unchecked(str(error), self._checked_at + self._max_unchecked_seconds, RETRY_SECONDS)
        except ApiError as error:
            if error.status in CREDENTIALS_REFUSED:
                raise AuthorizationEnded(
                    401, "The token is not valid any more: it has been revoked or has expired.", error.headers
                ) from error
            if self._limited_since is None:
                self._limited_since = self._clock.seconds()
            self._unchecked(error.text, self._limited_since + MAX_LIMITED_SECONDS, RECHECK_SECONDS)
        else:
            if requester != self._requester:
                raise AuthorizationEnded(401, "The project, the user or the roles of the token have changed.")
            self._requester = requester
            self._limited_since = None
            self._checked_at = self._clock.seconds()
            self._next_check = self._checked_at + RECHECK_SECONDS
        self._check_expiry()

    def _check_expiry(self) -> None:
        expires_at = self._requester.expires_at
        if expires_at is not None and wall_seconds(self._clock) >= expires_at:
            raise AuthorizationEnded(401, "The token has expired.")

    def _unchecked(self, reason: str, valid_until: float, retry_seconds: float) -> None:
        now = self._clock.seconds()
        self._next_check = now + retry_seconds
        if now > min(valid_until, self._checked_at + self._max_unchecked_seconds):
            raise AuthorizationEnded(
                503,
                f"The token could not be checked for {now - self._checked_at:.0f} s.",
                {"Retry-After": f"{RETRY_SECONDS:.0f}"},
                reason,
            )
