"""Names of projects, domains and users, with their history: the records, and the interface of the store that has them."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from zope.interface import Interface

from meter.identity_report import IdentityKind
from meter.identity_report import IdentityReport


class NamePeriod(NamedTuple):
    """A name, valid from ``since`` until before ``until`` (``None``: it still is). ``domain`` is the id of its domain.

    ``exact_since`` and ``exact_until``: the time is that of the change; otherwise the change was found then, and is older.
    """

    name: str
    domain: str | None
    since: datetime
    until: datetime | None
    exact_since: bool
    exact_until: bool


class IdentityKey(NamedTuple):
    """A project, domain or user."""

    kind: IdentityKind
    id: str


@dataclass(frozen=True, slots=True)
class IdentityHistory:
    """All names of an identity, oldest first. It does not exist any more if the last one has an ``until``."""

    kind: IdentityKind
    id: str
    names: tuple[NamePeriod, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityFilter:
    """Which identities are asked for: of a kind, with an id, with a present or former name, with a name ``at`` a time.

    Both ``name`` and ``at``: with that name at that time. ``among``: only these.
    """

    kind: IdentityKind | None = None
    id: str | None = None
    name: str | None = None
    at: datetime | None = None
    among: frozenset[IdentityKey] | None = None


class IIdentityNames(Interface):
    """The part of the store that has names. Every method raises ``Unavailable`` while the database is unavailable."""

    async def record_identities(report: IdentityReport) -> None:
        """Commit a report. The result does not depend on the order of reports; repeating one changes nothing.

        Raises :class:`~meter.message.BadMessage` for a report that is not valid, or from the future.
        """

    async def names_at(kind: IdentityKind, ids: Collection[str], at: datetime) -> Mapping[str, NamePeriod]:
        """Return the name of each identity that was valid ``at`` a time, by id; none for an id that is not known.

        Of one that did not exist then, the last name before, or else the first name after: ``since`` and ``until`` tell it.
        """

    async def histories(keys: Collection[IdentityKey]) -> Mapping[IdentityKey, tuple[NamePeriod, ...]]:
        """Return all names of each of ``keys``, oldest first; nothing for one that is not known."""

    async def identities(
        filter: IdentityFilter, limit: int, after: IdentityKey | None = None
    ) -> tuple[Sequence[IdentityHistory], IdentityKey | None]:
        """Return the matching identities among the next ``limit`` candidates after ``after``, and where the next page begins.

        Identities are sorted by kind and id. With ``filter.at`` each has the name of that time alone. A page may have fewer
        entries than ``limit`` although another one follows.
        """
