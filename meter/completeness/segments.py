"""Segments: how long an instance was in which state under which flavor, from the samples of its meter ``instance``.

Every notification of Nova about an instance says its state and flavor. Between two that differ, one segment ends and
the next begins. An audit (``exists``) repairs what was missed: it tells of an instance whose creation nobody heard, of
a resize, an unshelving or a rebuild (which set the time of launch anew) and of a deletion. Its time is the end of its
period, but it tells of the time of sending: a change that is told of by its own notification soon after is of that time. What is deleted stays so, whatever arrives late; an
instance that is soft-deleted can be restored, and is in a state as any other.
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
"""The meter whose samples tell of segments."""

LONGEST_AUDIT = timedelta(hours=1)
"""An audit is sent up to this long after the end of its period, which is its time, and tells of the time of sending."""

DELETED = "deleted"
RUNNING = frozenset({"active", "paused", "rescued", "resized"})
"""Nova's states (``vm_state``) in which an instance has processors and memory of its host."""

UNKNOWN = "unknown"
"""The state and flavor of an instance before anything was heard of it."""


class Told(Protocol):
    """What a sample says: a stored one, or a metering message."""

    @property
    def timestamp(self) -> datetime:
        """When it was true, in UTC."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What Nova said of the instance then."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A time in one state under one flavor; ``ended`` is ``None`` while it lasts."""

    state: str
    flavor: str
    began: datetime
    ended: datetime | None = None

    def seconds(self, start: datetime, end: datetime) -> float:
        """Return how much of the segment lies between ``start`` and ``end``."""
        last = end if self.ended is None else min(self.ended, end)
        return max(0.0, (last - max(self.began, start)).total_seconds())


def segments(samples: Iterable[Told]) -> list[Segment]:
    """Return the segments of one instance, oldest first, from its samples in any order; a sample may come twice.

    What a hypervisor says of it, under the same name of a meter, is left out: it names no event.
    """
    heard = (sample for sample in samples if _text(sample, "event_type") != UNKNOWN)
    told = sorted(heard, key=lambda sample: sample.timestamp)
    deletions = [deletion for sample in told if (deletion := _deletion(sample)) is not None]
    end = min(deletions, default=None)
    alive = [sample for sample in told if _deletion(sample) is None and (end is None or sample.timestamp < end)]
    found: list[Segment] = []
    for n, sample in enumerate(alive):
        state, flavor = _text(sample, "state"), _flavor(sample)
        if not found:
            found.append(Segment(state, flavor, _since(sample)))
        elif (state, flavor) != (found[-1].state, found[-1].flavor) and not _told_later(
            sample, itertools.islice(alive, n + 1, None)
        ):
            changed = max(_changed(sample, found[-1]), found[-1].began)
            found[-1] = replace(found[-1], ended=changed)
            found.append(Segment(state, flavor, changed))
    if end is None:
        return found
    if not found:
        launched = next((when for sample in told if (when := _time(sample, "launched_at"))), None)
        return [Segment(UNKNOWN, _flavor(told[0]), launched, end)] if launched and launched < end else []
    found[-1] = replace(found[-1], ended=max(end, found[-1].began))
    return found


def seconds_by_state_and_flavor(
    found: Iterable[Segment], start: datetime, end: datetime
) -> dict[tuple[str, str], float]:
    """Return the seconds between ``start`` and ``end`` in each state under each flavor."""
    seconds: dict[tuple[str, str], float] = {}
    for segment in found:
        if within := segment.seconds(start, end):
            key = (segment.state, segment.flavor)
            seconds[key] = seconds.get(key, 0.0) + within
    return seconds


def _deletion(sample: Told) -> datetime | None:
    """Return when the instance was deleted, if the sample says that it was: for good, not softly.

    A sample of what no longer exists has the volume 0 and the time of the deletion. Those that were stored before that
    was so have the time of their notification.
    """
    if getattr(sample, "volume", 1) == 0:
        return sample.timestamp
    if _text(sample, "state") == DELETED or _is(sample, "delete.end"):
        return _time(sample, "deleted_at") or sample.timestamp
    return None


def _since(sample: Told) -> datetime:
    """Return since when an instance that was not heard of before is what the first sample says.

    An audit or the end of a creation speaks of the time since the launch. Anything else speaks of a change that has
    just happened, and of what was before nothing is known.
    """
    launched = _time(sample, "launched_at")
    if launched is not None and launched < sample.timestamp and _is(sample, "exists", "create.end"):
        return launched
    return sample.timestamp


def _changed(sample: Told, current: Segment) -> datetime:
    """Return when the change happened that a sample tells of: audits tell of it later."""
    launched = _time(sample, "launched_at")
    state = _text(sample, "state")
    started = state in RUNNING and current.state not in RUNNING
    if (
        launched is not None
        and _is(sample, "exists")
        and (started or _flavor(sample) != current.flavor)
        and current.began < launched < sample.timestamp + LONGEST_AUDIT
    ):
        return launched
    return sample.timestamp


def _told_later(audit: Told, following: Iterable[Told]) -> bool:
    """Return whether an audit tells of a change after its period, whose own notification is among the ``following`` samples."""
    if not _is(audit, "exists"):
        return False
    told = itertools.takewhile(lambda sample: sample.timestamp < audit.timestamp + LONGEST_AUDIT, following)
    change = _text(audit, "state"), _flavor(audit)
    return any(not _is(sample, "exists") and (_text(sample, "state"), _flavor(sample)) == change for sample in told)


def _is(sample: Told, *events: str) -> bool:
    return _text(sample, "event_type").endswith(tuple(f".{event}" for event in events))


def _flavor(sample: Told) -> str:
    flavor = sample.metadata.get("flavor")
    name = flavor.get("name") if isinstance(flavor, Mapping) else None
    return name if isinstance(name, str) and name else UNKNOWN


def _text(sample: Told, name: str) -> str:
    value = sample.metadata.get(name)
    return value if isinstance(value, str) and value else UNKNOWN


def _time(sample: Told, name: str) -> datetime | None:
    """Return a time of the metadata, ``None`` for one that is not set or makes no sense."""
    value = sample.metadata.get(name)
    try:
        return parse_timestamp(value, name) if isinstance(value, str) and value else None
    except BadMessage:
        return None
