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
from cachetools import TTLCache
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from zope.interface import implementer

from meter.api.auth.requester import ITokenAuth
from meter.api.auth.requester import Requester
from meter.api.auth.requester import checked_form
from meter.api.auth.requester import well_formed_token
from meter.api.auth.validation_limiter import ValidationLimiter
from meter.api.auth.validation_limiter import ValidationLimits
from meter.api.client_address import ClientAddresses
from meter.api.errors import CREDENTIALS_REFUSED
from meter.api.errors import Unauthenticated
from meter.daemon.services import wall_seconds
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable

PROBE_SECONDS = 5.0
"""Interval at which :meth:`KeystoneTokens.probe` is called. Most calls send no request to Keystone."""

IDLE_CHECK_SECONDS = 30.0
"""Keystone is checked after this time without a validation, which happens if no client sends a new token."""

REFUSED_CHECK_SECONDS = 60.0
"""Interval of checks while Keystone refuses our credentials: some deployments lock an account after a few failures."""

NOT_ABOUT_THE_TOKEN = CREDENTIALS_REFUSED | {408, 429}
"""Client errors of Keystone that concern our own account, or that come from too many requests."""

UNKNOWN_TOKEN = "0" * 32
"""A token that does not exist: an account with the permission to validate tokens gets 404 for it, any other 403."""


class TokenInfo(Protocol):
    """What Keystone returns for a valid token; :class:`meter.openstack.Token` implements it."""

    @property
    def expires_at(self) -> datetime:
        """The time of expiry."""

    @property
    def user_id(self) -> str | None:
        """The owner of the token."""

    @property
    def user_name(self) -> str:
        """The name of the owner, empty if it is not known."""

    @property
    def project_id(self) -> str | None:
        """The project that the token is scoped to, if any."""

    @property
    def project_name(self) -> str:
        """The name of that project, empty if it is not known."""

    @property
    def domain_id(self) -> str | None:
        """The domain that the token is scoped to, if any."""

    @property
    def system(self) -> bool:
        """Whether the token is scoped to the system, the whole cloud."""

    @property
    def roles(self) -> Collection[str]:
        """Names of the owner's roles in that scope."""


@dataclass(frozen=True, slots=True)
class AdminRule:
    """Which tokens are those of administrators, who see all projects.

    Those with one of ``roles`` in one of ``scopes`` (``project``, ``domain``, ``system``). If ``projects``, a list of
    ids, is not empty, a token for any other project is not that of an administrator.
    """

    roles: Collection[str] = ("admin",)
    scopes: Collection[str] = ("project", "system")
    projects: Collection[str] = ()

    def applies_to(self, info: TokenInfo) -> bool:
        """Return whether ``info`` is the token of an administrator."""
        scope = "system" if info.system else "project" if info.project_id else "domain" if info.domain_id else "none"
        if scope not in self.scopes or (scope == "project" and self.projects and info.project_id not in self.projects):
            return False
        return not set(self.roles).isdisjoint(info.roles)


@dataclass(frozen=True, slots=True)
class _CachedToken:
    """The requester that a valid token identifies."""

    requester: Requester
    valid_until: float


