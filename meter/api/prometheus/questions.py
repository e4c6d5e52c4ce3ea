"""Questions to the store about the series of a selector: filters, groups, and the labels of what it answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import UTC
from datetime import datetime

from meter.api.prometheus.matchers import LabelMatcher
from meter.api.prometheus.matchers import all_match
from meter.api.prometheus.names import METER_LABEL
from meter.api.prometheus.names import SERIES_LABELS
from meter.api.prometheus.names import UNIT_LABEL
from meter.api.prometheus.names import NamedMeter
from meter.api.prometheus.names import named_meters
from meter.api.prometheus.results import METRIC_NAME
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.source import PromqlSource
from meter.query import Aggregate
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import IdField
from meter.query import In
from meter.query import SampleFilter
from meter.query import Statistics
from meter.query import StatisticsQuery

MAX_PUSHED_VALUES = 1000
"""Values of a label that a question to the store names; with more, series are selected from its answer."""

MAX_METERS = 10_000
"""Meters of one requester that metrics are made of."""

METADATA_PREFIX = "metadata."

CONVERTED_ROWS = 500
"""Rows whose labels are looked up between two looks at the clock."""


def time_of(seconds: float) -> datetime:
    """Return the time; :class:`PromqlError` if it is not in the years 1 to 9999."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise PromqlError("bad_data", "the query reaches beyond the years 1 to 9999") from error


@dataclass(frozen=True, slots=True)
class SeriesRows:
    """A series and its rows of statistics, oldest first. ``subject`` is the same for all series of one resource and meter."""

    labels: Labels
    subject: tuple[str, str, str | None]
    rows: list[Statistics]


