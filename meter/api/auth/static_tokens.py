"""Auth mode ``tokens``: the tokens of the configuration, stored as hashes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from twisted.web.iweb import IRequest
from zope.interface import implementer

from meter.api.auth.requester import ITokenAuth
from meter.api.auth.requester import Requester
from meter.api.auth.requester import checked_form
from meter.api.auth.requester import well_formed_token
from meter.api.errors import Unauthenticated

CHALLENGE = 'Token realm="meter"'


@dataclass(frozen=True, slots=True)
class StaticToken:
    """The SHA-256 of a token, as 64 lower-case hexadecimal digits, and the requester that the token identifies."""

    sha256: str
    requester: Requester


@implementer(ITokenAuth)
class StaticTokens:
    """Identifies requesters by the token in their ``X-Auth-Token`` header."""

    def __init__(self, tokens: Iterable[StaticToken]) -> None:
        self._tokens = tuple(tokens)

    def replace(self, tokens: Iterable[StaticToken]) -> None:
        """Accept other tokens from now on."""
        self._tokens = tuple(tokens)

    async def requester(self, request: IRequest) -> Requester:
        """Return the requester of the token; raise :class:`Unauthenticated` for an unknown one."""
        return self._owner(well_formed_token(request, blanks=True))

    async def owner(self, token: str, address: str) -> Requester:
        """Return the requester of ``token``, which a person signs in with; raise :class:`Unauthenticated` for an unknown one."""
        return self._owner(checked_form(token.encode(), blanks=True))

    def forget(self, token: str) -> None:
        """Do nothing: there is no cache."""

    def _owner(self, token: str | None) -> Requester:
        found = None if token is None else self.find(token)
        if found is None:
            raise Unauthenticated(CHALLENGE)
        return found

    def find(self, token: str) -> Requester | None:
        """Return the requester of ``token``, ``None`` for an unknown one.

        Every configured token is compared, whether or not an earlier one matched, so that the response time reveals nothing.
        """
        digest = hashlib.sha256(token.encode()).hexdigest()
        matches = [each.requester for each in self._tokens if hmac.compare_digest(each.sha256, digest)]
        return matches[0] if token and matches else None