@implementer(ITokenAuth, IDependency)
class KeystoneTokens:
    """Identifies requesters by their ``X-Auth-Token``, which ``validate`` looks up in Keystone.

    Valid tokens are cached for ``revalidate_seconds``, but not beyond their expiry, and at most ``max_cached_tokens`` of
    them. A revoked token is therefore accepted for at most ``revalidate_seconds``. Refused tokens are remembered for
    ``refused_seconds`` in a cache of their own, at most ``max_refused_tokens`` of them. ``admins`` says whose requesters are
    administrators. ``uri`` is the address of Keystone for operators, ``public_uri`` that in the ``WWW-Authenticate`` header,
    if any.

    Keystone is not asked about what cannot be a token by its form, and about others within ``limits``, which apply to
    requests whose token is not cached; ``addresses`` finds the client address. Concurrent requests with the same token share
    one validation, and its failure.

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
        admins: AdminRule = AdminRule(),
        revalidate_seconds: float = 60.0,
        max_cached_tokens: int = 10_000,
        refused_seconds: float = 30.0,
        max_refused_tokens: int = 10_000,
        limits: ValidationLimits | None = None,
        addresses: ClientAddresses | None = None,
    ) -> None:
        self._validate = validate
        self._clock = clock
        self._uri = uri
        self._challenge = f'Keystone uri="{public_uri}"' if public_uri else "Keystone"
        self._check = check
        self._admins = admins
        self._revalidate_seconds = revalidate_seconds
        # Keyed by hash: a memory dump or a manhole session reveals no tokens.
        self._cache: TLRUCache[bytes, _CachedToken, float] = TLRUCache(
            max_cached_tokens, lambda _, cached, __: cached.valid_until, clock.seconds
        )
        self._refused: TTLCache[bytes, None] = TTLCache(max_refused_tokens, refused_seconds, clock.seconds)
        self._limiter = ValidationLimiter(clock, limits)
        self._addresses = addresses or ClientAddresses()
        self._waiters: dict[bytes, list[Deferred[None]]] = {}
        self._problem = "Keystone has not been contacted yet" if check else ""
        self._suspect = False
        self._forbidden = False
        self._next_check = 0.0

    def replace(self, other: KeystoneTokens) -> None:
        """Validate as ``other`` does, which was made for other settings. Tokens that were validated before are validated again."""
        self._validate, self._check = other._validate, other._check
        self._uri, self._challenge = other._uri, other._challenge
        self._admins, self._revalidate_seconds = other._admins, other._revalidate_seconds
        self._cache, self._refused = other._cache, other._refused
        self._limiter = other._limiter
        # A validation that is in progress is one by the former settings: whoever waits for it, and whoever comes, validates anew.
        self._waiters = {}
        # The next probe checks the new account, whatever was wrong with the former one.
        self._suspect, self._next_check = True, 0.0

    async def requester(self, request: IRequest) -> Requester:
        """Return the owner of the token; ``Unavailable`` while Keystone cannot be reached.

        Raises :class:`~meter.api.errors.ApiError` 429 or 503 if too many tokens are being validated, or were refused.
        """
        token = well_formed_token(request)
        if token is None:
            raise Unauthenticated(self._challenge)
        return await self._owner(token, lambda: self._addresses.address_of(request))

    async def owner(self, token: str, address: str) -> Requester:
        """Return the owner of ``token``, which a person at ``address`` signs in with; raises as :meth:`requester` does."""
        if checked_form(token.encode()) is None:
            raise Unauthenticated(self._challenge)
        return await self._owner(token, lambda: address)

    def forget(self, token: str) -> None:
        """Refuse ``token``, which has been revoked, from now on."""
        digest = hashlib.sha256(token.encode()).digest()
        self._cache.pop(digest, None)
        self._refused[digest] = None

    async def _owner(self, token: str, find_address: Callable[[], str]) -> Requester:
        digest = hashlib.sha256(token.encode()).digest()
        if (requester := self._cached(digest)) is not None:
            return requester
        address = find_address()
        limiter = self._limiter
        with limiter.waiting(address):
            while digest in self._waiters:
                waiter: Deferred[None] = Deferred()
                self._waiters[digest].append(waiter)
                await waiter
            if (requester := self._cached(digest)) is not None:
                return requester
            limiter, waiters = self._limiter, self._waiters
            paid = limiter.spend(address)
            waiters[digest] = []
            failure: Unavailable | None = None
            try:
                info = await self._query_keystone(token)
                if waiters is self._waiters:  # the settings have not been replaced meanwhile
                    requester = self._store(digest, info)
            except Unavailable as error:
                failure = error
                if not _is_about_the_token(error):
                    limiter.refund(paid)
                raise
            finally:
                for waiter in waiters.pop(digest):
                    if not waiter.called:  # cancelled if its client has disconnected
                        waiter.callback(None) if failure is None else waiter.errback(failure)
            if requester is not None:
                limiter.accepted(address, paid)
                return requester
        return await self._owner(token, lambda: address)

    def _cached(self, digest: bytes) -> Requester | None:
        """Return the requester of a cached token, ``None`` if it is not cached; :class:`Unauthenticated` if it was refused."""
        cached = self._cache.get(digest)
        if cached is not None:
            return cached.requester
        if digest in self._refused:
            raise Unauthenticated(self._challenge)
        return None

    async def _query_keystone(self, token: str) -> TokenInfo | None:
        validate = self._validate
        try:
            info = await validate(token)
        except Unavailable as error:
            self._suspect = True
            if getattr(error, "status", None) == 403:  # our account lacks the permission, whatever the token
                self._forbidden = True
                self._problem = str(error)
                self._next_check = min(self._next_check, self._clock.seconds() + PROBE_SECONDS)
            raise
        if validate is self._validate:
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
            refused = getattr(error, "status", None) in CREDENTIALS_REFUSED
            self._next_check = self._clock.seconds() + (REFUSED_CHECK_SECONDS if refused else PROBE_SECONDS)
        else:
            self._on_success()

    def readiness(self) -> Readiness:
        """Return whether Keystone is available, and if not, whether cached tokens still admit clients."""
        if not self._problem:
            return Readiness("keystone", True, f"tokens are validated at {self._uri}")
        self._cache.expire()
        if self._cache:
            reason = f"requests with tokens that are not cached are refused with 503: {self._problem}"
            return Readiness("keystone", False, reason, needed=False)
        return Readiness("keystone", False, self._problem)

    def _store(self, digest: bytes, info: TokenInfo | None) -> Requester:
        """Cache the result of a validation; :class:`Unauthenticated` for an invalid token, for which ``info`` is ``None``."""
        now = self._clock.seconds()
        # Keystone's time is compared with the system clock, which the clock of timers does not follow.
        remaining = 0.0 if info is None else info.expires_at.timestamp() - wall_seconds(self._clock)
        if info is None or remaining <= 0:
            self._refused[digest] = None
            raise Unauthenticated(self._challenge)
        is_admin = self._admins.applies_to(info)
        expires_at = info.expires_at.timestamp()
        requester = Requester(is_admin, info.project_id, info.user_id, expires_at, info.user_name, info.project_name)
        self._cache[digest] = _CachedToken(requester, now + min(self._revalidate_seconds, remaining))
        return requester


def _is_about_the_token(error: Unavailable) -> bool:
    """Return whether Keystone's response says that the token made the request malformed, and not that Keystone is away."""
    status = getattr(error, "status", None) or 0
    return 400 <= status < 500 and status not in NOT_ABOUT_THE_TOKEN