@dataclass(slots=True)
class SeriesQuestions:
    """Asks the store about series, for one evaluation; ``warnings`` gathers what the client should know."""

    source: PromqlSource
    warnings: dict[str, None] = field(default_factory=dict)
    _meters: Sequence[NamedMeter] | None = None

    def groupings(self, needed: Set[str] | None = None) -> Mapping[str, str]:
        """Return by label what statistics are grouped by, for all labels other than the unit, or for those ``needed``."""
        keys = {label: METADATA_PREFIX + key for label, key in self.source.metadata_labels.items()}
        every = {**SERIES_LABELS, **keys}
        return {label: grouping for label, grouping in every.items() if needed is None or label in needed}

    async def all_meters(self) -> Sequence[NamedMeter]:
        """Return all meters that the requester sees."""
        if self._meters is None:
            found = await self.source.store.meters(SampleFilter(), MAX_METERS + 1, True)
            if len(found) > MAX_METERS:
                raise PromqlError("execution", f"there are more than {MAX_METERS} meters")
            self._meters = named_meters(found)
        return self._meters

    async def meters(self, matchers: Sequence[LabelMatcher]) -> list[NamedMeter]:
        """Return the meters whose series can match; a warning names several that have one metric."""
        found = []
        for meter in await self.all_meters():
            fixed = {METRIC_NAME: meter.metric, METER_LABEL: meter.name if meter.ambiguous else ""}
            if all(matcher.matches(fixed[matcher.label]) for matcher in matchers if matcher.label in fixed):
                found.append(meter)
        if len(found) > self.source.limits.max_metrics:
            raise PromqlError(
                "execution",
                f"the selector matches {len(found)} metrics; the maximum is {self.source.limits.max_metrics}:"
                " name a metric",
            )
        for metric in dict.fromkeys(meter.metric for meter in found if meter.ambiguous):
            names = [meter.name for meter in found if meter.metric == metric]
            if len(names) > 1:
                self.warnings[
                    f"{metric} stands for the meters {', '.join(names[:10])}: select one by the label {METER_LABEL}"
                ] = None
        return found

    async def rows(
        self,
        meter: NamedMeter,
        matchers: Sequence[LabelMatcher],
        start: float | None,
        end: float | None,
        aggregates: Sequence[Aggregate],
        *,
        period: int | None = None,
        whole_resources: bool = False,
        needed: Set[str] | None = None,
    ) -> list[SeriesRows]:
        """Return all series of ``meter`` that match, with their rows of statistics from ``start`` up to ``end``.

        Series that differ only in labels that are not ``needed`` can be one. With ``whole_resources`` these are all series
        of a resource of which one matches, and perhaps others: the caller selects.
        """
        filter = await self.filter(
            meter,
            matchers,
            start,
            end,
            counters=any(each.function == "increase" for each in aggregates),
            whole_resources=whole_resources,
        )
        if period is None or (needed is not None and "resource" not in needed):
            found = await self._all_rows(meter, filter, aggregates, period, self.groupings(needed))
        else:
            found = await self._rows_of_resources(meter, filter, aggregates, period)
        selected = [each for each in found if whole_resources or all_match(matchers, each.labels)]
        if len(selected) > self.source.limits.max_series:
            raise PromqlError("execution", f"a selector matches more than {self.source.limits.max_series} series")
        return selected

    async def _rows_of_resources(
        self, meter: NamedMeter, filter: SampleFilter, aggregates: Sequence[Aggregate], period: int
    ) -> list[SeriesRows]:
        """Return :meth:`_all_rows`, grouped by the resource alone where its labels are the same at all times.

        Its labels are asked for first, which is one row for each series. To group each window by metadata costs as much as
        all else.
        """
        every = self.groupings()
        described = await self._all_rows(meter, filter, (Aggregate("count"),), None, every)
        variants: defaultdict[tuple[str, str | None], list[SeriesRows]] = defaultdict(list)
        for each in described:
            variants[each.subject[1:]].append(each)
        varying = [resource for (_, resource), several in variants.items() if len(several) > 1 and resource is not None]
        if len(varying) > MAX_PUSHED_VALUES or 2 * len(varying) > len(variants):
            return await self._all_rows(meter, filter, aggregates, period, every)
        resource_only = {"resource": every["resource"]}
        found = await self._all_rows(meter, filter, aggregates, period, resource_only)
        if any(each.subject[1:] not in variants for each in found):  # samples have come in between
            return await self._all_rows(meter, filter, aggregates, period, every)
        excluded = set(varying)
        result = [
            replace(variants[each.subject[1:]][0], rows=each.rows) for each in found if each.subject[2] not in excluded
        ]
        if varying:
            parts = [] if filter.expression is None else [filter.expression]
            of_varying = replace(filter, expression=And((*parts, In("resource_id", tuple(varying)))))
            result += await self._all_rows(meter, of_varying, aggregates, period, every)
        return result

    async def _all_rows(
        self,
        meter: NamedMeter,
        filter: SampleFilter,
        aggregates: Sequence[Aggregate],
        period: int | None,
        groupings: Mapping[str, str],
    ) -> list[SeriesRows]:
        """Return the rows of statistics by series, for which one question is asked."""
        limit = self.source.limits.max_rows
        found = await self.source.store.statistics(
            StatisticsQuery(
                filter=filter,
                period=period,
                groupby=tuple(groupings.values()),
                aggregates=tuple(aggregates),
                limit=limit + 1,
            )
        )
        if len(found) > limit:
            raise PromqlError(
                "execution",
                f"{meter.metric} needs more than {limit} rows of statistics: select fewer series, a shorter time or"
                " a longer step",
            )
        of_key: dict[tuple[str | None, ...], list[Statistics]] = {}
        async for batch in self.source.slices.batches(found, CONVERTED_ROWS):
            for row in batch:
                key = (row.unit, *row.group.values())
                rows = of_key.get(key)
                if rows is None:
                    rows = of_key[key] = []
                rows.append(row)
        of_labels: dict[Labels, SeriesRows] = {}
        async for keys in self.source.slices.batches(list(of_key.items()), CONVERTED_ROWS):
            for (unit, *group), rows in keys:
                labels = self.labels(meter, unit or "", dict(zip(groupings, group, strict=True)))
                other = of_labels.get(labels)
                if other is not None:  # a value that is missing, and one that is empty
                    rows = sorted(other.rows + rows, key=_by_time)
                subject = (meter.name, unit or "", rows[0].group.get("resource_id"))
                of_labels[labels] = SeriesRows(labels, subject, rows)
        return list(of_labels.values())

    def labels(self, meter: NamedMeter, unit: str, given: Mapping[str, str | None]) -> Labels:
        """Return the labels of a series of ``meter``; ``given`` are those of :meth:`groupings`."""
        labels = {METRIC_NAME: meter.metric, UNIT_LABEL: unit}
        if meter.ambiguous:
            labels[METER_LABEL] = meter.name
        labels |= {name: value or "" for name, value in given.items()}
        return tuple(sorted((name, value) for name, value in labels.items() if value))

    async def filter(
        self,
        meter: NamedMeter,
        matchers: Sequence[LabelMatcher],
        start: float | None,
        end: float | None,
        *,
        counters: bool = False,
        whole_resources: bool = False,
    ) -> SampleFilter:
        """Return the filter of samples of ``meter`` that can match, from ``start`` up to ``end``.

        With ``counters`` it selects cumulative samples only; :meth:`rows` says what ``whole_resources`` is.
        """
        conditions: list[Expression] = []
        equals: dict[IdField, str | None] = {"meter": meter.name}
        if counters:
            conditions += self._only_counters(meter)
        filter = SampleFilter(
            equals=equals,
            start=None if start is None else time_of(start),
            end=None if end is None else time_of(end),
        )
        pushed = self._pushed(matchers)
        resources = pushed.pop("resource_id", None)
        if pushed and whole_resources:
            # Which series is the newest of a resource must not depend on which of them are selected.
            selected = replace(filter, expression=_and(_in_each(pushed)))
            resources = await self._resources(selected, resources)
            pushed = {}
        if resources is not None and len(resources) == 1:
            equals["resource_id"] = resources[0]
        elif resources is not None:
            pushed["resource_id"] = resources
        return replace(filter, equals=equals, expression=_and([*conditions, *_in_each(pushed)]))

    def _pushed(self, matchers: Sequence[LabelMatcher]) -> dict[str, tuple[str, ...]]:
        """Return the fields of which the matchers allow a few values only, with these values."""
        pushed: dict[str, tuple[str, ...]] = {}
        for matcher in matchers:
            values = matcher.only_values
            if matcher.label not in SERIES_LABELS or values is None or len(values) > MAX_PUSHED_VALUES:
                continue
            name = SERIES_LABELS[matcher.label]
            if name != "project_id" or self.source.visible_project is None:  # the store refuses other projects
                pushed[name] = tuple(value for value in values if name not in pushed or value in pushed[name])
        return pushed

    async def _resources(self, filter: SampleFilter, among: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Return the resources with samples that match, ``among`` some of them; ``None`` if there are too many to name."""
        limit = MAX_PUSHED_VALUES + 1
        query = StatisticsQuery(filter=filter, groupby=("resource_id",), aggregates=(Aggregate("count"),), limit=limit)
        rows = await self.source.store.statistics(query)
        if len(rows) == limit:
            return among
        found = dict.fromkeys(name for row in rows if (name := row.group["resource_id"]) is not None)
        return tuple(name for name in found if among is None or name in among)

    def _only_counters(self, meter: NamedMeter) -> list[Expression]:
        """Return the condition that excludes samples that are no counter; :class:`PromqlError` if all of them are none."""
        if "cumulative" not in meter.types:
            use = "sum_over_time" if meter.types == ("delta",) else "delta, or max_over_time and min_over_time"
            raise PromqlError(
                "execution",
                f"rate and increase require a cumulative meter, but {meter.metric} is a {meter.types[0]} meter;"
                f" use {use}",
            )
        if len(meter.types) == 1:
            return []
        self.warnings[
            f"{meter.metric} has samples of the types {', '.join(meter.types)}: rate and increase count the cumulative ones"
        ] = None
        return [Comparison("type", "=", "cumulative")]


def _by_time(row: Statistics) -> tuple[datetime, datetime]:
    return row.period_start, row.last


def _in_each(pushed: dict[str, tuple[str, ...]]) -> list[Expression]:
    return [In(name, values) for name, values in pushed.items()]


def _and(parts: list[Expression]) -> Expression | None:
    return And(tuple(parts)) if parts else None
