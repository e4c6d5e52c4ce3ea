"""Daemons as pages show them: what the last heartbeat of each says, and what of it needs attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import Literal

from meter.completeness.daemon_limits import LOW_DISK_BYTES
from meter.completeness.daemon_limits import OLD_SPOOL_SECONDS
from meter.completeness.daemon_limits import REMOVED
from meter.completeness.daemon_limits import SILENT
from meter.completeness.daemon_limits import SKEW_WARNING
from meter.completeness.daemon_limits import SPOOL_WARNING
from meter.completeness_store import StoredHeartbeat

DaemonCondition = Literal["running", "silent", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRow:
    """A daemon with its last heartbeat; ``problems`` are clauses, none of a daemon that was stopped."""

    stored: StoredHeartbeat
    state: DaemonCondition
    problems: Sequence[str]

    @property
    def skewed(self) -> bool:
        """Whether its clock differs from that of the database; one that seems behind may only have been slow to arrive."""
        return abs(timedelta(seconds=self.stored.ahead_seconds)) >= SKEW_WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSummary:
    """All daemons: rows, those with problems first; numbers by state; running ones by version and by signing key."""

    rows: Sequence[DaemonRow]
    states: Mapping[str, int]
    versions: Mapping[str, int]
    keys: Mapping[tuple[str, str], int]

    @property
    def with_problems(self) -> int:
        """How many daemons have problems."""
        return sum(bool(row.problems) for row in self.rows)

    @property
    def skewed(self) -> Sequence[DaemonRow]:
        """Running daemons with a wrong clock."""
        return [row for row in self.rows if row.state == "running" and row.skewed]


def daemon_summary(heartbeats: Sequence[StoredHeartbeat], now: datetime) -> DaemonSummary:
    """Return the daemons whose heartbeats these are, but for those that are silent so long that they count as removed."""
    rows = [daemon_row(each, now) for each in heartbeats if now - each.received_at <= REMOVED]
    running = [row.stored.heartbeat for row in rows if row.state == "running"]
    return DaemonSummary(
        rows=sorted(rows, key=lambda row: (not row.problems, row.state == "running", row.stored.heartbeat.name)),
        states=Counter(row.state for row in rows),
        versions=dict(Counter(each.version for each in running).most_common()),
        # The first key is the one that signs.
        keys=dict(Counter(each.key_ids[0] for each in running if each.key_ids).most_common()),
    )


def daemon_row(stored: StoredHeartbeat, now: datetime) -> DaemonRow:
    """Return the row of a daemon at ``now``."""
    heartbeat = stored.heartbeat
    if heartbeat.stopping:
        return DaemonRow(stored=stored, state="stopped", problems=())
    if now - stored.received_at > SILENT:
        return DaemonRow(stored=stored, state="silent", problems=("no heartbeat arrives",))
    return DaemonRow(stored=stored, state="running", problems=tuple(_problems(stored)))


def _problems(stored: StoredHeartbeat) -> Iterator[str]:
    for dependency in stored.heartbeat.dependencies:
        if not dependency.ready:
            yield f"{dependency.name} is not ready: {dependency.reason}"
    if abs(timedelta(seconds=stored.ahead_seconds)) >= SKEW_WARNING:
        yield "its clock differs from that of the database"
    spool = stored.heartbeat.spool
    if spool is not None:
        if spool.max_bytes and spool.bytes / spool.max_bytes >= SPOOL_WARNING:
            yield "its spool fills"
        if spool.oldest_seconds >= OLD_SPOOL_SECONDS:
            yield "its spool has old messages"
        if spool.free_bytes is not None and spool.free_bytes < LOW_DISK_BYTES:
            yield "the disk of its spool is nearly full"
