"""Auth mode ``keystone``: tokens validated by Keystone, with a cache of the results."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cachetools import TLRUCache
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from zope.interface import implementer

from meter.api.auth.requester import TOKEN_HEADER
from meter.api.auth.requester import IAuth
from meter.api.auth.requester import Requester
from meter.api.errors import Unauthenticated
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable

MAX_TOKEN_CHARACTERS = 8192
"""Longer tokens are rejected; Keystone's tokens have a few hundred characters."""

PROBE_SECONDS = 5.0
"""Interval at which :meth:`KeystoneTokens.probe` is called. Most calls send no request to Keystone."""

IDLE_CHECK_SECONDS = 30.0
"""Keystone is checked after this time without a validation, which happens if no client sends a new token."""

REFUSED_CHECK_SECONDS = 60.0
"""Interval of checks while Keystone refuses our credentials: some deployments lock an account after a few failures."""

UNKNOWN_TOKEN = "0" * 32
"""A token that does not exist: an account with the permission to validate tokens gets 404 for it, any other 403."""

REFUSALS = (401, 403)


class TokenInfo(Protocol):
    """What Keystone returns for a valid token; :class:`meter.openstack.Token` implements it."""

    @property
    def expires_at(self) -> datetime:
        """The time of expiry."""

    @property
    def user_id(self) -> str | None:
        """The owner of the token."""

    @property
    def project_id(self) -> str | None:
        """The project that the token is scoped to, if any."""

    @property
    def roles(self) -> Collection[str]:
        """Names of the owner's roles in that scope."""


@dataclass(frozen=True, slots=True)
class _CachedToken:
    """The result of a validation; ``requester`` is ``None`` for an invalid token."""

    requester: Requester | None
    valid_until: float


@implementer(IAuth, IDependency)
class KeystoneTokens:
    """Identifies requesters by their ``X-Auth-Token``, which ``validate`` looks up in Keystone.

    Results, negative ones too, are cached for ``revalidate_seconds``, but not beyond the expiry of the token, and for at
    most ``max_cached_tokens`` tokens. A revoked token is therefore accepted for at most ``revalidate_seconds``.
    Requesters with one of ``admin_roles`` are administrators. Concurrent requests with the same token share one
    validation. ``uri`` is the address of Keystone for operators, ``public_uri`` that in the ``WWW-Authenticate`` header, if any.

    As a dependency it is ready while Keystone answers. Each validation shows that; without any, :meth:`probe` calls
    ``check``, which raises ``Unavailable`` if Keystone cannot be used. A failed validation alone proves nothing, since
    the token may be the cause, and is followed by a check (if there is a ``check``). While Keystone is unavailable, the
    daemon is degraded as long as the cache has a valid token, and not ready after that.
    """

    def __init__(
        self,
        validate: Callable[[str], Awaitable[TokenInfo | None]],
        clock: IReactorTime,
        *,
        uri: str,
        public_uri: str = "",
        check: Callable[[], Awaitable[object]] | None = None,
        admin_roles: Collection[str] = ("admin",),
        revalidate_seconds: float = 60.0,
        max_cached_tokens: int = 10_000,
    ) -> None:
        self._validate = validate
        self._clock = clock
        self._uri = uri
        self._challenge = f'Keystone uri="{public_uri}"' if public_uri else "Keystone"
        self._check = check
        self._admin_roles = frozenset(admin_roles)
        self._revalidate_seconds = revalidate_seconds
        # Keyed by hash: a memory dump or a manhole session reveals no tokens.
        self._cache: TLRUCache[bytes, _CachedToken, float] = TLRUCache(
            max_cached_tokens, lambda _, cached, __: cached.valid_until, clock.seconds
        )
        self._waiters: dict[bytes, list[Deferred[None]]] = {}
        self._problem = "Keystone has not been contacted yet" if check else ""
        self._suspect = False
        self._forbidden = False
        self._next_check = 0.0

    async def requester(self, request: IRequest) -> Requester:
        """Return the owner of the token; ``Unavailable`` while Keystone cannot be reached."""
        token = request.getHeader(TOKEN_HEADER) or ""
        if not token or len(token) > MAX_TOKEN_CHARACTERS:
            raise Unauthenticated(self._challenge)
        digest = hashlib.sha256(token.encode()).digest()
        while digest in self._waiters:
            waiter: Deferred[None] = Deferred()
            self._waiters[digest].append(waiter)
            await waiter
        cached = self._cache.get(digest)
        if cached is None:
            self._waiters[digest] = []
            try:
                cached = self._store(digest, await self._query_keystone(token))
            finally:
                for waiter in self._waiters.pop(digest):
                    if not waiter.called:  # cancelled if its client has disconnected
                        waiter.callback(None)
        if cached.requester is None:
            raise Unauthenticated(self._challenge)
        return cached.requester

    async def _query_keystone(self, token: str) -> TokenInfo | None:
        try:
            info = await self._validate(token)
        except Unavailable as error:
            self._suspect = True
            if getattr(error, "status", None) == 403:  # our account lacks the permission, whatever the token
                self._forbidden = True
                self._problem = str(error)
                self._next_check = min(self._next_check, self._clock.seconds() + PROBE_SECONDS)
            raise
        self._on_success()
        return info

    def _on_success(self) -> None:
        self._problem = ""
        self._suspect = self._forbidden = False
        self._next_check = self._clock.seconds() + IDLE_CHECK_SECONDS

    async def probe(self) -> None:
        """Check Keystone if a check is due: after an outage, after a failed validation, or after a time without any."""
        suspect = self._suspect and not self._problem
        if self._check is None or (self._clock.seconds() < self._next_check and not suspect):
            return
        self._suspect = False
        try:
            await self._check()
            if self._forbidden:
                await self._validate(UNKNOWN_TOKEN)
        except Unavailable as error:
            self._problem = str(error)
            refused = getattr(error, "status", None) in REFUSALS
            self._next_check = self._clock.seconds() + (REFUSED_CHECK_SECONDS if refused else PROBE_SECONDS)
        else:
            self._on_success()

    def readiness(self) -> Readiness:
        """Return whether Keystone is available, and if not, whether cached tokens still admit clients."""
        if not self._problem:
            return Readiness("keystone", True, f"tokens are validated at {self._uri}")
        if any(cached.requester is not None for cached in self._cache.values()):
            reason = f"requests with tokens that are not cached are refused with 503: {self._problem}"
            return Readiness("keystone", False, reason, needed=False)
        return Readiness("keystone", False, self._problem)

    def _store(self, digest: bytes, info: TokenInfo | None) -> _CachedToken:
        """Cache the result of a validation; ``None`` stands for an invalid token."""
        now = self._clock.seconds()
        valid_until = now + self._revalidate_seconds
        requester = None
        if info is not None and info.expires_at.timestamp() > now:
            valid_until = min(valid_until, info.expires_at.timestamp())
            is_admin = not self._admin_roles.isdisjoint(info.roles)
            requester = Requester(is_admin, info.project_id, info.user_id)
        self._cache[digest] = cached = _CachedToken(requester, valid_until)
        return cached
