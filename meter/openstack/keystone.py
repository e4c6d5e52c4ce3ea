"""Keystone v3: one token for all that this process asks, renewed before it ends, and what others' tokens say."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any

import msgspec
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime

from meter.http.exchange import BadResponse
from meter.http.exchange import ErrorResponse
from meter.http.exchange import HttpRequest
from meter.http.exchange import HttpResponse
from meter.interfaces import Unavailable
from meter.openstack.catalogue import Catalogue
from meter.openstack.catalogue import versioned
from meter.openstack.credentials import Credentials

NOT_FOUND = 404
UNAUTHORIZED = 401

Send = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Exchanges a request for an answer of whatever status; raises :class:`Unavailable`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What Keystone says about a token: until when it is good, whose it is, for what, and where services are."""

    id: str = field(repr=False)
    issued_at: datetime
    expires_at: datetime
    user_id: str | None = None
    project_id: str | None = None
    domain_id: str | None = None
    system: bool = False
    roles: frozenset[str] = frozenset()
    catalogue: Catalogue = field(default_factory=Catalogue, repr=False)


class Keystone:
    """Keystone at ``credentials.auth_url``; ``send`` exchanges requests for answers.

    Its own token is fetched when first asked for, whoever asks meanwhile waits for the same, and it is renewed
    ``renew_before_seconds`` before it ends, or after three quarters of its life where that is shorter. How long it
    lives is told by Keystone and measured by ``clock``, so it does not matter how far the two clocks are apart.
    """

    def __init__(
        self, send: Send, credentials: Credentials, clock: IReactorTime, *, renew_before_seconds: float = 120.0
    ) -> None:
        self._send = send
        self._credentials = credentials
        self._clock = clock
        self._renew_before_seconds = renew_before_seconds
        self._url = f"{versioned(credentials.auth_url, 'v3')}/auth/tokens"
        self._token: Token | None = None
        self._renew_at = 0.0
        self._one_at_a_time = DeferredLock()
        self.authentications = 0

    async def token(self) -> Token:
        """Return a token that is good for a while; :class:`Unavailable` when Keystone gives none, and why."""
        if self._token is None or self._clock.seconds() >= self._renew_at:
            await self._one_at_a_time.acquire()
            try:
                if self._token is None or self._clock.seconds() >= self._renew_at:
                    await self._authenticate()
            finally:
                self._one_at_a_time.release()
        assert self._token is not None
        return self._token

    def reject(self, token: Token) -> None:
        """Forget ``token``, which a service did not accept; nothing happens if it was renewed in the meantime."""
        if token is self._token:
            self._token = None

    async def check(self) -> None:
        """Return if Keystone answers, accepts our account and can say what a token is; else :class:`Unavailable`."""
        await self.validate((await self.token()).id)

    async def _authenticate(self) -> None:
        self.authentications += 1
        asked_at = self._clock.seconds()
        answer = await self._send(
            HttpRequest(
                method="POST",
                url=self._url,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                body=msgspec.json.encode(self._credentials.request()),
            )
        )
        try:
            answer.checked()
        except ErrorResponse as error:
            if error.status == UNAUTHORIZED:
                raise ErrorResponse(f"Keystone does not accept our credentials: {error}", error.status) from None
            raise
        id_ = answer.header("x-subject-token")
        if not id_:
            raise BadResponse(f"{answer.request}: the answer has no X-Subject-Token; is this Keystone v3?")
        token = _token(id_, answer)
        life = (token.expires_at - token.issued_at).total_seconds()
        self._token = token
        self._renew_at = asked_at + life - min(self._renew_before_seconds, life / 4)

    async def validate(self, subject_token: str) -> Token | None:
        """Return what Keystone says about ``subject_token``, ``None`` if it is not (or no longer) good.

        Raises :class:`Unavailable` when Keystone cannot be asked, or does not accept us.
        """
        if not subject_token or not subject_token.isascii() or not subject_token.isprintable():
            return None  # no header could carry it
        for attempt in (1, 2):
            ours = await self.token()
            answer = await self._send(
                HttpRequest(
                    method="GET",
                    url=f"{self._url}?nocatalog",
                    headers={
                        "X-Auth-Token": ours.id,
                        "X-Subject-Token": subject_token,
                        "Accept": "application/json",
                    },
                )
            )
            if answer.status == UNAUTHORIZED and attempt == 1:
                self.reject(ours)
                continue
            break
        if answer.status == NOT_FOUND:
            return None
        return _token(subject_token, answer.checked())


def _token(id_: str, answer: HttpResponse) -> Token:
    """Read a token's body; raise :class:`BadAnswer` where it lacks what is needed."""
    document = answer.json()
    try:
        body = document["token"]
        return Token(
            id=id_,
            issued_at=datetime.fromisoformat(body["issued_at"]),
            expires_at=datetime.fromisoformat(body["expires_at"]),
            user_id=_id(body.get("user")),
            project_id=_id(body.get("project")),
            domain_id=_id(body.get("domain")),
            system=bool(body.get("system")),
            roles=frozenset(str(role["name"]) for role in body.get("roles") or ()),
            catalogue=Catalogue.read(body.get("catalog")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadResponse(
            f"{answer.request}: the answer is no token of Keystone v3: {type(error).__name__} {error}"
        ) from None


def _id(entity: Any) -> str | None:
    return str(entity["id"]) if entity else None


__all__ = ["Keystone", "Send", "Token", "Unavailable"]
