"""The oldest versions of servers that Meter works with; the pages name the same ones."""

from __future__ import annotations

OLDEST_RABBITMQ = (3, 10)
"""The first with quorum queues as Meter declares them, and the oldest that is tested."""

OLDEST_POSTGRESQL = 14
