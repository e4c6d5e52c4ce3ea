"""The requester, the authenticated sender of a request, and the interface of the authentication modes."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field

from twisted.web.iweb import IRequest
from zope.interface import Interface
from zope.interface import implementer

TOKEN_HEADER = "X-Auth-Token"


@dataclass(frozen=True, slots=True)
class Requester:
    """An authenticated client. An administrator sees all samples, anyone else those of ``project_id``.

    ``expires_at`` is the expiry of the token, in seconds since 1970; it does not count when requesters are compared.
    """

    is_admin: bool
    project_id: str | None = None
    user_id: str | None = None
    expires_at: float | None = field(default=None, compare=False)


class IAuth(Interface):
    """Authenticates requests."""

    async def requester(request: IRequest) -> Requester:  # noqa: N805 - methods of an Interface have no self
        """Return the :class:`Requester`; raises :class:`~meter.api.errors.Unauthenticated`, or ``Unavailable``."""


@implementer(IAuth)
class NoAuth:
    """Auth mode ``none``: every client is an administrator."""

    async def requester(self, request: IRequest) -> Requester:
        """Return an administrator."""
        return Requester(is_admin=True)
