"""The reference for ``integral``: for how many hours the volume of each sample of a gauge counts.

At any time one sample of a meter and resource counts, whatever its unit, run or source:

- It counts from its time until the next sample of the same unit, or, if there is none, until the next sample in another unit.
- A polled sample, which has a polling interval, counts for three intervals at most, unless a later sample belongs to the same
  declared run: then the resource existed in between.
- Where a poll measured 0, samples without an interval, from notifications, do not count until the next poll, or for three intervals
  of that poll: the poll says what is used, a notification what is reserved.
- After the deletion of the resource (the run :data:`meter.sample.DELETED`) none counts.
- The last one does not count: how long it is valid is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import datetime

from meter.counter_runs import INTERVALS_CARRIED
from meter.counter_runs import Run
from meter.counter_runs import RunKind
from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.query import StoredSample
from meter.sample import DELETED

SECONDS_IN_HOUR = 3600

DELETION = Run(RunKind.DECLARED, DELETED)


def integral_hours(
    samples: Sequence[StoredSample], before: Sequence[StoredSample], start: datetime | None
) -> Iterator[tuple[StoredSample, float]]:
    """Yield each of ``samples`` with the hours for which its volume counts, if there are any.

    They are all samples of a meter and resource in the range, and those ``before`` its ``start``, oldest first.
    """
    existing = _until_deletion(samples, before)
    poll = None if start is None else _valid_poll(before, start)
    carried = 0.0 if poll is None else _carried(poll)
    for position, row in enumerate(existing):
        later = existing[position + 1 :]
        following = next((each for each in later if each.unit == row.unit), later[0] if later else None)
        interval = interval_of(row.metadata)
        if interval:
            poll = row
            carried = math.inf if _is_continued(row, later) else _carried(row)
        if following is None:
            continue
        seconds = (following.timestamp - row.timestamp).total_seconds()
        if interval:
            seconds = min(seconds, carried)
        elif poll is not None and float(poll.volume) == 0:
            seconds -= min(seconds, max(0.0, carried - (row.timestamp - poll.timestamp).total_seconds()))
        yield row, seconds / SECONDS_IN_HOUR


def _until_deletion(samples: Sequence[StoredSample], before: Sequence[StoredSample]) -> Sequence[StoredSample]:
    """Return ``samples`` up to the first of a deletion; none if that was before."""
    if any(_run_of(row) == DELETION for row in before):
        return ()
    for position, row in enumerate(samples):
        if _run_of(row) == DELETION:
            return samples[: position + 1]
    return samples


def _valid_poll(before: Sequence[StoredSample], start: datetime) -> StoredSample | None:
    """Return the newest of the polls ``before`` the range that count until after its ``start``."""
    polls = (row for row in reversed(before) if (start - row.timestamp).total_seconds() < _carried(row))
    return next(polls, None)


def _carried(poll: StoredSample) -> float:
    """Return for how many seconds a polled sample counts at most, 0 for one without an interval."""
    return INTERVALS_CARRIED * interval_of(poll.metadata)


def _is_continued(row: StoredSample, later: Sequence[StoredSample]) -> bool:
    """Return whether the resource of ``row`` existed until one of the ``later`` samples."""
    run = _run_of(row)
    return run.kind is RunKind.DECLARED and any(_run_of(each) == run for each in later)


def _run_of(row: StoredSample) -> Run:
    return run_of(row.type, row.metadata)
