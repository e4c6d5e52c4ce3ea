"""ApiTokenReader: the valid tokens of the API, read over a connection of their own."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Coroutine
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from meter.api_token import ApiToken
from meter.api_token import IApiTokens
from meter.interfaces import Unavailable
from meter.store.postgres.channel_listener import ChannelListener
from meter.store.postgres.connection import TimedOut
from meter.store.postgres.pool import Session
from meter.store.tokens.administration import CHANNEL
from meter.store.tokens.administration import VALID

STATEMENT_SECONDS = 5.0
"""Time limit of a query. It reads at most :data:`~meter.store.tokens.administration.MAX_VALID_TOKENS` rows."""

# hashtextextended has 64 bits; their sum does not depend on the order of the rows.
FINGERPRINT = f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM api_token t WHERE {VALID}"

TOKENS = f"SELECT id, sha256, is_admin, project_id, user_id, expires_at FROM api_token t WHERE {VALID}"


@implementer(IApiTokens)
class ApiTokenReader(ChannelListener):
    """Reads the valid tokens, over one connection, so that no query for samples delays it.

    ``connect`` makes a session to the primary, where tokens are revoked: a replica can lag. ``check`` prepares it.
    """

    def __init__(
        self,
        connect: Callable[[Callable[[], object]], Session],
        clock: IReactorTime,
        *,
        size: int,
        check: Callable[[Session], Coroutine[Any, Any, None]],
    ) -> None:
        super().__init__(
            connect,
            clock,
            channel=CHANNEL,
            name="store token reader",
            size=size,
            prepare=check,
            max_wait_seconds=STATEMENT_SECONDS,
        )
        self._fingerprint: object = None
        self._tokens: Sequence[ApiToken] = ()

    async def tokens(self) -> Sequence[ApiToken]:
        """Return the valid tokens; see ``IApiTokens.tokens``. Unchanged ones are not transferred again."""
        try:
            fingerprint = await self.rows(FINGERPRINT)
            if fingerprint != self._fingerprint:
                rows = await self.rows(TOKENS)
                # A change between the two queries makes the next fingerprint another one.
                self._tokens = [_token(*row) for row in rows]
                self._fingerprint = fingerprint
        except TimedOut as error:
            raise Unavailable(f"the tokens could not be read within {STATEMENT_SECONDS:g} s") from error
        return self._tokens


def _token(id: str, sha256: memoryview, is_admin: bool, project_id: Any, user_id: Any, expires_at: Any) -> ApiToken:
    expiry = None if expires_at is None else expires_at.astimezone(UTC)
    return ApiToken(id, bytes(sha256), is_admin, project_id, user_id, expiry)
