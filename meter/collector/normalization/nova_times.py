"""The time of an event that Nova publishes as a versioned and as an unversioned notification: one for both.

The two are sent some milliseconds apart, so their timestamps differ. Where both payloads contain the time of the event,
that is used. Versioned payloads have whole seconds only, so the fractions in unversioned payloads are set to zero. Where
the payloads contain no such time (``power_off.end``, ``volume.attach``), :class:`FirstTimes` gives the second notification
the time of the first. If two collectors receive one each, the store keeps one sample per id.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from datetime import timedelta
from typing import Any

from cachetools import FIFOCache
from msgspec.structs import replace

from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.notification import Notification

SHARED_TIMES = {
    "compute.instance.create.end": ("launched_at",),
    "compute.instance.delete.end": ("deleted_at", "terminated_at"),
    "compute.instance.exists": ("audit_period_ending",),
    "compute.instance.update": ("audit_period_ending",),
}
"""Event types whose versioned and unversioned payloads contain the time of the event: the latest of these members."""

PAYLOAD_TIMES = (
    "created_at",
    "launched_at",
    "deleted_at",
    "terminated_at",
    "audit_period_beginning",
    "audit_period_ending",
)

CLOCK_DIFFERENCE = timedelta(minutes=5)
"""A time later than its notification by more than this is ignored."""

OLDEST_LAUNCH = timedelta(hours=1)
"""A ``launched_at`` further before the notification of the creation than this is not that of the creation."""

UNSET_CLOCK = timedelta(days=366)
"""A deletion this long before the creation has the time of a host whose clock was not set."""

REMEMBERED = 10_000
"""Notifications whose time :class:`FirstTimes` remembers; the two about one event follow each other at once."""

MAX_REMEMBERED_ID = 512
"""Maximum length of an id that is remembered itself, in characters; of a longer one the SHA-256 is."""

_FRACTION = re.compile(r"(?<=\d{2}:\d{2}:\d{2}\.)\d+")


class FirstTimes:
    """Gives notifications with the same id the time of the first one; remembers the last ``most`` ids."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._times: FIFOCache[str, tuple[datetime, datetime | None]] = FIFOCache(most)

    def apply(self, notification: Notification) -> Notification:
        """Return ``notification`` with the time of the first notification about the same event."""
        own = (notification.timestamp, notification.sent)
        id_ = notification.message_id
        if len(id_) > MAX_REMEMBERED_ID:  # one may be as long as a notification
            id_ = hashlib.sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()
        first = self._times.setdefault(id_, own)
        return notification if first == own else replace(notification, timestamp=first[0], sent=first[1])


def in_whole_seconds(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload with the fractions of its times set to zero, as in versioned ones: ``12:00:00.000000``."""
    changed = dict(payload)
    for name in PAYLOAD_TIMES:
        if name in changed:
            changed[name] = _without_fraction(changed[name])
    metrics = changed.get("metrics")
    if isinstance(metrics, list):
        changed["metrics"] = [
            {**metric, "timestamp": _without_fraction(metric["timestamp"])}
            if isinstance(metric, dict) and "timestamp" in metric
            else metric
            for metric in metrics
        ]
    return changed


def shared_time(notification: Notification) -> datetime:
    """Return the time of the event if the payload contains it, else the timestamp of the notification."""
    if notification.event_type == "compute.metrics.update":
        metrics = notification.payload.get("metrics")
        written = (
            [each.get("timestamp") for each in metrics if isinstance(each, dict)] if isinstance(metrics, list) else []
        )
    else:
        written = [notification.payload.get(name) for name in SHARED_TIMES.get(notification.event_type, ())]
    times = [read for each in written if (read := _parse_time(each)) is not None]
    if not times:
        return notification.timestamp
    latest = max(times)
    made = _parse_time(notification.payload.get("created_at"))
    if notification.event_type == "compute.instance.delete.end" and made is not None and made - latest >= UNSET_CLOCK:
        return notification.timestamp
    if latest > notification.timestamp + CLOCK_DIFFERENCE:
        return notification.timestamp
    if notification.event_type == "compute.instance.create.end" and latest < notification.timestamp - OLDEST_LAUNCH:
        return notification.timestamp
    return latest


def _without_fraction(written: Any) -> Any:
    return _FRACTION.sub(lambda digits: "0" * len(digits[0]), written) if isinstance(written, str) else written


def _parse_time(written: Any) -> datetime | None:
    try:
        return parse_timestamp(written, "time") if isinstance(written, str) and written else None
    except BadMessage:
        return None
