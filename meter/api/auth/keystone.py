"""Auth mode ``keystone``: tokens that Keystone knows, remembered for a while."""

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

from meter.api.auth.tokens import TOKEN_HEADER
from meter.api.auth.visibility import IAuth
from meter.api.auth.visibility import Requester
from meter.api.errors import Unauthenticated
from meter.interfaces import IDependency
from meter.interfaces import Readiness
from meter.interfaces import Unavailable

LONGEST_TOKEN = 8192
"""Characters; Keystone's are a few hundred."""

LOOK_SECONDS = 5.0
"""How often :meth:`KeystoneTokens.look` is to be called; it asks Keystone no more often than it must."""

CHECK_SECONDS = 30.0
"""Keystone is checked when nothing was asked of it for this long, because no client came with a new token."""

REFUSED_SECONDS = 60.0
"""How long a Keystone that refuses our account is not asked: some lock an account after a few failures."""

UNKNOWN_TOKEN = "0" * 32
"""A token that nobody has: an account that may validate tokens gets *not found*, any other is refused."""

REFUSALS = (401, 403)


class Validated(Protocol):
    """What Keystone says of a token: :class:`meter.openstack.Token` has it."""

    @property
    def expires_at(self) -> datetime:
        """When it ends."""

    @property
    def user_id(self) -> str | None:
        """Whose it is."""

    @property
    def project_id(self) -> str | None:
        """What it is for, if that is a project."""

    @property
    def roles(self) -> Collection[str]:
        """Names of the roles its owner has there."""


@dataclass(frozen=True, slots=True)
class _Known:
    requester: Requester | None
    good_until: float


@implementer(IAuth, IDependency)
class KeystoneTokens:
    """Knows requesters by their ``X-Auth-Token``, which ``validate`` asks Keystone about.

    An answer, a refusal too, is remembered for ``revalidate_seconds`` and no longer than the token lasts, for ``most``
    tokens; so a token that was revoked is let in for that long at most. Who has one of ``admin_roles`` sees all.
    Clients that come with the same token at the same time wait for one answer. ``uri`` is told to who has no token.

    As a dependency it is ready while Keystone answers. Every answer to a client shows that; while none comes,
    :meth:`look` asks by ``check``, which raises ``Unavailable`` where Keystone is of no use. One failure on behalf of a
    client proves nothing, as it may be the token's, and is followed by a check (without a ``check``, by nothing). While
    Keystone is away the daemon is degraded as long as a client with a remembered token is let in, and not ready once
    nobody would be.
    """

    def __init__(
        self,
        validate: Callable[[str], Awaitable[Validated | None]],
        clock: IReactorTime,
        *,
        uri: str,
        check: Callable[[], Awaitable[object]] | None = None,
        admin_roles: Collection[str] = ("admin",),
        revalidate_seconds: float = 60.0,
        most: int = 10_000,
    ) -> None:
        self._validate = validate
        self._clock = clock
        self._uri = uri
        self._challenge = f'Keystone uri="{uri}"'
        self._check = check
        self._admin_roles = frozenset(admin_roles)
        self._revalidate_seconds = revalidate_seconds
        # By hash: whoever sees this process's memory in a dump or a manhole sees no tokens.
        self._known: TLRUCache[bytes, _Known, float] = TLRUCache(
            most, lambda _, known, __: known.good_until, clock.seconds
        )
        self._asking: dict[bytes, list[Deferred[None]]] = {}
        self._trouble = "it has not been asked yet" if check else ""
        self._doubted = False
        self._forbidden = False
        self._look_at = 0.0

    async def requester(self, request: IRequest) -> Requester:
        """Return whose token it is; ``Unavailable`` while Keystone cannot be asked."""
        token = request.getHeader(TOKEN_HEADER) or ""
        if not token or len(token) > LONGEST_TOKEN:
            raise Unauthenticated(self._challenge)
        digest = hashlib.sha256(token.encode()).digest()
        while digest in self._asking:
            turn: Deferred[None] = Deferred()
            self._asking[digest].append(turn)
            await turn
        known = self._known.get(digest)
        if known is None:
            self._asking[digest] = []
            try:
                known = self._remembered(digest, await self._validated(token))
            finally:
                for turn in self._asking.pop(digest):
                    if not turn.called:  # a client that hung up was cancelled
                        turn.callback(None)
        if known.requester is None:
            raise Unauthenticated(self._challenge)
        return known.requester

    async def _validated(self, token: str) -> Validated | None:
        try:
            said = await self._validate(token)
        except Unavailable as error:
            self._doubted = True
            if getattr(error, "status", None) == 403:  # the account may not ask: that is no matter of this token
                self._forbidden = True
                self._trouble = str(error)
                self._look_at = min(self._look_at, self._clock.seconds() + LOOK_SECONDS)
            raise
        self._answered()
        return said

    def _answered(self) -> None:
        self._trouble = ""
        self._doubted = self._forbidden = False
        self._look_at = self._clock.seconds() + CHECK_SECONDS

    async def look(self) -> None:
        """Check Keystone if it is time to: it was in trouble, it failed a client, or it was not asked for a while."""
        in_doubt = self._doubted and not self._trouble
        if self._check is None or (self._clock.seconds() < self._look_at and not in_doubt):
            return
        self._doubted = False
        try:
            await self._check()
            if self._forbidden:
                await self._validate(UNKNOWN_TOKEN)
        except Unavailable as error:
            self._trouble = str(error)
            refused = getattr(error, "status", None) in REFUSALS
            self._look_at = self._clock.seconds() + (REFUSED_SECONDS if refused else LOOK_SECONDS)
        else:
            self._answered()

    def readiness(self) -> Readiness:
        """Return whether Keystone can be asked, and if not, whether remembered tokens still let clients in."""
        if not self._trouble:
            return Readiness("keystone", True, f"it knows tokens at {self._uri}")
        if any(known.requester is not None for known in self._known.values()):
            reason = f"clients with tokens that are not remembered are refused with 503: {self._trouble}"
            return Readiness("keystone", False, reason, needed=False)
        return Readiness("keystone", False, self._trouble)

    def _remembered(self, digest: bytes, said: Validated | None) -> _Known:
        now = self._clock.seconds()
        good_until = now + self._revalidate_seconds
        requester = None
        if said is not None and said.expires_at.timestamp() > now:
            good_until = min(good_until, said.expires_at.timestamp())
            admin = not self._admin_roles.isdisjoint(said.roles)
            requester = Requester(admin, said.project_id, said.user_id)
        self._known[digest] = known = _Known(requester, good_until)
        return known
