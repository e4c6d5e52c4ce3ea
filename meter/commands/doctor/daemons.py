"""The checks *daemons*, *versions*, *clocks*, *keys* and *spools*: what the last heartbeats of all daemons say.

A heartbeat passes the broker and a collector, so without a running collector nothing is known of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta

import msgspec

import meter
from meter.commands.doctor.database import readable_bytes
from meter.commands.doctor.finding import Finding
from meter.commands.doctor.finding import Level
from meter.completeness.daemon_limits import LOW_DISK_BYTES
from meter.completeness.daemon_limits import OLD_SPOOL_SECONDS
from meter.completeness.daemon_limits import REMOVED
from meter.completeness.daemon_limits import SILENT
from meter.completeness.daemon_limits import SKEW_FAULT
from meter.completeness.daemon_limits import SKEW_WARNING
from meter.completeness.daemon_limits import SPOOL_FAULT
from meter.completeness.daemon_limits import SPOOL_WARNING
from meter.completeness.daemon_limits import VERY_OLD_SPOOL_SECONDS
from meter.counts import counted
from meter.heartbeat import Heartbeat
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.settings.config_file import SINGLE
from meter.store import HeartbeatRow

COLLECTORS = ("meter-collector", SINGLE)

RECENT_ERROR = timedelta(hours=1)

MAX_NAMED = 20
"""Maximum number of daemons that one check names one by one; the rest are counted."""

NTP = "synchronize the clocks of all hosts with NTP or chrony: samples carry the time of the agent's host"


@dataclass(frozen=True, slots=True)
class DaemonState:
    """The last heartbeat of a daemon, and when it arrived."""

    name: str
    clock: datetime
    received_at: datetime
    content: Heartbeat

    def silent(self, now: datetime) -> bool:
        """Return whether the daemon is silent at ``now``, a time of the database's clock."""
        return self.content.stopping or now - self.received_at > SILENT


def daemon_states(stored: Iterable[HeartbeatRow]) -> list[DaemonState]:
    """Return the heartbeats as records; one of a future version that cannot be read is left out."""
    states = []
    for row in stored:
        try:
            states.append(
                DaemonState(row.name, row.clock, row.received_at, msgspec.json.decode(row.content, type=Heartbeat))
            )
        except msgspec.MsgspecError:
            continue
    return states


