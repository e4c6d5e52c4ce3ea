"""The newest sample of each series, at its own time."""

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
    """Return the newest sample, at ``time``, of each series that matches one of ``selectors``, and warnings.

    Samples are sorted by their labels. Raises :class:`~meter.api.prometheus.results.PromqlError`.
    """
    nodes = [parse_selector(selector, source.limits.max_expression_bytes) for selector in selectors]
    questions = SeriesQuestions(source)
    reader = SeriesReader(questions)
    found: dict[Labels, Point] = {}
    with as_promql_errors():
        for node in nodes:
            vector = await reader.newest(node, EvaluationTimes(time, 1.0, 1))
            for each, at in zip(vector.values.series, vector.times.series, strict=True):
                [value], [sample_time] = each.values, at.values
                if value is not None and sample_time is not None:
                    found[each.labels] = Point(sample_time, value)
    return [VectorSample(labels, found[labels]) for labels in sorted(found)], tuple(questions.warnings)
