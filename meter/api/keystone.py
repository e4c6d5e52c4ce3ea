"""Auth mode ``keystone``: tokens that Keystone knows, remembered for a while."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from zope.interface import implementer

from meter.api.faults import Unauthenticated
from meter.api.tokens import TOKEN_HEADER
from meter.api.visibility import IAuth
from meter.api.visibility import Requester

LONGEST_TOKEN = 8192
"""Characters; Keystone's are a few hundred."""


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


@implementer(IAuth)
class KeystoneTokens:
    """Knows requesters by their ``X-Auth-Token``, which ``validate`` asks Keystone about.

    An answer, a refusal too, is remembered for ``revalidate_seconds`` and no longer than the token lasts, for ``most``
    tokens; so a token that was revoked is let in for that long at most. Who has one of ``admin_roles`` sees all.
    Clients that come with the same token at the same time wait for one answer. ``uri`` is told to who has no token.
    """

    def __init__(
        self,
        validate: Callable[[str], Awaitable[Validated | None]],
        clock: IReactorTime,
        *,
        uri: str,
        admin_roles: Collection[str] = ("admin",),
        revalidate_seconds: float = 60.0,
        most: int = 10_000,
    ) -> None:
        self._validate = validate
        self._clock = clock
        self._challenge = f'Keystone uri="{uri}"'
        self._admin_roles = frozenset(admin_roles)
        self._revalidate_seconds = revalidate_seconds
        self._most = most
        # By hash: whoever sees this process's memory in a dump or a manhole sees no tokens.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, list[Deferred[None]]] = {}

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
        if known is None or known.good_until <= self._clock.seconds():
            self._asking[digest] = []
            try:
                known = self._remembered(digest, await self._validate(token))
            finally:
                for turn in self._asking.pop(digest):
                    if not turn.called:  # a client that hung up was cancelled
                        turn.callback(None)
        if known.requester is None:
            raise Unauthenticated(self._challenge)
        return known.requester

    def _remembered(self, digest: bytes, said: Validated | None) -> _Known:
        now = self._clock.seconds()
        good_until = now + self._revalidate_seconds
        requester = None
        if said is not None and said.expires_at.timestamp() > now:
            good_until = min(good_until, said.expires_at.timestamp())
            admin = not self._admin_roles.isdisjoint(said.roles)
            requester = Requester(admin, said.project_id, said.user_id)
        self._known[digest] = known = _Known(requester, good_until)
        self._known.move_to_end(digest)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return known
