"""Identity reports: the names of projects, domains and users, from Keystone, its notifications, or a file."""

from __future__ import annotations

from typing import Any
from typing import Literal

import msgspec

from meter.message import BadMessage

IdentityKind = Literal["project", "domain", "user"]


class IdentityName(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an identity is called from ``since`` on, or that it was deleted then. ``domain`` is the id of its domain.

    ``exact``: ``since`` is the time of the change (a notification); otherwise the change was found then and is older.
    """

    kind: IdentityKind
    id: str
    name: str
    since: str
    domain: str | None = None
    deleted: bool = False
    exact: bool = False


class IdentityReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names that ``origin`` reported: ``keystone``, ``notification`` or ``file``. ``message_id`` makes repetition harmless.

    ``complete``: identities of the listed ``kinds`` that are not in ``names`` do not exist any more.
    """

    origin: str
    message_id: str
    at: str
    names: tuple[IdentityName, ...]
    complete: tuple[IdentityKind, ...] = ()


def identity_report(content: Any) -> IdentityReport:
    """Return the identity report that is the content of a verified report; raises :class:`~meter.message.BadMessage`."""
    try:
        return msgspec.convert(content, IdentityReport)
    except msgspec.ValidationError as error:
        raise BadMessage(f"not an identity report: {error}") from error
