"""Sign-in of people at Keystone: a token for their credentials, their projects, and the end of a token."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal

import msgspec

from meter.http import TlsOptions
from meter.http.client import BadResponse
from meter.http.client import HttpRequest
from meter.http.client import HttpResponse
from meter.http.factory import create_client
from meter.openstack.catalogue import versioned
from meter.openstack.credentials import Credentials
from meter.openstack.keystone import NOT_FOUND
from meter.openstack.keystone import UNAUTHORIZED
from meter.openstack.keystone import Send
from meter.openstack.keystone import Token
from meter.openstack.keystone import issued_token
from meter.openstack.validation import CONNECT_SECONDS
from meter.openstack.validation import TIMEOUT_SECONDS

RECEIPT_HEADER = "openstack-auth-receipt"
"""In the response to credentials that are right but need another factor."""

REFUSED = frozenset({400, 401, 403, 404, 409, 413})
"""Statuses of responses to credentials that Keystone does not accept; others say that Keystone itself has a problem."""

Refusal = Literal["credentials", "second factor", "scope"]


class SignInRefused(Exception):
    """Keystone issues no token: the credentials are wrong, need a second factor, or the token cannot be exchanged for the scope.

    It has nothing of what was sent to Keystone, nor of its response.
    """

    def __init__(self, reason: Refusal) -> None:
        super().__init__(f"Keystone issues no token: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class OwnProject:
    """A project in which a user has a role."""

    id: str
    name: str
    domain_id: str


class KeystoneSignIn:
    """Sign-in at the Keystone at ``auth_url``; requests go through ``send``. It has no credentials of its own.

    All methods raise :class:`~meter.interfaces.Unavailable` if Keystone does not answer, or has a problem itself.
    """

    def __init__(self, send: Send, auth_url: str) -> None:
        self.auth_url = auth_url
        self._send = send
        self._url = f"{versioned(auth_url, 'v3')}/auth"

    def replace(self, other: KeystoneSignIn) -> None:
        """Sign in where ``other`` does from now on."""
        self.auth_url, self._send, self._url = other.auth_url, other._send, other._url

    async def token(self, credentials: Credentials) -> Token:
        """Return a token for ``credentials``; raise :class:`SignInRefused`."""
        body = msgspec.json.encode(credentials.request())
        response = await self._ask("POST", "tokens", {"Content-Type": "application/json"}, body)
        if response.status == UNAUTHORIZED and response.header(RECEIPT_HEADER):
            raise SignInRefused("second factor")
        if response.status in REFUSED:
            raise SignInRefused("scope" if credentials.token else "credentials")
        return issued_token(response.checked())

    async def projects(self, token: str) -> Sequence[OwnProject]:
        """Return the projects in which the owner of ``token`` has a role, by name; raise :class:`SignInRefused`."""
        response = await self._ask("GET", "projects", {"X-Auth-Token": token})
        if response.status in REFUSED:
            raise SignInRefused("credentials")
        document = response.checked().json()
        try:
            found = [
                OwnProject(str(each["id"]), str(each["name"]), str(each.get("domain_id") or ""))
                for each in document["projects"]
                if each.get("enabled", True)
            ]
        except (KeyError, TypeError, AttributeError):
            raise BadResponse(f"{response.request}: the response is not a list of projects") from None
        return sorted(found, key=lambda project: (project.name.casefold(), project.id))

    async def revoke(self, token: str) -> None:
        """End ``token``, with itself as the credential. One that is not valid any more is no error."""
        response = await self._ask("DELETE", "tokens", {"X-Auth-Token": token, "X-Subject-Token": token})
        if response.status not in (UNAUTHORIZED, NOT_FOUND):
            response.checked()

    async def _ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> HttpResponse:
        sent = {"Accept": "application/json", **headers}
        return await self._send(HttpRequest(method=method, url=f"{self._url}/{path}", headers=sent, body=body))


def keystone_sign_in(reactor: Any, tls: TlsOptions, auth_url: str) -> KeystoneSignIn:
    """Return the sign-in at ``auth_url``; raise :class:`~meter.tls.BadTlsFile`."""
    client = create_client(reactor, tls, connect_seconds=CONNECT_SECONDS, timeout_seconds=TIMEOUT_SECONDS)
    return KeystoneSignIn(client.send, auth_url)
