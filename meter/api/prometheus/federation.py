"""The newest sample of each series at its own time, as another Prometheus scrapes it."""

from __future__ import annotations

from collections.abc import Sequence

from meter.api.prometheus.failures import as_promql_errors
from meter.api.prometheus.parsing import parse_selector
from meter.api.prometheus.questions import SeriesQuestions
from meter.api.prometheus.reading import SeriesReader
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import Point
from meter.api.prometheus.results import VectorSample
from meter.api.prometheus.source import PromqlSource
from meter.api.prometheus.times import EvaluationTimes


async def newest_samples(
    selectors: Sequence[str], time: float, source: PromqlSource
) -> tuple[list[VectorSample], tuple[str, ...]]:
    """Return the sample of each series that is current at ``time`` and matches one of ``selectors``, and warnings.

    Each has the time at which it was measured. Raises :class:`~meter.api.prometheus.results.PromqlError`.
    """
    nodes = [parse_selector(selector, source.limits.max_expression_bytes) for selector in selectors]
    questions = SeriesQuestions(source)
    reader = SeriesReader(questions)
    found: dict[Labels, Point] = {}
    with as_promql_errors():
        for node in nodes:
            newest = await reader.newest(node, EvaluationTimes(time, 1.0, 1))
            for value, measured_at in zip(newest.values.series, newest.times.series, strict=True):
                if value.values[0] is not None and measured_at.values[0] is not None:
                    found[value.labels] = Point(measured_at.values[0], value.values[0])
    return [VectorSample(labels, point) for labels, point in found.items()], tuple(questions.warnings)
