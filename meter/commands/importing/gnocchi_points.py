"""What Gnocchi keeps of a meter, points, as samples. A point tells a period by one aggregate: the samples themselves are gone."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.commands.importing.import_source import IMPORTED_FROM
from meter.commands.importing.import_source import Chosen
from meter.commands.importing.import_source import NotImported
from meter.commands.importing.import_source import SourceSample
from meter.commands.importing.import_source import derived_id
from meter.counter_runs import MAX_INTERVAL
from meter.message import BadMessage
from meter.message import parse_timestamp
from meter.sample import BadSample
from meter.sample import Sample
from meter.sample import SampleType
from meter.sample import utc_text
from meter.sample import with_reserved

SOURCE = "gnocchi"
"""The value of ``imported_from`` of samples made of points."""

MAX_GRANULARITY_SECONDS = 100 * 365 * 86_400.0
"""More than any archive policy has, and few enough for all calculations with times."""

AGGREGATIONS: Mapping[SampleType, Sequence[str]] = {
    "gauge": ("mean", "last", "max", "min"),
    "cumulative": ("last", "max", "mean"),
    "delta": ("sum",),
}
"""The aggregates that tell a meter of this type, the best first."""


class NoAggregation(Exception):
    """None of the aggregates that Gnocchi keeps of a metric tells the meter; the text says what would."""


@dataclass(frozen=True, slots=True)
class ResourceRevision:
    """Who owned a resource, and its metadata, from a time on."""

    start: datetime
    project_id: str | None
    user_id: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GnocchiMetric:
    """A metric as Gnocchi has it, and the type of the meter. ``record`` names it in reports, ``resource_id`` is Ceilometer's.

    ``aggregation`` is the one that its points have. ``revisions`` are in the order of their times.
    """

    record: str
    name: str
    type: SampleType
    unit: str
    resource_id: str
    aggregation: str
    revisions: Sequence[ResourceRevision]


def aggregation_for(kind: SampleType, available: Sequence[str]) -> str:
    """Return the aggregate from which a meter of type ``kind`` is imported; raises :class:`NoAggregation`."""
    for each in AGGREGATIONS[kind]:
        if each in available:
            return each
    raise NoAggregation(
        f"Gnocchi keeps {', '.join(sorted(available)) or 'nothing'} of it, but a {kind} meter can be told by"
        f" {' or '.join(AGGREGATIONS[kind])} only"
    )


def samples_of(
    metric: GnocchiMetric, points: Sequence[Any], granularity: float, chosen: Chosen
) -> tuple[list[SourceSample], list[NotImported]]:
    """Return the samples of those ``points``, ``[timestamp, granularity, value]``, that have this ``granularity`` in seconds and
    whose period is within the chosen time, and the points that cannot be imported.
    """
    samples: list[SourceSample] = []
    not_imported: list[NotImported] = []
    length = timedelta(seconds=granularity)
    made: dict[int, Mapping[str, Any]] = {}
    for point in points:
        record = f"{metric.record} {point!r}"[:200]
        try:
            [text, seconds, value] = point
            if seconds != granularity:
                continue
            start = parse_timestamp(text, "the timestamp")
            # What is in its period after the chosen time is not to be told apart.
            if not chosen.has_time(start) or start + length > chosen.until:
                continue
            revision = _revision_at(metric.revisions, start)
            metadata = made.get(id(revision))
            if metadata is None:
                metadata = made[id(revision)] = _metadata(revision, metric, granularity)
            sample = Sample(
                name=metric.name,
                type=metric.type,
                unit=metric.unit,
                volume=value,
                resource_id=metric.resource_id,
                user_id=revision.user_id,
                project_id=revision.project_id,
                timestamp=_time_of(start, length, metric),
                resource_metadata=metadata,
                message_id=derived_id(
                    SOURCE,
                    metric.resource_id,
                    metric.name,
                    metric.aggregation,
                    repr(float(granularity)),
                    utc_text(start),
                ),
            )
        except (BadSample, BadMessage, ValueError, TypeError, OverflowError) as error:
            not_imported.append(NotImported(record, metric.name, str(error), {"resource_id": metric.resource_id}))
        else:
            samples.append(SourceSample(record, sample))
    return samples, not_imported


def _time_of(start: datetime, length: timedelta, metric: GnocchiMetric) -> datetime:
    """Return the time at which a sample tells what the point tells.

    The value of a gauge, and the sum of a delta, hold from the start of the period on. A counter was read for ``last`` and ``max`` at the
    end of it, still within, so that the hour, day and month are right; its ``mean`` is that of the middle.
    """
    if metric.type != "cumulative":
        return start
    return start + (length / 2 if metric.aggregation == "mean" else length - timedelta(microseconds=1))


def _revision_at(revisions: Sequence[ResourceRevision], at: datetime) -> ResourceRevision:
    """Return the revision at a time. Gnocchi knows a resource only from its first measure on, which is before all times."""
    found = revisions[0]
    for each in revisions:
        if each.start > at:
            break
        found = each
    return found


def _metadata(revision: ResourceRevision, metric: GnocchiMetric, granularity: float) -> Mapping[str, Any]:
    seconds = int(granularity) if float(granularity).is_integer() else granularity
    metadata = {
        **revision.metadata,
        IMPORTED_FROM: SOURCE,
        "gnocchi_aggregation": metric.aggregation,
        "gnocchi_granularity": seconds,
    }
    return with_reserved(metadata, interval=seconds) if granularity <= MAX_INTERVAL else metadata
