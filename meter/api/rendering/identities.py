"""JSON schema of identities: projects, domains and users with their names."""

from __future__ import annotations

from datetime import datetime

import msgspec

from meter.identity_names import IdentityHistory
from meter.identity_names import NamePeriod
from meter.identity_report import IdentityKind
from meter.sample import utc_text


class IdentityNamePeriod(msgspec.Struct, kw_only=True):
    """A name, valid from ``since`` until before ``until``; ``until`` is null while it is. ``domain_id`` is its domain.

    ``since_exact`` and ``until_exact``: the time is that of the change; otherwise the change was found then and is older.
    """

    name: str
    domain_id: str | None
    since: str
    since_exact: bool
    until: str | None
    until_exact: bool


class Identity(msgspec.Struct, kw_only=True):
    """A project, domain or user. ``names`` are all of its names, oldest first, or the one at the requested time."""

    kind: IdentityKind
    id: str
    names: list[IdentityNamePeriod]


def identity_of(history: IdentityHistory) -> Identity:
    """Return ``history`` as JSON; times are in UTC."""
    return Identity(kind=history.kind, id=history.id, names=[_period(each) for each in history.names])


def _period(period: NamePeriod) -> IdentityNamePeriod:
    return IdentityNamePeriod(
        name=period.name,
        domain_id=period.domain,
        since=utc_text(period.since),
        since_exact=period.exact_since,
        until=_text(period.until),
        until_exact=period.exact_until,
    )


def _text(time: datetime | None) -> str | None:
    return None if time is None else utc_text(time)
