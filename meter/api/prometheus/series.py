"""The series, labels and metrics that the store has, for clients that look for them."""

from __future__ import annotations

from collections.abc import Sequence

from meter.api.prometheus.failures import as_promql_errors
from meter.api.prometheus.names import METER_LABEL
from meter.api.prometheus.names import SERIES_LABELS
from meter.api.prometheus.names import UNIT_LABEL
from meter.api.prometheus.parsing import parse_selector
from meter.api.prometheus.questions import SeriesQuestions
from meter.api.prometheus.questions import time_of
from meter.api.prometheus.results import METRIC_NAME
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import MetricMetadata
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.source import PromqlSource
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery

COUNT = (Aggregate("count"),)


async def matching_series(
    selectors: Sequence[str], start: float | None, end: float | None, source: PromqlSource, limit: int | None = None
) -> list[Labels]:
    """Return the label sets of all series that match one of ``selectors``, sorted, and have samples in [start, end).

    A selector is an instant vector selector (``ceilometer_cpu{project="p"}``). At most ``limit`` are returned. Raises
    :class:`~meter.api.prometheus.results.PromqlError`.
    """
    questions = SeriesQuestions(source)
    found: dict[Labels, None] = {}
    nodes = [parse_selector(selector, source.limits.max_expression_bytes) for selector in selectors]
    with as_promql_errors():
        for node in nodes:
            for meter in await questions.meters(node.matchers):
                for each in await questions.rows(meter, node.matchers, start, end, COUNT):
                    found[each.labels] = None
                if len(found) > source.limits.max_points:
                    raise PromqlError("execution", f"there are more than {source.limits.max_points} series")
    return sorted(found)[:limit]


async def label_names(
    selectors: Sequence[str], start: float | None, end: float | None, source: PromqlSource
) -> list[str]:
    """Return the names of the labels of these series, sorted; without ``selectors``, of the labels that series can have."""
    if selectors:
        found = await matching_series(selectors, start, end, source)
        return sorted({name for labels in found for name, _ in labels})
    with as_promql_errors():
        meters = await SeriesQuestions(source).all_meters()
    names = {METRIC_NAME, UNIT_LABEL, *SERIES_LABELS, *source.metadata_labels} if meters else set()
    return sorted(names | ({METER_LABEL} if any(meter.ambiguous for meter in meters) else set()))


async def label_values(
    name: str, selectors: Sequence[str], start: float | None, end: float | None, source: PromqlSource
) -> list[str]:
    """Return the values of the label ``name`` of these series, sorted; of all series without ``selectors``."""
    if selectors:
        found = await matching_series(selectors, start, end, source)
        return sorted({value for labels in found if (value := dict(labels).get(name))})
    with as_promql_errors():
        meters = await SeriesQuestions(source).all_meters()
        if name == METRIC_NAME:
            return sorted({meter.metric for meter in meters})
        if name == METER_LABEL:
            return sorted(meter.name for meter in meters if meter.ambiguous)
        if name == UNIT_LABEL:
            return sorted({unit for meter in meters for unit in meter.units if unit})
        return await _grouped_values(name, start, end, source)


async def _grouped_values(name: str, start: float | None, end: float | None, source: PromqlSource) -> list[str]:
    """Return the values that samples of any meter have for the label ``name``."""
    grouping = SeriesQuestions(source).groupings().get(name)
    if grouping is None:
        return []
    limit = source.limits.max_rows
    query = StatisticsQuery(
        filter=SampleFilter(start=None if start is None else time_of(start), end=None if end is None else time_of(end)),
        groupby=(grouping,),
        aggregates=COUNT,
        limit=limit + 1,
    )
    rows = await source.store.statistics(query)
    if len(rows) > limit:
        raise PromqlError("execution", f"the label {name} has more than {limit} values")
    return sorted({value for row in rows if (value := row.group[grouping])})


async def metric_metadata(source: PromqlSource, metric: str | None = None) -> list[MetricMetadata]:
    """Return the type, unit and help of each metric, or of ``metric``, sorted; several entries if it has several units."""
    with as_promql_errors():
        meters = await SeriesQuestions(source).all_meters()
    return sorted(
        (
            MetricMetadata(
                meter.metric,
                "counter" if meter.types == ("cumulative",) else "gauge",
                unit,
                f"The meter {meter.name} ({', '.join(meter.types)}).",
            )
            for meter in meters
            for unit in meter.units
            if metric is None or meter.metric == metric
        ),
        key=lambda each: (each.metric, each.unit, each.help),
    )