def limited(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings, of each level the first :data:`MAX_NAMED` one by one, and the number of the rest."""
    counts: Counter[str] = Counter()
    last: dict[str, Finding] = {}
    for finding in findings:
        counts[finding.level] += 1
        last[finding.level] = finding
        if counts[finding.level] <= MAX_NAMED:
            yield finding
    for level, count in counts.items():
        if count > MAX_NAMED:
            yield Finding(
                last[level].check,
                last[level].level,
                f"{count - MAX_NAMED} more like these",
                "see --json or the table daemon_heartbeat",
            )


def daemon_findings(states: Sequence[DaemonState], now: datetime) -> Iterator[Finding]:
    """Yield which daemons are silent, not ready, or had an error lately."""
    live = [each for each in states if not each.silent(now)]
    if not states:
        yield Finding(
            "daemons",
            "warning",
            "no daemon has published a heartbeat that a collector stored",
            "start meter-collector and wait a minute; daemons of older versions send no heartbeats",
        )
        return
    silent = sorted((each for each in states if each.silent(now)), key=lambda each: each.received_at)
    if not any(each.content.daemon in COLLECTORS for each in live):
        for each in silent:
            if each.content.daemon in COLLECTORS:
                yield _silence(each, "fault")
        since = max(each.received_at for each in states)
        yield Finding(
            "daemons",
            "fault" if not any(each.content.daemon in COLLECTORS for each in silent) else "not checked",
            f"no collector runs, so no heartbeat of any daemon is stored since {since:%Y-%m-%d %H:%M:%S} UTC",
            "start meter-collector first; until then see the status pages of the other daemons",
        )
        return
    removed = [each.name for each in silent if now - each.received_at > REMOVED]
    for each in silent:
        if each.name not in removed:
            yield _silence(each, "warning" if each.content.stopping else "fault")
    for each in live:
        for dependency in each.content.dependencies:
            if not dependency.ready:
                yield Finding(
                    "daemons",
                    "warning",
                    f"{each.name}: {dependency.name} is not ready: {dependency.reason}",
                    "its log has details; the daemon continues by itself when the dependency is ready",
                )
        if each.content.last_error and (at := _time(each.content.last_error_at)) and each.clock - at < RECENT_ERROR:
            yield Finding(
                "daemons",
                "warning",
                f"{each.name} logged an error at {at:%H:%M:%S} UTC: {each.content.last_error}",
                "its log has what came before, and the traceback",
            )
    counts = Counter(each.content.daemon for each in live)
    yield Finding("daemons", "ok", "running: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    if removed:
        shown = ", ".join(removed[:MAX_NAMED]) + (
            f" and {len(removed) - MAX_NAMED} more" if len(removed) > MAX_NAMED else ""
        )
        yield Finding("daemons", "ok", f"silent for more than {REMOVED.days} days, and so counted as removed: {shown}")


def _silence(each: DaemonState, level: Level) -> Finding:
    since = f"{each.received_at:%Y-%m-%d %H:%M:%S} UTC"
    if each.content.stopping:
        return Finding(
            "daemons",
            "fault" if level == "fault" else "warning",
            f"{each.name} was stopped at {since}",
            "start it, or ignore it if it is meant to be stopped",
        )
    return Finding(
        "daemons",
        "fault",
        f"{each.name} is silent since {since}: it does not run, or cannot reach the broker, or its key was changed",
        f"on {each.content.host}: systemctl status {each.content.daemon}, its log, and meter-doctor there",
    )


def version_findings(states: Sequence[DaemonState], now: datetime) -> Iterator[Finding]:
    """Yield whether all running daemons, and this command, have one version."""
    versions: dict[str, list[str]] = {meter.__version__: ["this command"]}
    for each in states:
        if not each.silent(now):
            versions.setdefault(each.content.version, []).append(each.name)
    if len(versions) == 1:
        yield Finding("versions", "ok", f"all have version {meter.__version__}")
        return
    shown = "; ".join(
        f"{version}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for version, names in sorted(versions.items())
    )
    yield Finding(
        "versions", "warning", f"versions differ: {shown}", "finish the update: collectors first, then the agents"
    )


def clock_findings(states: Sequence[DaemonState], now: datetime, local: datetime) -> Iterator[Finding]:
    """Yield whose clock differs from the database's; ``now`` is the database's time at the local time ``local``.

    A heartbeat takes time to arrive, longer while the collector is behind: a clock that seems behind may be right, one that is ahead is not.
    """
    quiet = True
    if level := _skew_level(local - now):
        quiet = False
        text = f"the clock of this host is {_difference(local - now)} that of the database"
        yield Finding("clocks", level, text, NTP)
    for each in states:
        if each.silent(now):
            continue
        ahead = each.clock - each.received_at
        if level := _skew_level(ahead):
            quiet = False
            text = f"the clock of {each.name} is {_difference(ahead)} that of the database"
            delayed = ", or its heartbeats are late because the collector is behind" if ahead < timedelta(0) else ""
            yield Finding("clocks", level, text + delayed, NTP)
    if quiet:
        yield Finding("clocks", "ok", "all differ from the database's by less than 5 s")


def _skew_level(skew: timedelta) -> Level | None:
    size = abs(skew)
    return "fault" if size >= SKEW_FAULT else "warning" if size >= SKEW_WARNING else None


def _difference(ahead: timedelta) -> str:
    side = "ahead of" if ahead > timedelta(0) else "behind"
    return f"{abs(ahead).total_seconds():.0f} s {side}"


def key_findings(
    states: Sequence[DaemonState], now: datetime, local: Sequence[tuple[str, str]] | None
) -> Iterator[Finding]:
    """Yield whose signing keys the collectors do not have.

    ``local`` are ids and fingerprints of the keys in the configuration of this host, ``None`` if it has none. A heartbeat
    whose key no collector has is not stored: it is a dead letter of the kind *unverified*.
    """
    live = [each for each in states if not each.silent(now)]
    collectors = [each for each in live if each.content.daemon in COLLECTORS]
    if not collectors:
        yield Finding("keys", "not checked", "no collector runs whose heartbeat names its keys")
        return
    shared = set.intersection(*({print for _, print in each.content.key_ids} for each in collectors))
    named = {print: id for each in collectors for id, print in each.content.key_ids}
    quiet = True
    if local is not None and not any(print in shared for _, print in local[:1]):
        quiet = False
        known = any(print in shared for _, print in local)
        yield Finding(
            "keys",
            "warning" if known else "fault",
            f"the key {local[0][0]} of this host (fingerprint {local[0][1]}), with which its daemons sign, is not one of the"
            f" collectors' ({_keys_text(collectors)}): what this host publishes is dead-lettered",
            "copy the collectors' key to this host, or add this one to [[signing.keys]] of every collector (docs/keys)",
        )
    for each in live:
        if each.content.key_ids and (first := each.content.key_ids[0])[1] not in shared:
            quiet = False
            yield Finding(
                "keys",
                "fault",
                f"the key {first[0]} of {each.name} (fingerprint {first[1]}) is missing on a collector: {_keys_text(collectors)}",
                "give all collectors the same [[signing.keys]]; sign with a new key only when all collectors have it (docs/keys)",
            )
    if quiet:
        yield Finding("keys", "ok", f"all sign with keys of the collectors: {', '.join(sorted(set(named.values())))}")


def _keys_text(collectors: Sequence[DaemonState]) -> str:
    return "; ".join(
        f"{each.name} has {', '.join(f'{id} {print}' for id, print in each.content.key_ids)}" for each in collectors[:3]
    )


def spool_findings(states: Sequence[DaemonState], now: datetime) -> Iterator[Finding]:
    """Yield which spools fill, have old messages, or are on a disk that is nearly full."""
    quiet, spools = True, 0
    for each in states:
        spool = each.content.spool
        if spool is None or each.silent(now):
            continue
        spools += 1
        share = spool.bytes / spool.max_bytes if spool.max_bytes else 0.0
        if share >= SPOOL_WARNING or spool.oldest_seconds >= OLD_SPOOL_SECONDS:
            quiet = False
            bad = share >= SPOOL_FAULT or spool.oldest_seconds >= VERY_OLD_SPOOL_SECONDS
            yield Finding(
                "spools",
                "fault" if bad else "warning",
                f"the spool of {each.name} is {share:.0%} full with {counted(spool.messages, 'message')}, the oldest"
                f" {spool.oldest_seconds / 60:.0f} minutes old; a full one drops the oldest samples",
                "its dependency bus in /readyz says why messages are not sent; raise [spool] max_bytes if the disk has room",
            )
        room = spool.max_bytes - spool.bytes
        if spool.free_bytes is not None and (spool.free_bytes < LOW_DISK_BYTES or spool.free_bytes < room):
            quiet = False
            yield Finding(
                "spools",
                "fault" if spool.free_bytes < min(LOW_DISK_BYTES, room) else "warning",
                f"the disk of the spool of {each.name} has {readable_bytes(spool.free_bytes)} free, and the spool may grow by"
                f" {readable_bytes(room)}",
                "make room on that disk, or lower [spool] max_bytes",
            )
    if quiet:
        text = (
            f"nearly empty, and with room: {counted(spools, 'spool')}" if spools else "no daemon that runs has a spool"
        )
        yield Finding("spools", "ok", text)


def _time(text: str) -> datetime | None:
    try:
        return parse_timestamp(text, "time")
    except BadMessage:
        return None
