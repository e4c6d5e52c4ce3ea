"""Tokens of the API that ``meter-token`` makes: what they look like, and what the store keeps of one.

A token is ``meter_``, its id, ``_`` and 43 characters of ``A-Z a-z 0-9 - _``, which are 256 random bits. The prefix lets
scanners of source code and logs recognize a leaked token, and the id in it is what ``meter-token revoke`` takes.

The store has the SHA-256 of the whole token. A plain hash is enough, unlike for a password: nobody can try 2**256 inputs,
so neither salt nor slow hashing adds anything. For the same reason a token may be found by its hash in an index: how long
that takes depends on the hash of what was sent, from which nobody can infer the next bytes of a valid token.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from zope.interface import Interface

PREFIX = "meter_"
"""How every token begins."""

ID_BYTES = 6
SECRET_BYTES = 32

_TOKEN = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * ID_BYTES}}})_[A-Za-z0-9_-]{{43}}")


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token that is neither revoked nor expired, as the API needs it.

    ``sha256`` has 32 bytes. ``project_id`` is ``None`` for an administrator's. ``user_id`` names the client. ``expires_at``
    is ``None`` for a token that does not expire.
    """

    id: str
    sha256: bytes
    is_admin: bool
    project_id: str | None
    user_id: str | None
    expires_at: datetime | None


def new_token() -> str:
    """Return a new token."""
    return f"{PREFIX}{secrets.token_hex(ID_BYTES)}_{secrets.token_urlsafe(SECRET_BYTES)}"


def id_of(token: str) -> str | None:
    """Return the id in ``token``, ``None`` if it does not look like a token of ``meter-token``."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def digest_of(token: str) -> bytes:
    """Return the SHA-256 of ``token``."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class IApiTokens(Interface):
    """The tokens of the API that ``meter-token`` makes."""

    async def tokens() -> Sequence[ApiToken]:
        """Return the valid tokens, a sequence of :class:`ApiToken`; raises :class:`~meter.interfaces.Unavailable`.

        While nothing has changed, it is the same object.
        """

    def subscribe(callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` soon after a change; return the function that ends the subscription."""
