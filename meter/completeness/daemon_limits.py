"""From when on the last heartbeat of a daemon is a reason to look after it: silence, clock, spool."""

from __future__ import annotations

from datetime import timedelta

from meter.heartbeat import HEARTBEAT_SECONDS

SILENT = timedelta(seconds=3 * HEARTBEAT_SECONDS)
"""A daemon whose last heartbeat is older is silent."""

REMOVED = timedelta(days=7)
"""A daemon that is silent for longer counts as removed."""

SKEW_WARNING = timedelta(seconds=5)
SKEW_FAULT = timedelta(seconds=60)

SPOOL_WARNING = 0.5
SPOOL_FAULT = 0.9
"""Share of its limit that a spool uses."""

OLD_SPOOL_SECONDS = 900.0
VERY_OLD_SPOOL_SECONDS = 6 * 3600.0

LOW_DISK_BYTES = 200_000_000
