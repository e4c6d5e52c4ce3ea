"""The runs of domains: when each began, and whether the domain runs here or is still arriving."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from meter.interfaces import Absence
from meter.interfaces import Domain

PAUSED, SHUT_OFF = 3, 5
"""Of libvirt's virDomainState."""

PAUSED_FOR_MIGRATION, STARTING_UP, PAUSED_FOR_POSTCOPY, POSTCOPY_FAILED = 2, 11, 12, 13
"""Of libvirt's virDomainPausedReason. A domain that is restored is paused as for a migration."""

RUNNING_MIGRATED, RUNNING_POSTCOPY = 2, 10
"""Of libvirt's virDomainRunningReason."""

SHUT_OFF_MIGRATED = 4
"""Of libvirt's virDomainShutoffReason."""

HAS_RUN_NS = 1_000_000_000
"""Virtual processors that have used more time than this have run; those of an arriving domain have used only what its creation took."""

Presence = Literal["here", "arriving", "elsewhere"]
"""*arriving*: it migrates to this host, or is being restored, and was never resumed here. *elsewhere*: another host runs it."""


@dataclass(slots=True)
class Life:
    """One run of a domain on this host, from its start, or its first resumption, to its end.

    ``name`` is the same as long as it lasts; ``began`` is when its counters were at zero, ``None`` where nobody knows.
    """

    name: str
    number: int | None
    process: str | None
    began: datetime | None
    seen_at: datetime
    arriving: bool = False
    leaving: bool = False
    restored: bool = False

    def is_that_of(self, domain: Domain) -> bool:
        """Whether ``domain`` is still in this run. libvirt may give its number to a later one, after a restart."""
        other_process = self.process is not None and domain.process is not None and self.process != domain.process
        return self.number == domain.run and not other_process


class Lives:
    """What is known of the domains of this host from one poll to the next. ``since`` is the time of the first poll."""

    def __init__(self, since: datetime) -> None:
        self._since = since
        self._lives: dict[str, Life] = {}
        self._off: dict[str, datetime] = {}
        self._listed_at: datetime | None = None

    def look(
        self, domain: Domain, at: datetime, absence: Callable[[str], Absence], *, remember: bool = True
    ) -> tuple[Presence, Life | None]:
        """Return whether ``domain``, as polled ``at`` a moment, is here, and its run, ``None`` where it has none."""
        uuid = domain.uuid
        known = self._lives.get(uuid)
        if domain.stats.get("state.state") == SHUT_OFF:
            presence = self._off_presence(domain, known, absence)
            if remember:
                self._lives.pop(uuid, None)
                self._off[uuid] = at
            return presence, None
        if domain.run is None and domain.event is not None:
            return "here", None  # it was over before it could be read
        if known is not None and known.is_that_of(domain):
            life = known
        else:
            life = self._new(domain, at, known, absence)
            if remember:
                self._lives[uuid] = life
                self._off.pop(uuid, None)
        presence = _update(life, domain, at)
        life.seen_at = max(life.seen_at, at)
        return presence, life

    def listed(self, uuids: set[str], at: datetime) -> None:
        """Take the UUIDs of all domains that existed ``at`` a moment; forget all others."""
        self._listed_at = at
        for known in (self._lives, self._off):
            for uuid in known.keys() - uuids:
                del known[uuid]

    def _off_presence(self, domain: Domain, known: Life | None, absence: Callable[[str], Absence]) -> Presence:
        if domain.event is not None:
            # What failed to arrive has never been here.
            return "arriving" if known is not None and known.arriving else "here"
        if domain.stats.get("state.reason") == SHUT_OFF_MIGRATED or absence(domain.uuid).why == "migrated":
            return "elsewhere"
        return "here"

    def _new(self, domain: Domain, at: datetime, before: Life | None, absence: Callable[[str], Absence]) -> Life:
        event = domain.event or ""
        number = "" if domain.run is None else f"{domain.run}-"
        life = Life(
            name=domain.process or f"{number}{os.urandom(6).hex()}",
            number=domain.run,
            process=domain.process,
            began=None,
            seen_at=at,
            arriving=_waits(domain) and not _has_run(domain) and "(restored)" not in event,
        )
        if not life.arriving:
            life.began = self._beginning(domain, at, self._not_yet(domain.uuid, before, absence))
        return life

    def _not_yet(self, uuid: str, before: Life | None, absence: Callable[[str], Absence]) -> datetime | None:
        """Return a time at which a new run had certainly not begun: the domain was in another run, off, or not there."""
        if before is not None:
            return before.seen_at
        if uuid in self._off:
            return self._off[uuid]
        return self._listed_at if absence(uuid).why != "unreadable" else None

    def _beginning(self, domain: Domain, at: datetime, not_yet: datetime | None) -> datetime | None:
        """Return when the counters of a new run were certainly 0; ``None`` if that is unknown."""
        if _starts_here(domain):
            return domain.started_at if _lately_started(domain, at) else at
        if _arrives_here(domain):
            return at
        if domain.started_at is None:
            return not_yet
        return domain.started_at if domain.started_at > (not_yet or self._since) else None


def _update(life: Life, domain: Domain, at: datetime) -> Presence:
    """Update a run, and return where the domain is."""
    state, reason, event = domain.stats.get("state.state"), domain.stats.get("state.reason"), domain.event or ""
    if "(restored)" in event:
        life.restored = True
        life.arriving = False
    if life.arriving:
        if _waits(domain):
            return "arriving"
        life.arriving = False
        # Counters stood still from when it was last seen waiting until it was resumed.
        life.began = at if event else life.seen_at
    elif life.began is None and (_starts_here(domain) or _arrives_here(domain)):
        life.began = domain.started_at if _starts_here(domain) and _lately_started(domain, at) else at
    if state == PAUSED and (reason == PAUSED_FOR_POSTCOPY or (reason == POSTCOPY_FAILED and life.leaving)):
        life.leaving = True
        return "elsewhere"
    life.leaving = state == PAUSED and reason == PAUSED_FOR_MIGRATION and not life.restored
    return "here"


def _waits(domain: Domain) -> bool:
    """Whether a domain is paused because it was not resumed yet, or is about to leave."""
    stats = domain.stats
    if stats.get("state.state") != PAUSED:
        return False
    if "state.reason" in stats:
        return stats["state.reason"] in (PAUSED_FOR_MIGRATION, STARTING_UP)
    counters = (".time", ".wait", ".bytes", ".reqs", ".pkts", "cpu.user", "cpu.system")
    return not any(value for name, value in stats.items() if name.endswith(counters))


def _has_run(domain: Domain) -> bool:
    times = (value for name, value in domain.stats.items() if name.startswith("vcpu.") and name.endswith(".time"))
    return sum(value for value in times if isinstance(value, int)) > HAS_RUN_NS


def _starts_here(domain: Domain) -> bool:
    return (domain.event or "").startswith("started (")


def _lately_started(domain: Domain, at: datetime) -> bool:
    return domain.started_at is not None and domain.started_at < at


def _arrives_here(domain: Domain) -> bool:
    """A migration that fails resumes the domain as well, on the host that it did not leave, for another reason."""
    arrived = {"resumed (migrated)": RUNNING_MIGRATED, "resumed (post-copy)": RUNNING_POSTCOPY}
    return domain.event in arrived and domain.stats.get("state.reason") == arrived[domain.event]
