"""Points of Gnocchi as samples. A point is one aggregate of the samples in a period, which Gnocchi does not keep."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from typing import Any

from meter.commands.importing.import_source import IMPORTED_FROM
from meter.commands.importing.import_source import ImportSelection
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

COLUMNS = ("timestamp", "granularity", "value")
"""What a point consists of."""

MAX_GRANULARITY_SECONDS = 100 * 365 * 86_400.0
"""More than any archive policy has, and few enough for all calculations with times."""

AGGREGATIONS: Mapping[SampleType, Sequence[str]] = {
    "gauge": ("mean", "last", "max", "min"),
    "cumulative": ("last", "max", "mean"),
    "delta": ("sum",),
}
"""The aggregates from which a meter of this type can be imported, the best first."""


class NoAggregation(Exception):
    """The meter cannot be imported from the aggregates that Gnocchi keeps of its metric; the text says which are needed."""


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
        f"Gnocchi keeps {', '.join(sorted(available)) or 'nothing'} of it, but a {kind} meter is imported from"
        f" {' or '.join(AGGREGATIONS[kind])} only"
    )


def samples_of(
    metric: GnocchiMetric, points: Sequence[Any], granularity: float, selection: ImportSelection
) -> tuple[list[SourceSample], list[NotImported]]:
    """Return the samples of those ``points``, ``[timestamp, granularity, value]``, that have this ``granularity`` in seconds and
    whose period is within the time of ``selection``, and the points that cannot be imported.
    """
    samples: list[SourceSample] = []
    not_imported: list[NotImported] = []
    length = timedelta(seconds=granularity)
    made: dict[int, Mapping[str, Any]] = {}
    for point in points:
        record = f"{metric.record} {_shown(point)}"[:200]
        try:
            [text, seconds, value] = point
            if seconds != granularity:
                continue
            start = parse_timestamp(text, "the timestamp")
            # A period that ends later also has what was measured after the selected time.
            if not selection.has_time(start) or start + length > selection.until:
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


def _shown(point: Any) -> str:
    """Return the point with the names of its columns."""
    if not isinstance(point, list) or len(point) != len(COLUMNS):
        return repr(point)
    return ", ".join(f"{name} {value}" for name, value in zip(COLUMNS, point, strict=True))


def _time_of(start: datetime, length: timedelta, metric: GnocchiMetric) -> datetime:
    """Return the timestamp of the sample that stands for a point.

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
