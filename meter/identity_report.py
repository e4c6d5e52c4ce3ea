"""Identity reports: the names of projects, domains and users, from Keystone, its notifications, or a file."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from typing import Literal

import msgspec

from meter.message import BadMessage
from meter.message import parse_timestamp

IdentityKind = Literal["project", "domain", "user"]
ChangeKind = Literal["created", "updated", "deleted"]

KINDS: tuple[IdentityKind, ...] = ("project", "domain", "user")

MAX_ID = 255
"""Maximum length of the id of an identity, in characters."""

MAX_NAME = 255
"""Maximum length of a name, in characters; those who make reports cut longer ones."""

NAMES_PER_REPORT = 1_000
"""Names in one report of the agent; a longer list is cut into several reports, each of which covers a range of ids."""

MAX_NAMES = 2 * NAMES_PER_REPORT
"""Maximum number of names, and of changes, in one report."""


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


class IdentityChange(msgspec.Struct, frozen=True):
    """A notification that an identity was created, updated or deleted ``at`` a time. It does not contain the name."""

    kind: IdentityKind
    id: str
    at: str
    change: ChangeKind


class IdentityReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names that ``origin`` reported, as they were ``at`` a time. ``message_id`` identifies the report in logs.

    ``origin`` is ``keystone``, followed by the leader group of its agents if that is not the default, ``notification`` or ``file``.
    ``complete``: identities of the listed kinds, with an id after ``after`` and not after ``until`` (``None``: without end; in order
    of code points), that are not in ``names`` do not exist at that time. So each part of a long list stands for itself.
    """

    origin: str
    message_id: str
    at: str
    names: tuple[IdentityName, ...] = ()
    complete: tuple[IdentityKind, ...] = ()
    after: str = ""
    until: str | None = None
    changes: tuple[IdentityChange, ...] = ()


def identity_report(content: Any) -> IdentityReport:
    """Return the identity report that is the content of a verified report; raises :class:`~meter.message.BadMessage`."""
    try:
        report = msgspec.convert(content, IdentityReport)
    except msgspec.ValidationError as error:
        raise BadMessage(f"not an identity report: {error}") from error
    check_identity_report(report)
    return report


def check_identity_report(report: IdentityReport) -> None:
    """Raise :class:`~meter.message.BadMessage` for texts that are too long or cannot be stored, and for times that are none."""
    if len(report.names) > MAX_NAMES or len(report.changes) > MAX_NAMES:
        raise BadMessage(f"an identity report has at most {MAX_NAMES} names and {MAX_NAMES} changes")
    parse_timestamp(report.at, "at")
    for text in (report.origin, report.message_id, report.after, report.until or ""):
        _check_text(text, MAX_ID)
    for name in report.names:
        _check_id(name.id)
        _check_text(name.name, MAX_NAME)
        _check_text(name.domain or "", MAX_ID)
        parse_timestamp(name.since, "since")
    for change in report.changes:
        _check_id(change.id)
        parse_timestamp(change.at, "at")


def storable_name(text: str) -> str:
    """Return ``text`` as a name that a report can have: cut, and without what PostgreSQL or UTF-8 cannot encode."""
    return text[:MAX_NAME].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def time_of(text: str) -> datetime:
    """Return a time of a checked report."""
    return parse_timestamp(text, "time")


def _check_id(text: str) -> None:
    if not text:
        raise BadMessage("an identity report must have non-empty ids")
    _check_text(text, MAX_ID)


def _check_text(text: str, longest: int) -> None:
    if len(text) > longest:
        raise BadMessage(f"a text of an identity report has {len(text)} characters, more than {longest}: {text[:60]!r}")
    if "\0" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise BadMessage(f"a text of an identity report cannot be stored: {text[:60]!r}")
