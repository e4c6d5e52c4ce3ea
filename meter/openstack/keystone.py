"""Keystone v3: the token of this process, renewed before it expires, and validation of other tokens."""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime

from meter.daemon.locks import Lock
from meter.http.client import BadResponse
from meter.http.client import ErrorResponse
from meter.http.client import HttpRequest
from meter.http.client import HttpResponse
from meter.interfaces import Unavailable
from meter.openstack.catalogue import Catalogue
from meter.openstack.catalogue import versioned
from meter.openstack.credentials import Credentials

NOT_FOUND = 404
UNAUTHORIZED = 401

Send = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Sends a request and returns the response, whatever its status; raises :class:`Unavailable`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token: its validity, user, scope, roles and service catalogue. A name that Keystone does not send is empty."""

    id: str = field(repr=False)
    issued_at: datetime
    expires_at: datetime
    user_id: str | None = None
    user_name: str = ""
    project_id: str | None = None
    project_name: str = ""
    domain_id: str | None = None
    system: bool = False
    roles: frozenset[str] = frozenset()
    catalogue: Catalogue = field(default_factory=Catalogue, repr=False)


class Keystone:
    """Keystone at ``credentials.auth_url``; requests go through ``send``.

    Our token is fetched on first use, once for all concurrent callers. It is renewed ``renew_before_seconds`` before
    it expires, or after three quarters of its lifetime if that comes later. The lifetime is what Keystone says, counted
    by ``clock``, so differing clocks do no harm.
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
        self._lock = Lock()
        self.authentications = 0

    async def token(self) -> Token:
        """Return our token, renewed if due; raise :class:`Unavailable` if Keystone issues none."""
        if self._token is None or self._clock.seconds() >= self._renew_at:
            await self._lock.acquire()
            try:
                if self._token is None or self._clock.seconds() >= self._renew_at:
                    await self._authenticate()
            finally:
                self._lock.release()
        assert self._token is not None
        return self._token

    def reject(self, token: Token) -> None:
        """Discard ``token``, which a service rejected, unless it has been renewed since."""
        if token is self._token:
            self._token = None

    async def check(self) -> None:
        """Raise :class:`Unavailable` unless Keystone authenticates us and validates a token."""
        await self.validate((await self.token()).id)

    async def _authenticate(self) -> None:
        self.authentications += 1
        sent_at = self._clock.seconds()
        response = await self._send(
            HttpRequest(
                method="POST",
                url=self._url,
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                body=msgspec.json.encode(self._credentials.request()),
            )
        )
        try:
            response.checked()
        except ErrorResponse as error:
            if error.status == UNAUTHORIZED:
                raise ErrorResponse(f"Keystone rejects our credentials: {error}", error.status) from None
            raise
        token = issued_token(response)
        lifetime = (token.expires_at - token.issued_at).total_seconds()
        self._token = token
        self._renew_at = sent_at + lifetime - min(self._renew_before_seconds, lifetime / 4)

    async def validate(self, subject_token: str) -> Token | None:
        """Return the token with the id ``subject_token``, ``None`` if it is invalid or expired.

        Raises :class:`Unavailable` if Keystone is not reachable or rejects us.
        """
        if not subject_token or not subject_token.isascii() or not subject_token.isprintable():
            return None  # cannot be sent in a header
        for attempt in (1, 2):
            ours = await self.token()
            response = await self._send(
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
            if response.status == UNAUTHORIZED and attempt == 1:
                self.reject(ours)
                continue
            break
        if response.status == NOT_FOUND:
            return None
        return _parse_token(subject_token, response.checked())


def issued_token(response: HttpResponse) -> Token:
    """Return the token that Keystone issued by ``response``; raise :class:`BadResponse` for one without a token."""
    id_ = response.header("x-subject-token")
    if not id_:
        raise BadResponse(f"{response.request}: the response has no X-Subject-Token header; is this Keystone v3?")
    return _parse_token(id_, response)


def _parse_token(id_: str, response: HttpResponse) -> Token:
    """Return the token in the body of ``response``; raise :class:`BadResponse` for one that is not a token."""
    document = response.json()
    try:
        body = document["token"]
        return Token(
            id=id_,
            issued_at=datetime.fromisoformat(body["issued_at"]),
            expires_at=datetime.fromisoformat(body["expires_at"]),
            user_id=_id(body.get("user")),
            user_name=_name(body.get("user")),
            project_id=_id(body.get("project")),
            project_name=_name(body.get("project")),
            domain_id=_id(body.get("domain")),
            system=bool(body.get("system")),
            roles=frozenset(str(role["name"]) for role in body.get("roles") or ()),
            catalogue=Catalogue.read(body.get("catalog")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadResponse(
            f"{response.request}: the response is not a Keystone v3 token: {type(error).__name__} {error}"
        ) from None


def _id(entity: Any) -> str | None:
    return str(entity["id"]) if entity else None


def _name(entity: Any) -> str:
    return str(entity.get("name") or "") if entity else ""


__all__ = ["Keystone", "Send", "Token", "Unavailable"]
