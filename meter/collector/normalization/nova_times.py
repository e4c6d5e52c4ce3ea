"""The time of a fact that Nova publishes in two forms: both forms must give the same one.

The two notifications of one fact are sent some milliseconds apart, so their own timestamps differ. Where both payloads
name the moment of the fact, that moment is its time. The versioned form has whole seconds only, therefore the
fractions of the other form's payload times are set to zero. Where the payload names no such moment (``power_off.end``,
``volume.attach``), :class:`FirstTimes` gives the second form the time of the first one. If two collectors receive one
form each, the store keeps one sample of each id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from typing import Any

from cachetools import FIFOCache

from meter.message import BadMessage
from meter.message import moment
from meter.notification import Notification

SHARED_TIMES = {
    "compute.instance.create.end": ("launched_at",),
    "compute.instance.delete.end": ("deleted_at", "terminated_at"),
    "compute.instance.exists": ("audit_period_ending",),
    "compute.instance.update": ("audit_period_ending",),
}
"""Event types whose payload names the moment of the fact in both forms; of several moments the latest counts."""

PAYLOAD_TIMES = (
    "created_at",
    "launched_at",
    "deleted_at",
    "terminated_at",
    "audit_period_beginning",
    "audit_period_ending",
)

CLOCK_DIFFERENCE = timedelta(minutes=5)
"""A moment further after its own notification than this is not believed."""

OLDEST_LAUNCH = timedelta(hours=1)
"""A launch further before the end of its creation than this belongs to something else."""

UNSET_CLOCK = timedelta(days=366)
"""A deletion so long before its creation was told by a host whose clock was not set."""

REMEMBERED = 10_000
"""Notifications whose time :class:`FirstTimes` remembers; the two forms of a fact follow each other at once."""

_FRACTION = re.compile(r"(?<=\d{2}:\d{2}:\d{2}\.)\d+")


class FirstTimes:
    """Gives every notification with the same id the time of the first one, as far back as ``most`` notifications."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._times: FIFOCache[str, datetime] = FIFOCache(most)

    def applied(self, heard: Notification) -> Notification:
        """Return ``heard`` with the time of the first notification of the same fact."""
        first = self._times.setdefault(heard.message_id, heard.timestamp)
        if first == heard.timestamp:
            return heard
        # Another collector may have heard this one first.
        return replace(heard, timestamp=first, may_differ=tuple({*heard.may_differ, "timestamp"}))


def in_whole_seconds(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a notification with its times as both forms can tell them: ``12:00:00.000000``."""
    changed = dict(payload)
    for name in PAYLOAD_TIMES:
        if name in changed:
            changed[name] = _whole(changed[name])
    metrics = changed.get("metrics")
    if isinstance(metrics, list):
        changed["metrics"] = [
            {**metric, "timestamp": _whole(metric["timestamp"])}
            if isinstance(metric, dict) and "timestamp" in metric
            else metric
            for metric in metrics
        ]
    return changed


def shared_time(heard: Notification) -> datetime:
    """Return the moment of the fact that both forms name in their payload, else the notification's own time."""
    if heard.event_type == "compute.metrics.update":
        metrics = heard.payload.get("metrics")
        written = [each.get("timestamp") for each in metrics if isinstance(each, dict)] if metrics else []
    else:
        written = [heard.payload.get(name) for name in SHARED_TIMES.get(heard.event_type, ())]
    moments = [read for each in written if (read := _moment(each)) is not None]
    if not moments:
        return heard.timestamp
    latest = max(moments)
    made = _moment(heard.payload.get("created_at"))
    if heard.event_type == "compute.instance.delete.end" and made is not None and made - latest >= UNSET_CLOCK:
        return heard.timestamp
    if latest > heard.timestamp + CLOCK_DIFFERENCE:
        return heard.timestamp
    if heard.event_type == "compute.instance.create.end" and latest < heard.timestamp - OLDEST_LAUNCH:
        return heard.timestamp
    return latest


def _whole(written: Any) -> Any:
    return _FRACTION.sub(lambda digits: "0" * len(digits[0]), written) if isinstance(written, str) else written


def _moment(written: Any) -> datetime | None:
    try:
        return moment(written, "time") if isinstance(written, str) and written else None
    except BadMessage:
        return None
