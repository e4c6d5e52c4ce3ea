"""Auth mode ``tokens``: the tokens that ``meter-token`` made, held in memory, and those of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from zope.interface import implementer

from meter.api.auth.requester import ITokenAuth
from meter.api.auth.requester import Requester
from meter.api.auth.requester import checked_form
from meter.api.auth.requester import well_formed_token
from meter.api.auth.static_tokens import CHALLENGE
from meter.api.auth.static_tokens import StaticTokens
from meter.api.errors import Unauthenticated
from meter.api_token import ApiToken
from meter.api_token import IApiTokens
from meter.api_token import digest_of
from meter.api_token import id_of
from meter.daemon.services import wall_seconds
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable


@implementer(ITokenAuth, IDependency)
class StoredTokens:
    """Identifies requesters by their ``X-Auth-Token``: one of ``configured``, or one that ``source`` has.

    All valid tokens are in memory, so that no request waits for the database, and one with a made-up token costs nothing.
    :meth:`refresh` reads them again; call it periodically. After a failure the tokens that were read last are accepted for
    ``max_unchecked_seconds``, but none beyond its expiry. Then, and at once for a token that may be newer than the last
    reading, the answer is ``Unavailable``: a client whose token is valid must not conclude that it is not.
    """

    def __init__(
        self, source: IApiTokens, configured: StaticTokens, clock: IReactorTime, *, max_unchecked_seconds: float
    ) -> None:
        self._source = source
        self._configured = configured
        self._clock = clock
        self._max_unchecked_seconds = max_unchecked_seconds
        self._tokens: Sequence[ApiToken] = ()
        self._by_digest: Mapping[bytes, ApiToken] = {}
        self._read_at: float | None = None
        self._problem = "the tokens have not been read yet"
        self._refreshing = False
        self._again = False
        source.subscribe(self._refresh_soon)

    async def requester(self, request: IRequest) -> Requester:
        """Return the owner of the token; :class:`Unauthenticated`, or ``Unavailable`` while that is unknown."""
        return self._owner(well_formed_token(request, blanks=True))

    async def owner(self, token: str, address: str) -> Requester:
        """Return the owner of ``token``, which a person signs in with; raises as :meth:`requester` does."""
        return self._owner(checked_form(token.encode(), blanks=True))

    def forget(self, token: str) -> None:
        """Do nothing: :meth:`refresh` forgets."""

    def _owner(self, token: str | None) -> Requester:
        if token is None:
            raise Unauthenticated(CHALLENGE)
        if (configured := self._configured.find(token)) is not None:
            return configured
        if id_of(token) is None:
            raise Unauthenticated(CHALLENGE)
        found = self._by_digest.get(digest_of(token))
        if self._age > self._max_unchecked_seconds or (self._problem and found is None):
            raise Unavailable(f"the token cannot be checked: {self._problem or 'the database does not answer'}")
        expires_at = None if found is None or found.expires_at is None else found.expires_at.timestamp()
        if found is None or (expires_at is not None and expires_at <= wall_seconds(self._clock)):
            raise Unauthenticated(CHALLENGE)
        return Requester(found.is_admin, found.project_id, found.user_id, expires_at)

    async def refresh(self) -> None:
        """Read the tokens again. A call during another one makes that read them once more."""
        self._again = True
        if self._refreshing:
            return
        self._refreshing = True
        try:
            while self._again:
                self._again = False
                await self._refresh()
        finally:
            self._refreshing = False

    async def _refresh(self) -> None:
        began = self._clock.seconds()
        try:
            tokens = await self._source.tokens()
        except Unavailable as error:
            self._problem = str(error)
            return
        if tokens is not self._tokens:
            self._tokens = tokens
            self._by_digest = {token.sha256: token for token in tokens}
        self._problem = ""
        self._read_at = began

    def _refresh_soon(self) -> None:
        Deferred.fromCoroutine(self.refresh())

    @property
    def _age(self) -> float:
        """How long ago the tokens were read, in seconds."""
        return float("inf") if self._read_at is None else self._clock.seconds() - self._read_at

    def readiness(self) -> Readiness:
        """Return whether the tokens are up to date, and if not, whether those read last are still accepted."""
        if not self._problem:
            return Readiness("tokens", True, f"{len(self._tokens)} valid tokens in the database")
        if self._age <= self._max_unchecked_seconds:
            reason = f"the tokens are those of {self._age:.0f} s ago, new ones are answered with 503: {self._problem}"
            return Readiness("tokens", False, reason, needed=False)
        return Readiness("tokens", False, self._problem)
