"""The queues of Meter's collectors on the broker, and how long they may be."""

from __future__ import annotations

CONSUMED_QUEUES = ("meter.metering", "meter.notifications", "meter.reports")
"""Queues that a running collector consumes."""

WAITING_QUEUES = tuple(f"{name}.waiting" for name in CONSUMED_QUEUES)
"""Queues of bad messages for which there was no room among the dead letters."""

MAX_WAITING_MESSAGES = 10_000
"""More messages than these in a queue with a consumer are a warning: the collector is behind."""
