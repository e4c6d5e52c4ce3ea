"""The reference for ``integral``: for how many hours the volume of each sample of a gauge counts.

At any time one sample of a meter and resource counts, whatever its unit, run or source:

- A sample is *measured* if it has a polling interval and its run is not :data:`meter.sample.EXISTED_THROUGHOUT`: it says what is in
  use. The others tell what a service has recorded: its notifications, and its lists.
- A measured sample counts until the next measured one, but for three intervals at most, unless a later sample belongs to the same
  declared run: then the resource existed in between.
- Another sample counts until the next one, and not before a measured one that is valid ends. With an interval the same limit holds.
- The next sample is that of the same unit, or, if there is none, that in another unit.
- After the deletion of the resource (the run :data:`meter.sample.DELETED`) none counts.
- After the last sample nothing is known.
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
from meter.sample import EXISTED_THROUGHOUT

SECONDS_IN_HOUR = 3600

DELETION = Run(RunKind.DECLARED, DELETED)
EXISTENCE = Run(RunKind.DECLARED, EXISTED_THROUGHOUT)


def integral_hours(
    samples: Sequence[StoredSample], before: Sequence[StoredSample], start: datetime | None
) -> Iterator[tuple[StoredSample, float]]:
    """Yield each of ``samples`` with the hours for which its volume counts, if there are any.

    They are all samples of a meter and resource in the range, and those ``before`` its ``start``, oldest first.
    """
    existing = _until_deletion(samples, before)
    covering = None if start is None else _valid_measurement(before, start)
    covered = 0.0 if covering is None else _carried(covering)
    for position, row in enumerate(existing):
        later = existing[position + 1 :]
        measured_later = [each for each in later if is_measured(each)]
        interval = interval_of(row.metadata)
        valid = math.inf if not interval or _is_continued(row, later) else _carried(row)
        if is_measured(row):
            covering, covered = row, valid
            following = _following(row, measured_later) or (later[-1] if later else None)
        else:
            ends = [each for each in (_following(row, later), *measured_later[:1]) if each is not None]
            following = min(ends, key=lambda each: each.timestamp, default=None)
        if following is None:
            continue
        seconds = min(_seconds(row, following), valid)
        if covering is not None and covering is not row:
            seconds -= min(_seconds(row, following), max(0.0, covered - _seconds(covering, row)))
        yield row, max(0.0, seconds) / SECONDS_IN_HOUR


def is_measured(row: StoredSample) -> bool:
    """Return whether a poll has measured what is in use, instead of reading what a service has recorded."""
    return bool(interval_of(row.metadata)) and _run_of(row) != EXISTENCE


def _following(row: StoredSample, later: Sequence[StoredSample]) -> StoredSample | None:
    """Return the first of the ``later`` samples in the unit of ``row``, or else in any."""
    return next((each for each in later if each.unit == row.unit), later[0] if later else None)


def _seconds(earlier: StoredSample, later: StoredSample) -> float:
    return (later.timestamp - earlier.timestamp).total_seconds()


def _until_deletion(samples: Sequence[StoredSample], before: Sequence[StoredSample]) -> Sequence[StoredSample]:
    """Return ``samples`` up to the first of a deletion; none if that was before."""
    if any(_run_of(row) == DELETION for row in before):
        return ()
    for position, row in enumerate(samples):
        if _run_of(row) == DELETION:
            return samples[: position + 1]
    return samples


def _valid_measurement(before: Sequence[StoredSample], start: datetime) -> StoredSample | None:
    """Return the newest of the measured samples ``before`` the range that are valid until after its ``start``."""
    measured = (row for row in reversed(before) if is_measured(row))
    return next((row for row in measured if (start - row.timestamp).total_seconds() < _carried(row)), None)


def _carried(poll: StoredSample) -> float:
    """Return for how many seconds a polled sample counts at most, 0 for one without an interval."""
    return INTERVALS_CARRIED * interval_of(poll.metadata)


def _is_continued(row: StoredSample, later: Sequence[StoredSample]) -> bool:
    """Return whether the resource of ``row`` existed until one of the ``later`` samples."""
    run = _run_of(row)
    return run.kind is RunKind.DECLARED and any(_run_of(each) == run for each in later)


def _run_of(row: StoredSample) -> Run:
    return run_of(row.type, row.metadata)
