"""Segments: how long an instance was in each state with each flavor, computed from the samples of its meter ``instance``.

Every notification of Nova about an instance contains its state and flavor. Where these change, one segment ends and the
next begins. An audit (``exists``) repairs missed notifications: of a creation, of a resize, an unshelving or a rebuild,
which set ``launched_at`` again, and of a deletion. Its timestamp is the end of the audit period, but it contains the state
at the time of sending: a change with a notification of its own soon after has the time of that notification. A deleted
instance stays deleted, whatever arrives late. A soft-deleted instance can be restored; ``soft-delete`` is a state like any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import Protocol

from meter.message import BadMessage
from meter.message import parse_timestamp

METER = "instance"
"""The meter whose samples contain state and flavor."""

MAX_AUDIT = timedelta(hours=1)
"""An audit is sent at most this long after the end of its period, and contains the state at the time of sending."""

DELETED = "deleted"
RUNNING = frozenset({"active", "paused", "rescued", "resized"})
"""Nova's states (``vm_state``) in which an instance occupies processors and memory of its host."""

UNKNOWN = "unknown"
"""State and flavor of an instance before its first notification."""


class InstanceSample(Protocol):
    """A sample of the meter ``instance``: a stored one, or a metering message."""

    @property
    def timestamp(self) -> datetime:
        """The time of the sample, in UTC."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Nova's description of the instance at that time."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A period in one state with one flavor; ``ended`` is ``None`` while it lasts."""

    state: str
    flavor: str
    began: datetime
    ended: datetime | None = None

    def seconds(self, start: datetime, end: datetime) -> float:
        """Return how many seconds of the segment lie between ``start`` and ``end``."""
        last = end if self.ended is None else min(self.ended, end)
        return max(0.0, (last - max(self.began, start)).total_seconds())


def segments(samples: Iterable[InstanceSample]) -> list[Segment]:
    """Return the segments of one instance, oldest first, from its samples in any order, with or without duplicates.

    Polled samples of the same meter are ignored; they have no ``event_type``.
    """
    notified = (sample for sample in samples if _text(sample, "event_type") != UNKNOWN)
    ordered = sorted(notified, key=lambda sample: sample.timestamp)
    deletions = [deletion for sample in ordered if (deletion := _deletion(sample)) is not None]
    end = min(deletions, default=None)
    alive = [sample for sample in ordered if _deletion(sample) is None and (end is None or sample.timestamp < end)]
    found: list[Segment] = []
    for n, sample in enumerate(alive):
        state, flavor = _text(sample, "state"), _flavor(sample)
        if not found:
            found.append(Segment(state, flavor, _since(sample)))
        elif (state, flavor) != (found[-1].state, found[-1].flavor) and not _notified_later(
            sample, itertools.islice(alive, n + 1, None)
        ):
            changed = max(_changed(sample, found[-1]), found[-1].began)
            found[-1] = replace(found[-1], ended=changed)
            found.append(Segment(state, flavor, changed))
    if end is None:
        return found
    if not found:
        launched = next((when for sample in ordered if (when := _time(sample, "launched_at"))), None)
        return [Segment(UNKNOWN, _flavor(ordered[0]), launched, end)] if launched and launched < end else []
    found[-1] = replace(found[-1], ended=max(end, found[-1].began))
    return found


def seconds_by_state_and_flavor(
    found: Iterable[Segment], start: datetime, end: datetime
) -> dict[tuple[str, str], float]:
    """Return the seconds between ``start`` and ``end`` by state and flavor."""
    seconds: dict[tuple[str, str], float] = {}
    for segment in found:
        if within := segment.seconds(start, end):
            key = (segment.state, segment.flavor)
            seconds[key] = seconds.get(key, 0.0) + within
    return seconds


def _deletion(sample: InstanceSample) -> datetime | None:
    """Return when the instance was deleted if the sample reports that, not counting a soft deletion.

    A sample of a deleted instance has the volume 0 and the time of the deletion. Samples with another volume, from
    collectors that did not set it to 0, have the time of the notification.
    """
    if getattr(sample, "volume", 1) == 0:
        return sample.timestamp
    if _text(sample, "state") == DELETED or _is(sample, "delete.end"):
        return _time(sample, "deleted_at") or sample.timestamp
    return None


def _since(sample: InstanceSample) -> datetime:
    """Return since when the instance has the state and flavor of its first sample.

    An audit or the end of a creation reports the state since the launch. Any other notification reports a change that has
    just happened; the time before is unknown.
    """
    launched = _time(sample, "launched_at")
    if launched is not None and launched < sample.timestamp and _is(sample, "exists", "create.end"):
        return launched
    return sample.timestamp


def _changed(sample: InstanceSample, current: Segment) -> datetime:
    """Return when the change happened that a sample reports, which for an audit may be before its timestamp."""
    launched = _time(sample, "launched_at")
    state = _text(sample, "state")
    started = state in RUNNING and current.state not in RUNNING
    if (
        launched is not None
        and _is(sample, "exists")
        and (started or _flavor(sample) != current.flavor)
        and current.began < launched < sample.timestamp + MAX_AUDIT
    ):
        return launched
    return sample.timestamp


def _notified_later(audit: InstanceSample, following: Iterable[InstanceSample]) -> bool:
    """Return whether an audit reports a change that has its own notification among the ``following`` samples."""
    if not _is(audit, "exists"):
        return False
    recent = itertools.takewhile(lambda sample: sample.timestamp < audit.timestamp + MAX_AUDIT, following)
    change = _text(audit, "state"), _flavor(audit)
    return any(not _is(sample, "exists") and (_text(sample, "state"), _flavor(sample)) == change for sample in recent)


def _is(sample: InstanceSample, *events: str) -> bool:
    return _text(sample, "event_type").endswith(tuple(f".{event}" for event in events))


def _flavor(sample: InstanceSample) -> str:
    flavor = sample.metadata.get("flavor")
    name = flavor.get("name") if isinstance(flavor, Mapping) else None
    return name if isinstance(name, str) and name else UNKNOWN


def _text(sample: InstanceSample, name: str) -> str:
    value = sample.metadata.get(name)
    return value if isinstance(value, str) and value else UNKNOWN


def _time(sample: InstanceSample, name: str) -> datetime | None:
    """Return a time in the metadata, ``None`` if it is not set or not valid."""
    value = sample.metadata.get(name)
    try:
        return parse_timestamp(value, name) if isinstance(value, str) and value else None
    except BadMessage:
        return None
