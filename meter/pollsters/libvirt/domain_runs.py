"""The runs of domains on this host: when each began, and whether the domain runs here, arrives, or runs elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from typing import Literal

from meter.interfaces import Absence
from meter.interfaces import Domain
from meter.pollsters.libvirt.replaced_devices import ReplacedDevices

PAUSED, SHUT_OFF = 3, 5
"""Values of libvirt's virDomainState."""

PAUSED_FOR_MIGRATION, STARTING_UP, PAUSED_FOR_POSTCOPY, POSTCOPY_FAILED = 2, 11, 12, 13
"""Values of libvirt's virDomainPausedReason. A domain that is being restored is paused as for a migration."""

RUNNING_MIGRATED, RUNNING_POSTCOPY = 2, 10
"""Values of libvirt's virDomainRunningReason."""

SHUT_OFF_MIGRATED = 4
"""A value of libvirt's virDomainShutoffReason."""

HAS_RUN_NS = 1_000_000_000
"""A domain whose vCPUs have used more time than this has run; those of an arriving domain have only used some for its
creation."""

Presence = Literal["here", "arriving", "elsewhere"]
"""*arriving*: it migrates to this host, or is being restored, and was never resumed here. *elsewhere*: it runs on
another host."""


@dataclass(slots=True)
class DomainRun:
    """One run of a domain on this host, from its start, or its first resumption, to its end.

    ``name`` identifies the run on this host. ``number`` is libvirt's id of the running domain, ``process`` identifies
    its QEMU process. ``began_at`` is when its counters were 0, ``None`` if unknown. ``devices`` finds devices that were replaced.
    """

    name: str
    number: int | None
    process: str | None
    began_at: datetime | None
    seen_at: datetime
    arriving: bool = False
    leaving: bool = False
    restored: bool = False
    devices: ReplacedDevices = field(default_factory=ReplacedDevices)

    def is_current_for(self, domain: Domain) -> bool:
        """Return whether ``domain`` is still in this run. After a restart libvirt may reuse the number."""
        other_process = self.process is not None and domain.process is not None and self.process != domain.process
        return self.number == domain.run and not other_process


class DomainRuns:
    """The present runs of the domains of this host, kept between polls. ``since`` is the time of the first poll."""

    def __init__(self, since: datetime) -> None:
        self._since = since
        self._runs: dict[str, DomainRun] = {}
        self._off_at: dict[str, datetime] = {}
        self._listed_at: datetime | None = None

    def observe(
        self, domain: Domain, at: datetime, absence: Callable[[str], Absence], *, remember: bool = True
    ) -> tuple[Presence, DomainRun | None]:
        """Return where ``domain`` is, as polled at the time ``at``, and its run, ``None`` if it is not running."""
        uuid = domain.uuid
        known = self._runs.get(uuid)
        if domain.stats.get("state.state") == SHUT_OFF:
            presence = self._presence_of_shut_off(domain, known, absence)
            if remember:
                self._runs.pop(uuid, None)
                self._off_at[uuid] = at
            return presence, None
        if domain.run is None and domain.event is not None:
            return "here", None  # the run ended before it could be read
        if known is not None and known.is_current_for(domain):
            run = known
        else:
            run = self._new_run(domain, at, known, absence)
            if remember:
                self._runs[uuid] = run
                self._off_at.pop(uuid, None)
        presence = _update(run, domain, at)
        run.seen_at = max(run.seen_at, at)
        return presence, run

    def forget_all_but(self, uuids: set[str], at: datetime) -> None:
        """Take the UUIDs of all domains that existed at the time ``at``; delete all others."""
        self._listed_at = at
        for known in (self._runs, self._off_at):
            for uuid in known.keys() - uuids:
                del known[uuid]

    def _presence_of_shut_off(
        self, domain: Domain, known: DomainRun | None, absence: Callable[[str], Absence]
    ) -> Presence:
        if domain.event is not None:
            # A domain whose migration to this host failed has never been here.
            return "arriving" if known is not None and known.arriving else "here"
        if domain.stats.get("state.reason") == SHUT_OFF_MIGRATED or absence(domain.uuid).why == "migrated":
            return "elsewhere"
        return "here"

    def _new_run(
        self, domain: Domain, at: datetime, before: DomainRun | None, absence: Callable[[str], Absence]
    ) -> DomainRun:
        event = domain.event or ""
        number = "" if domain.run is None else f"{domain.run}-"
        run = DomainRun(
            name=domain.process or f"{number}{os.urandom(6).hex()}",
            number=domain.run,
            process=domain.process,
            began_at=None,
            seen_at=at,
            arriving=_is_paused_for_migration(domain) and not _has_run(domain) and "(restored)" not in event,
        )
        if not run.arriving:
            run.began_at = self._zero_at(domain, at, self._not_begun_at(domain.uuid, before, absence))
        return run

    def _not_begun_at(self, uuid: str, before: DomainRun | None, absence: Callable[[str], Absence]) -> datetime | None:
        """Return the last known time at which a new run had not begun: the domain was in another run, off, or absent."""
        if before is not None:
            return before.seen_at
        if uuid in self._off_at:
            return self._off_at[uuid]
        return self._listed_at if absence(uuid).why != "unreadable" else None

    def _zero_at(self, domain: Domain, at: datetime, not_begun_at: datetime | None) -> datetime | None:
        """Return when the counters of a new run were certainly 0; ``None`` if that is unknown."""
        if _has_just_started(domain):
            return domain.started_at if _was_started_before(domain, at) else at
        if _has_just_arrived(domain):
            return at
        if domain.started_at is None:
            return not_begun_at
        return domain.started_at if domain.started_at > (not_begun_at or self._since) else None


def _update(run: DomainRun, domain: Domain, at: datetime) -> Presence:
    """Update a run; return where the domain is."""
    state, reason, event = domain.stats.get("state.state"), domain.stats.get("state.reason"), domain.event or ""
    if "(restored)" in event:
        run.restored = True
        run.arriving = False
    if run.arriving:
        if _is_paused_for_migration(domain):
            return "arriving"
        run.arriving = False
        # The counters did not change while the domain was paused, until it was resumed.
        run.began_at = at if event else run.seen_at
    elif run.began_at is None and (_has_just_started(domain) or _has_just_arrived(domain)):
        run.began_at = domain.started_at if _has_just_started(domain) and _was_started_before(domain, at) else at
    if state == PAUSED and (reason == PAUSED_FOR_POSTCOPY or (reason == POSTCOPY_FAILED and run.leaving)):
        run.leaving = True
        return "elsewhere"
    run.leaving = state == PAUSED and reason == PAUSED_FOR_MIGRATION and not run.restored
    return "here"


def _is_paused_for_migration(domain: Domain) -> bool:
    """Return whether a domain is paused because it has not been resumed yet after a migration, or is about to leave."""
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


def _has_just_started(domain: Domain) -> bool:
    return (domain.event or "").startswith("started (")


def _was_started_before(domain: Domain, at: datetime) -> bool:
    return domain.started_at is not None and domain.started_at < at


def _has_just_arrived(domain: Domain) -> bool:
    """Return whether a migration to this host has ended; a failed one resumes the domain on its source host."""
    arrived = {"resumed (migrated)": RUNNING_MIGRATED, "resumed (post-copy)": RUNNING_POSTCOPY}
    return domain.event in arrived and domain.stats.get("state.reason") == arrived[domain.event]
