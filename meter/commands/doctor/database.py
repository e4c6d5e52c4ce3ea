"""The checks *database*, *durability*, *partitions*, *finalization* and *disk*."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime
from datetime import timedelta
from pathlib import Path

from meter.commands.doctor.finding import Finding
from meter.commands.doctor.needed_versions import OLDEST_POSTGRESQL
from meter.store import DatabaseServer
from meter.store import PartitionState
from meter.store import overdue

LATE = timedelta(hours=1)
"""An hour that is not final so long after it could be is a warning."""

VERY_LATE = timedelta(days=1)

MANY_SAMPLES = 1000
"""So many samples in the default partition, the most that are counted, are a fault."""

LOW_DISK = 0.1
"""Share of a disk that should be free: less is a warning, a third of it a fault."""


def server_findings(server: DatabaseServer) -> Iterator[Finding]:
    """Yield whether Meter can use the server and its schema."""
    what = f"PostgreSQL {server.version.split()[0]}, {server.where.removeprefix('PostgreSQL at ')}"
    if server.version_number < OLDEST_POSTGRESQL * 10_000:
        yield Finding(
            "database", "fault", f"{what}: Meter needs PostgreSQL {OLDEST_POSTGRESQL} or newer", "upgrade PostgreSQL"
        )
    elif server.schema_problem:
        yield Finding(
            "database",
            "fault",
            f"{what}: {server.schema_problem}",
            "meter-db upgrade, or install the same Meter everywhere",
        )
    elif server.standby:
        yield Finding(
            "database",
            "warning",
            f"{what} is a standby: nothing can be written to it",
            "[store] dsn must name the primary, replica_dsn the standby",
        )
    else:
        yield Finding("database", "ok", f"{what}, schema version {server.schema_version}")


def durability_finding(server: DatabaseServer) -> Finding:
    """Return whether committed samples survive a crash of the server."""
    if not server.unsafe_settings:
        return Finding("durability", "ok", "fsync, full_page_writes and synchronous_commit are on")
    shown = ", ".join(f"{name} = {value}" for name, value in sorted(server.unsafe_settings.items()))
    return Finding(
        "durability",
        "fault",
        f"{shown}: a crash of PostgreSQL may lose samples that Meter has acknowledged",
        "; ".join(f"ALTER SYSTEM SET {name} = on" for name in sorted(server.unsafe_settings))
        + "; then pg_reload_conf()",
    )


def partition_finding(state: PartitionState, newest: datetime | None) -> Finding:
    """Return whether this week and the next have a partition. ``newest`` is the timestamp of the newest sample."""
    if state.default_samples:
        # A collector that could not create it at its start tries again after 10 minutes.
        return Finding(
            "partitions",
            "fault" if state.default_samples >= MANY_SAMPLES else "warning",
            f"samples of the week of {state.week} are in the default partition, because the week has none: queries are slow",
            "the collector tries again every 10 minutes; its log says why none could be created",
        )
    if not state.current:
        if newest is None or newest.date() < state.week:
            return Finding(
                "partitions", "ok", f"no samples of the week of {state.week} yet; its partition comes with the first"
            )
        return Finding(
            "partitions",
            "fault",
            f"there is no partition of the week of {state.week}",
            "the collector's log says why none can be created",
        )
    if not state.next:
        return Finding(
            "partitions",
            "warning",
            f"the week after that of {state.week} has no partition yet: it is made on Monday, while samples arrive",
            "restart meter-collector; its log says why none can be created",
        )
    return Finding("partitions", "ok", f"the week of {state.week} and the next one have partitions")


def finalization_finding(oldest: datetime | None, now: datetime, finalize_after_seconds: float) -> Finding:
    """Return whether hours become final in time; ``oldest`` is the first that is not, ``now`` the database's time."""
    late = timedelta(0) if oldest is None else overdue(oldest, now, finalize_after_seconds)
    if oldest is None or late < LATE:
        return Finding("finalization", "ok", "all hours are final that can be")
    hours = int((now - oldest).total_seconds() // 3600)
    return Finding(
        "finalization",
        "fault" if late >= VERY_LATE else "warning",
        f"the hour of {oldest:%Y-%m-%d %H:%M} UTC, {hours} hours ago, is not final: statistics are slow, and nothing expires",
        "a collector must run: its log names hours that cannot be finalized; meter-db finalize does it at once",
    )


def disk_finding(directory: str | None, database_bytes: int) -> Finding:
    """Return how full the disk of the database is, as far as this host has its ``directory``."""
    size = readable_bytes(database_bytes)
    if directory is None or not Path(directory).is_dir():
        return Finding(
            "disk", "not checked", f"the database has {size}; its disk is on another host, or the path may not be read"
        )
    return space_finding(Path(directory), f"the database, {size}, in {directory}")


def state_dir_findings(state_dir: str) -> Iterator[Finding]:
    """Yield how full the disk of ``state_dir`` is, if it exists on this host."""
    directory = Path(state_dir)
    if directory.is_dir():
        yield space_finding(directory, f"[meter] state_dir, {state_dir}")


def space_finding(directory: Path, what: str) -> Finding:
    """Return how full the disk of ``directory`` is; ``what`` says what is there."""
    usage = shutil.disk_usage(directory)
    free = usage.free / usage.total if usage.total else 0.0
    text = f"{what}: {readable_bytes(usage.free)} ({free:.0%}) of the disk are free"
    if free >= LOW_DISK:
        return Finding("disk", "ok", text)
    advice = "make room: meter-db size shows the tables, [store] retention_days what expires"
    return Finding("disk", "fault" if free < LOW_DISK / 3 else "warning", text, advice)


def readable_bytes(count: float) -> str:
    """Return a number of bytes in the unit that suits it: ``1.4 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
