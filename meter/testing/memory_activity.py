"""What happens now, from samples in memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime

from meter.completeness.activity import Arrivals
from meter.completeness.activity import RecordingLag
from meter.completeness.activity import ResourceCount
from meter.completeness.activity import ResourceCounts
from meter.completeness.lives.kinds import ResourceKind
from meter.query import StoredSample


def arrivals_of(rows: Iterable[StoredSample], since: datetime, seconds: int, limit: int) -> Arrivals:
    """Return the newest samples by the time in which they were stored, and how long that took."""
    recent = sorted((row for row in rows if row.recorded_at >= since), key=lambda row: row.recorded_at)[-limit:]
    counts: Counter[datetime] = Counter()
    lags: dict[str | None, list[float]] = {}
    for row in recent:
        counts[datetime.fromtimestamp(row.recorded_at.timestamp() // seconds * seconds, UTC)] += 1
        lags.setdefault(row.source, []).append((row.recorded_at - row.timestamp).total_seconds())
    return Arrivals(
        since=recent[0].recorded_at if len(recent) == limit else since,
        counts=tuple(sorted(counts.items())),
        lags=tuple(_lag(source, sorted(of_source)) for source, of_source in sorted(lags.items(), key=_by_source)),
    )


def _by_source(item: tuple[str | None, list[float]]) -> tuple[bool, str]:
    return item[0] is None, item[0] or ""


def _lag(source: str | None, lags: list[float]) -> RecordingLag:
    def percentile(fraction: float) -> float:
        return lags[max(0, math.ceil(fraction * len(lags)) - 1)]

    return RecordingLag(
        source=source, samples=len(lags), median=percentile(0.5), p95=percentile(0.95), longest=lags[-1]
    )


def resource_counts_of(rows: Iterable[StoredSample], kinds: Sequence[ResourceKind], since: datetime) -> ResourceCounts:
    """Return the existing resources of ``kinds`` among ``rows``, which are oldest first."""
    by_meter = {meter: kind for kind in kinds for meter in kind.meters}
    newest: dict[tuple[str, str], StoredSample] = {}
    for row in rows:
        if row.timestamp >= since and row.name in by_meter:
            newest[by_meter[row.name].name, row.resource_id] = row
    counts: Counter[tuple[str, str | None]] = Counter()
    projects = set()
    for row in newest.values():
        kind = by_meter[row.name]
        stated = row.metadata.get(kind.state[0])
        state = stated if isinstance(stated, str) else None
        if state not in kind.ended_states and not (row.name in kind.counting and row.volume == 0):
            counts[kind.name, state] += 1
            projects.add(row.project_id)
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0][0], item[0][1] is None, item[0][1] or ""))
    return ResourceCounts(
        counts=tuple(ResourceCount(kind=kind, state=state, resources=count) for (kind, state), count in order),
        projects=len(projects - {None}),
    )
