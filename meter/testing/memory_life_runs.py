"""Runs of samples that lives are computed from, as PostgreSQL makes them from samples: the readable reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from meter.completeness.lives.life_store import SampleRun
from meter.completeness.lives.life_store import is_after_silence
from meter.counter_runs import interval_of
from meter.counter_runs import run_of
from meter.query import StoredSample


def runs_of_samples(samples: Iterable[StoredSample]) -> list[SampleRun]:
    """Return consecutive samples of a series with the same metadata and volume as one run."""
    positions: dict[object, int] = {}
    found: list[SampleRun] = []
    for row in sorted(samples, key=lambda row: (row.timestamp, row.message_id)):
        run = SampleRun(
            meter=row.name,
            resource_id=row.resource_id,
            user_id=row.user_id,
            project_id=row.project_id,
            source=row.source,
            interval=interval_of(row.metadata),
            first=row.timestamp,
            last=row.timestamp,
            volume=row.volume,
            metadata=row.metadata,
        )
        series = (row.name, row.unit, row.resource_id, row.user_id, row.project_id, row.source, row.type)
        key = *series, run.interval, run_of(row.type, row.metadata)
        before = found[positions[key]] if key in positions else None
        if (
            before is not None
            and replace(before, first=run.first, last=run.last) == run
            and not is_after_silence(before.last, run.first, run.interval)
        ):
            found[positions[key]] = replace(before, last=run.last)
        else:
            positions[key] = len(found)
            found.append(run)
    return found
