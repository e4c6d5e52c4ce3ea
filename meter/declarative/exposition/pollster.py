"""The pollster of one URL of a definition: each URL has its own budget, circuit breaker and entry in the completeness ledger."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import NamedTuple
from urllib.parse import urlsplit

from msgspec.structs import replace
from zope.interface import implementer

from meter.counter_runs import Run
from meter.counter_runs import run_of
from meter.declarative.exposition.definition import INSTANCE
from meter.declarative.exposition.definition import ExpositionDefinition
from meter.declarative.exposition.definition import LabelText
from meter.declarative.exposition.definition import MetricDefinition
from meter.declarative.exposition.definition import MissingLabel
from meter.declarative.exposition.exposition import ACCEPT
from meter.declarative.exposition.exposition import ExposedSeries
from meter.declarative.exposition.exposition import Exposition
from meter.declarative.exposition.exposition import Labels
from meter.declarative.exposition.exposition import read_exposition
from meter.declarative.request_fields import enabled_with_http_client
from meter.http import HttpRequest
from meter.http import IHttpClient
from meter.interfaces import Disabled
from meter.interfaces import Enabled
from meter.interfaces import ICentralPollster
from meter.interfaces import ICycle
from meter.interfaces import IPluginContext
from meter.interfaces import Unavailable
from meter.pollsters.openstack.pollster import SkippedItems
from meter.pollsters.openstack.table import BadItem
from meter.sample import BadSample
from meter.sample import MeterDefinition
from meter.sample import Sample
from meter.sample import run_text
from meter.sample import with_reserved

MAX_EXACT = 2**53
"""Up to this magnitude a float that is a whole number is that number."""


def exposition_pollsters(definition: ExpositionDefinition) -> list[ExpositionPollster]:
    """Return a pollster for each URL of ``definition``."""
    return [ExpositionPollster(definition, url) for url in definition.urls]


class _Read(NamedTuple):
    """A series of a metric, with what its labels say, and since when it counts: ``""`` if that is unknown."""

    series: ExposedSeries
    project_id: str | None
    user_id: str | None
    metadata: Mapping[str, str]
    started: str


@implementer(ICentralPollster)
class ExpositionPollster:
    """Requests one ``url`` of ``definition``, and returns samples of the series of its metrics."""

    options = None

    def __init__(self, definition: ExpositionDefinition, url: str) -> None:
        self._definition = definition
        self._url = url
        self._instance = urlsplit(url).netloc.rpartition("@")[2]

    @property
    def name(self) -> str:
        """The name of the definition, and of several URLs the host and port of this one: ``kepler:hv1:28282``."""
        name = self._definition.name
        return name if len(self._definition.urls) == 1 else f"{name}:{self._instance}"

    @property
    def meters(self) -> tuple[MeterDefinition, ...]:
        """The meters of the definition."""
        return tuple(dict.fromkeys(each.definition for each in self._definition.meters))

    def configured(self, options: None) -> ExpositionPollster:
        """Return the pollster: its options are its definition."""
        return self

    async def enabled(self, context: IPluginContext) -> Enabled | Disabled:
        """Return whether the daemon has an HTTP client."""
        return enabled_with_http_client(context)

    async def poll(self, cycle: ICycle) -> Iterable[Sample]:
        """Return the samples of the series; one that cannot be metered is skipped."""
        try:
            headers = {"Accept": ACCEPT, **self._definition.all_headers()}
        except OSError as error:
            raise Unavailable(f"{self.name}: its secret cannot be read: {error}") from None
        request = HttpRequest(method="GET", url=self._url, headers=headers)
        response = (await cycle.provider(IHttpClient).send(self.name, request)).checked()
        exposition = await read_exposition(response, {each.metric for each in self._definition.meters}, cycle.clock)
        last: _LastPoll = _LastPoll() if cycle.trial else cycle.daemon_cache(("exposition", self.name), _LastPoll)
        return self._samples(exposition, response.received_at, last, SkippedItems(cycle, self.name))

    def _samples(
        self, exposition: Exposition, received_at: datetime, last: _LastPoll, skipped: SkippedItems
    ) -> Iterator[Sample]:
        of_meters: dict[tuple[str, str], str] = {}
        for metric in self._definition.meters:
            declared = exposition.type_of(metric.metric)
            if metric.type is None and declared is not None and declared != metric.sample_type:
                text = f"the exposition says that it is {declared}, not {metric.sample_type}: state its type"
                skipped.add(metric.metric, BadItem("other-type", text))
                continue
            for resource, group in self._groups(metric, exposition, skipped).items():
                other = of_meters.setdefault((metric.meter, resource), metric.metric)
                try:
                    if other != metric.metric:
                        raise BadItem("several-series", f"{other} has made a sample of {metric.meter} already")
                    key = (metric.meter, resource)
                    since = last.unreset_since(key, group, received_at.isoformat()) if len(group) > 1 else ""
                    sample = self._sample(metric, resource, group, received_at, since)
                    # The run that the last poll found may have begun after it, too, by the clock of an exporter that is ahead.
                    is_counter = sample.type == "cumulative"
                    if is_counter and last.begins_run(key, run_of(sample.type, sample.resource_metadata)):
                        began_at = _began_at(group, last.polled_at)
                        if began_at is not None and began_at < sample.timestamp:
                            yield replace(sample, volume=0, timestamp=began_at)
                    yield sample
                except (BadItem, BadSample) as error:
                    skipped.add(f"{metric.metric} of {resource}"[:120], error, resources=(resource,))
        last.end_poll(of_meters, received_at)
        skipped.report()

    def _groups(
        self, metric: MetricDefinition, exposition: Exposition, skipped: SkippedItems
    ) -> Mapping[str, list[_Read]]:
        """Return the series of ``metric`` by resource."""
        resource, project, user = (
            LabelText(text) if text else None for text in (metric.resource, metric.project, metric.user)
        )
        assert resource is not None
        groups: dict[str, list[_Read]] = {}
        for series in exposition.series.get(metric.metric, ()):
            labels = {INSTANCE: self._instance, **series.labels}
            if not metric.selects(labels):
                continue
            try:
                id = resource.of(labels)
            except MissingLabel as error:
                skipped.add(f"{metric.metric}{series.labels}"[:120], BadItem("no-id", str(error)))
                continue
            read = _Read(
                series,
                _owner(project, labels),
                _owner(user, labels),
                {name: labels[label] for name, label in metric.metadata.items() if label in labels},
                exposition.process_start
                if metric.reset_with_exporter
                else exposition.created_at(metric.metric, series.labels),
            )
            groups.setdefault(id, []).append(read)
        return groups

    def _sample(
        self, metric: MetricDefinition, resource: str, group: list[_Read], received_at: datetime, since: str
    ) -> Sample:
        if len(group) > 1 and not metric.sum:
            raise BadItem(
                "several-series",
                f"{len(group)} series are of this resource: name more labels in resource, or set sum = true",
            )
        first = group[0]
        if any((each.project_id, each.user_id) != (first.project_id, first.user_id) for each in group):
            raise BadItem("several-owners", "its series have different projects or users")
        metadata: dict[str, Any] = {
            name: value
            for name, value in first.metadata.items()
            if all(each.metadata.get(name) == value for each in group)
        }
        if run := self._run(metric, group, since):
            metadata = with_reserved(metadata, run=run)
        times = (
            [each.series.timestamp for each in group if each.series.timestamp]
            if self._definition.use_timestamps
            else []
        )
        return Sample(
            name=metric.meter,
            type=metric.sample_type,
            unit=metric.unit,
            volume=_volume(sum(each.series.value for each in group) * metric.factor),
            resource_id=resource,
            project_id=first.project_id,
            user_id=first.user_id,
            timestamp=max(times) if times else received_at,
            resource_metadata=metadata,
        )

    def _run(self, metric: MetricDefinition, group: list[_Read], since: str) -> str:
        """Return the run of a counter, ``""`` if it is not known: then a drop is a reset, as in Prometheus.

        It names the exporter, since when the series count, and which of them are added: a series that joins a sum makes it grow by
        what was counted before. ``since`` is when one of these was reset.
        """
        if metric.sample_type != "cumulative":
            return ""
        starts = sorted({each.started for each in group})
        if len(group) == 1:
            return run_text(self._instance, *starts) if starts != [""] else ""
        added = sorted(repr(sorted(each.series.labels.items())) for each in group)
        digest = hashlib.sha256("\n".join(added).encode()).hexdigest()[:16]
        return run_text(self._instance, *filter(None, [*starts, since]), digest)


class _LastPoll:
    """What the last poll found: the run of each counter, and the values of the counters in each sum.

    One counter of a sum may be reset although the sum grows. All is forgotten with the process; what was reset meanwhile is not known,
    so each sum then begins a run that never was before.
    """

    def __init__(self) -> None:
        self.polled_at: datetime | None = None
        """Its time, ``None`` if this process has not polled before."""
        self._runs: dict[tuple[str, str], Run] = {}
        self._runs_now: dict[tuple[str, str], Run] = {}
        self._values: dict[tuple[str, str], dict[Labels, float]] = {}
        self._reset_at: dict[tuple[str, str], str] = {}

    def unreset_since(self, key: tuple[str, str], group: list[_Read], now: str) -> str:
        """Take the counters of the sum ``key`` of a meter and resource; return since when none of them was reset, as far as is known."""
        values = {frozenset(each.series.labels.items()): each.series.value for each in group}
        last = self._values.get(key, {})
        if not last or any(value < last.get(labels, value) for labels, value in values.items()):
            self._reset_at[key] = now
        self._values[key] = values
        return self._reset_at[key]

    def begins_run(self, key: tuple[str, str], run: Run) -> bool:
        """Take the run of a meter and resource; return whether it is another one than the last poll found."""
        self._runs_now[key] = run
        return self._runs.get(key) != run

    def end_poll(self, keys: Collection[tuple[str, str]], polled_at: datetime) -> None:
        """Make the poll at this time, which found the meters and resources ``keys``, the last one: forget all others."""
        self.polled_at = polled_at
        self._runs, self._runs_now = self._runs_now, {}
        for key in [key for key in self._values if key not in keys]:
            del self._values[key]
            self._reset_at.pop(key, None)


def _began_at(group: Sequence[_Read], polled_at: datetime | None) -> datetime | None:
    """Return when the first of these counters began at 0, if all of them began after the last poll; else ``None``."""
    if polled_at is None:
        return None
    try:
        began = [datetime.fromtimestamp(float(each.started), UTC) for each in group]
    except (ValueError, OverflowError, OSError):  # not stated, or no time
        return None
    return min(began) if min(began) > polled_at else None


def _owner(text: LabelText | None, labels: Mapping[str, str]) -> str | None:
    """Return the project or user; a series without the label has none."""
    try:
        return text.of(labels) if text else None
    except MissingLabel:
        return None


def _volume(value: float) -> int | float:
    if not math.isfinite(value):
        raise BadItem("bad-volume", f"the value is {value}, not a number")
    return int(value) if value.is_integer() and abs(value) <= MAX_EXACT else value
