"""Signing in to the pages: with a token that its owner brings, or with one that Keystone issues for credentials.

Attempts that fail are limited for each client address, since they are guesses. What a person typed is never logged, and no
error has it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from typing import Literal
from typing import Protocol
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime

from meter.api.auth.requester import IAuth
from meter.api.auth.requester import ITokenAuth
from meter.api.auth.requester import NoAuth
from meter.api.auth.requester import Requester
from meter.api.auth.validation_limiter import ValidationLimiter
from meter.api.auth.validation_limiter import ValidationLimits
from meter.api.errors import ApiError
from meter.api.errors import TryLater
from meter.api.errors import Unauthenticated
from meter.interfaces import Unavailable

# Without Keystone, the API does not load its client: 5 MiB.
if TYPE_CHECKING:
    from meter.openstack.credentials import Credentials
    from meter.openstack.sign_in import OwnProject

Mode = Literal["none", "tokens", "keystone"]

LIMITS = ValidationLimits(
    max_in_progress=20, max_in_progress_per_address=5, max_refusals=10, refusal_seconds=60.0, unknown_addresses=20
)
"""Ten attempts that fail in a burst, then one every six seconds, for one client address."""

T = TypeVar("T")


class CredentialsRefused(Exception):
    """Keystone issues no token; ``reason`` is that of :class:`meter.openstack.sign_in.SignInRefused`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CredentialsIncomplete(Exception):
    """What a person has typed cannot be credentials: something is missing."""


class _IssuedToken(Protocol):
    @property
    def id(self) -> str:
        """The token."""


class TokenIssuer(Protocol):
    """Issues tokens; :class:`meter.openstack.sign_in.KeystoneSignIn` implements it."""

    auth_url: str

    async def token(self, credentials: Credentials) -> _IssuedToken:
        """Return a token; raises :class:`~meter.openstack.sign_in.SignInRefused`."""

    async def projects(self, token: str) -> Sequence[OwnProject]:
        """Return the projects of the owner of ``token``."""

    async def revoke(self, token: str) -> None:
        """End ``token``."""


class SignIn:
    """Sign-in to an API whose requests ``auth`` authenticates. Without ``issuer``, people bring tokens only."""

    def __init__(self, auth: IAuth, clock: IReactorTime, issuer: TokenIssuer | None = None) -> None:
        self._auth = auth
        self._issuer = issuer
        self._limiter = ValidationLimiter(clock, LIMITS, what="sign-ins in progress", refused="attempts to sign in")

    @property
    def mode(self) -> Mode:
        """The mode of authentication."""
        if isinstance(self._auth, NoAuth):
            return "none"
        return "tokens" if self._issuer is None else "keystone"

    async def with_token(self, token: str, address: str) -> Requester:
        """Return the owner of ``token``; raises :class:`Unauthenticated`, ``TryLater`` or ``Unavailable``."""
        return await self._limited(self._tokens().owner(token, address), address)

    async def with_credentials(self, fields: dict[str, str], address: str) -> tuple[str, Requester]:
        """Return a new token for credentials, the ``fields`` of :class:`~meter.openstack.credentials.Credentials`, and its owner.

        Raises :class:`CredentialsRefused`, :class:`CredentialsIncomplete`, ``TryLater`` or ``Unavailable``.
        """
        from meter.openstack.credentials import BadCredentials
        from meter.openstack.credentials import Credentials

        issuer = self._keystone()
        try:
            credentials = Credentials(auth_url=issuer.auth_url, **fields)
        except BadCredentials as error:
            raise CredentialsIncomplete(str(error)) from None
        with _refusals():
            issued = await self._limited(issuer.token(credentials), address)
        return issued.id, await self._tokens().owner(issued.id, address)

    async def projects(self, token: str) -> Sequence[OwnProject]:
        """Return the projects that the owner of ``token`` can switch to; raises :class:`CredentialsRefused` or ``Unavailable``."""
        with _refusals():
            return await self._keystone().projects(token)

    async def end(self, token: str, address: str) -> None:
        """Revoke ``token``, which Keystone issued to Meter; ``Unavailable`` if that is not possible now.

        Keystone is asked only about a token that is valid.
        """
        try:
            await self._tokens().owner(token, address)
        except Unauthenticated:
            return
        await self._keystone().revoke(token)
        self._tokens().forget(token)

    async def _limited(self, attempt: Awaitable[T], address: str) -> T:
        """Return the result of ``attempt``, unless ``address`` had too many that failed; then it is not made."""
        try:
            with self._limiter.waiting(address):
                paid = self._limiter.spend(address)
                try:
                    result = await attempt
                except (Unavailable, TryLater):
                    self._limiter.refund(paid)
                    raise
                self._limiter.accepted(address, paid)
                return result
        finally:
            close = getattr(attempt, "close", None)  # of a coroutine that was not awaited
            if close is not None:
                close()

    def _tokens(self) -> ITokenAuth:
        if not ITokenAuth.providedBy(self._auth):
            raise ApiError(404, "This API has no tokens to sign in with.")
        return self._auth

    def _keystone(self) -> TokenIssuer:
        if self._issuer is None:
            raise ApiError(404, "This API does not sign in at Keystone.")
        return self._issuer


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise :class:`CredentialsRefused` where Keystone's client says that."""
    from meter.openstack.sign_in import SignInRefused

    try:
        yield
    except SignInRefused as error:
        raise CredentialsRefused(error.reason) from None
