"""Lists the projects, domains and users of Keystone with their names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import NamedTuple
from typing import TypeGuard

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.completeness.identities.identity_parts import reports_of
from meter.daemon.services import wall_seconds
from meter.http.client import ErrorResponse
from meter.identity_report import MAX_ID
from meter.identity_report import IdentityKind
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.identity_report import storable_name
from meter.interfaces import Unavailable
from meter.openstack.interfaces import IOpenStack
from meter.openstack.listing import Item
from meter.openstack.listing import Listing
from meter.sample import utc_text

FORBIDDEN = (401, 403, 404)
"""Statuses of a listing that these credentials may not get. 404: a user without any role in the scope."""

OWN_LISTS: Mapping[IdentityKind, str] = {"project": "auth/projects", "domain": "auth/domains"}
"""Listings of what the user of these credentials has a role in, which everyone may get."""


class Identities(NamedTuple):
    """What a listing found: names by id. ``complete``: there are no others."""

    names: dict[str, IdentityName]
    complete: bool


class KeystoneIdentities:
    """The names in the Keystone of ``cloud``, as reports of ``origin``. ``users``: those of users, too.

    What the credentials may not list is left out, and logged once. ``problems`` are the kinds that could not be listed at the
    last attempt because Keystone did not answer, with the reason.
    """

    _log = Logger()

    def __init__(self, cloud: IOpenStack, clock: IReactorTime, *, origin: str, users: bool = True) -> None:
        self._cloud = cloud
        self._clock = clock
        self._origin = origin
        self._users = users
        self._states: dict[IdentityKind, str] = {}
        self.problems: Mapping[IdentityKind, str] = {}

    async def reports(self) -> AsyncIterator[IdentityReport]:
        """Iterate over reports with all names; a kind that cannot be listed is in ``problems`` instead."""
        problems: dict[IdentityKind, str] = {}
        self.problems = problems
        domains: Sequence[str] = ()
        kinds: tuple[IdentityKind, ...] = ("domain", "project", *(("user",) if self._users else ()))
        for kind in kinds:
            # The list is as it was when it was requested, or later: a change after that is found by the next one.
            at = utc_text(datetime.fromtimestamp(wall_seconds(self._clock), UTC))
            try:
                found = await (self._list_users(at, domains) if kind == "user" else self._list(kind, at))
            except Unavailable as error:
                problems[kind] = str(error)
                self._tell(kind, f"cannot be listed: {error}")
                continue
            if kind == "domain":
                domains = sorted(found.names)
            # No Keystone is without any domain, project and user: an empty list is that of somebody who may see none.
            for report in reports_of(
                self._origin, kind, at, found.names.values(), complete=found.complete and bool(found.names)
            ):
                yield report

    async def _list(self, kind: IdentityKind, at: str) -> Identities:
        try:
            found = await self._pages(kind, f"{kind}s", at)
        except ErrorResponse as error:
            if error.status not in FORBIDDEN:
                raise
            self._tell(kind, f"only those in which Meter's user has a role are listed: {error}")
            own = await self._pages(kind, OWN_LISTS[kind], at)
            return Identities(own.names, complete=False)
        self._tell(kind, "")
        return found

    async def _list_users(self, at: str, domains: Sequence[str]) -> Identities:
        """List the users domain by domain: with a driver for each domain, Keystone lists those of one domain only."""
        names: dict[str, IdentityName] = {}
        complete = bool(domains)
        try:
            for domain in domains:
                found = await self._pages("user", "users", at, {"domain_id": domain})
                names |= found.names
                complete = complete and found.complete
        except ErrorResponse as error:
            if error.status not in FORBIDDEN:
                raise
            self._tell("user", f"not all can be listed: {error}")
            return Identities(names, complete=False)
        self._tell("user", "")
        return Identities(names, complete)

    async def _pages(
        self, kind: IdentityKind, path: str, at: str, query: Mapping[str, str] | None = None
    ) -> Identities:
        names: dict[str, IdentityName] = {}
        complete = True
        listing = Listing(
            service="identity", version="v3", path=path, key=f"{kind}s", query=query or {}, accepts_limit=False
        )
        async for page in self._cloud.pages(listing):
            complete = complete and not page.truncated
            for item in page.items:
                name = _name(kind, item, at)
                if name is None:
                    complete = False
                else:
                    names[name.id] = name
        return Identities(names, complete)

    def _tell(self, kind: IdentityKind, state: str) -> None:
        """Log a state that is new."""
        before = self._states.get(kind, "")
        self._states[kind] = state
        if state and state != before:
            self._log.warn("names of {kind}s in Keystone: {state}", kind=kind, state=state)
        elif before and not state:
            self._log.info("names of {kind}s in Keystone are complete again", kind=kind)


def _name(kind: IdentityKind, item: Item, at: str) -> IdentityName | None:
    """Return the name of an entry, ``None`` for one that cannot be stored."""
    id_, name, domain = item.get("id"), item.get("name"), item.get("domain_id")
    if not _is_id(id_) or not isinstance(name, str):
        return None
    return IdentityName(
        kind=kind, id=id_, name=storable_name(name), since=at, domain=domain if _is_id(domain) else None
    )


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable()
