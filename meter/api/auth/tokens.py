"""Auth mode ``tokens``: a fixed list of tokens, known by their hashes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from twisted.web.iweb import IRequest
from zope.interface import implementer

from meter.api.auth.visibility import IAuth
from meter.api.auth.visibility import Requester
from meter.api.errors import Unauthenticated

TOKEN_HEADER = "X-Auth-Token"
CHALLENGE = 'Token realm="meter"'


@dataclass(frozen=True, slots=True)
class StaticToken:
    """The SHA-256 of a token, as 64 lower-case hexadecimal digits, and whoever presents the token."""

    sha256: str
    requester: Requester


@implementer(IAuth)
class StaticTokens:
    """Knows requesters by the token in their ``X-Auth-Token`` header."""

    def __init__(self, tokens: Iterable[StaticToken]) -> None:
        self._tokens = tuple(tokens)

    async def requester(self, request: IRequest) -> Requester:
        """Return whose token the request has; every known token is compared, however early one matches."""
        given = request.getHeader(TOKEN_HEADER) or ""
        digest = hashlib.sha256(given.encode()).hexdigest()
        matching = [token.requester for token in self._tokens if hmac.compare_digest(token.sha256, digest)]
        if not given or not matching:
            raise Unauthenticated(CHALLENGE)
        return matching[0]
