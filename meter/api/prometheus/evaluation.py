"""Evaluation of an expression in PromQL, at one time or at every step of a range."""

from __future__ import annotations

import math

from meter.api.prometheus.evaluator import Evaluator
from meter.api.prometheus.failures import as_promql_errors
from meter.api.prometheus.grid import ScalarGrid
from meter.api.prometheus.grid import TextGrid
from meter.api.prometheus.grid import VectorGrid
from meter.api.prometheus.parsing import parse
from meter.api.prometheus.questions import SeriesQuestions
from meter.api.prometheus.questions import time_of
from meter.api.prometheus.raw_samples import raw_samples
from meter.api.prometheus.results import Matrix
from meter.api.prometheus.results import MatrixSeries
from meter.api.prometheus.results import Point
from meter.api.prometheus.results import PromqlAnswer
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.results import Result
from meter.api.prometheus.results import ScalarPoint
from meter.api.prometheus.results import StringPoint
from meter.api.prometheus.results import Vector
from meter.api.prometheus.results import VectorSample
from meter.api.prometheus.source import PromqlSource
from meter.api.prometheus.syntax import RangeNode
from meter.api.prometheus.syntax import TextNode
from meter.api.prometheus.times import EvaluationTimes


async def evaluate_instant(expression: str, time: float, source: PromqlSource) -> PromqlAnswer:
    """Return the value of ``expression`` at ``time``. Raises :class:`~meter.api.prometheus.results.PromqlError`."""
    _check_time(time)
    node = parse(expression, source.limits.max_expression_bytes)
    questions = SeriesQuestions(source)
    with as_promql_errors():
        if isinstance(node, RangeNode):
            result: Result = await raw_samples(node, time, questions)
        else:
            value = await Evaluator(questions, EvaluationTimes(time, 1.0, 1)).value(node)
            result = await _instant_result(value, time, source)
    return PromqlAnswer(result, tuple(questions.warnings))


async def evaluate_range(expression: str, start: float, end: float, step: float, source: PromqlSource) -> PromqlAnswer:
    """Return the values of ``expression``, a matrix, from ``start`` through ``end`` at every ``step`` seconds.

    Raises :class:`~meter.api.prometheus.results.PromqlError`.
    """
    _check_time(start)
    _check_time(end)
    if end < start:
        raise PromqlError("bad_data", "end timestamp must not be before start time")
    if not step > 0 or math.isinf(step):
        raise PromqlError("bad_data", "zero or negative query resolution step widths are not accepted")
    if (end - start) / step + 1 > source.limits.max_points_per_series:
        raise PromqlError(
            "bad_data",
            f"exceeded maximum resolution of {source.limits.max_points_per_series:,} points per timeseries."
            " Try decreasing the query resolution (?step=XX)",
        )
    count = math.floor((end - start) / step + 1e-9) + 1
    node = parse(expression, source.limits.max_expression_bytes)
    if isinstance(node, RangeNode | TextNode):
        kind = "range vector" if isinstance(node, RangeNode) else "string"
        raise PromqlError(
            "bad_data", f"invalid expression type {kind!r} for range query, must be Scalar or instant Vector"
        )
    questions = SeriesQuestions(source)
    times = EvaluationTimes(start, step, count)
    with as_promql_errors():
        value = await Evaluator(questions, times).value(node)
        result = await _range_result(value, times, source)
    return PromqlAnswer(result, tuple(questions.warnings))


def _check_time(time: float) -> None:
    if not math.isfinite(time):
        raise PromqlError("bad_data", "a time must be a finite number of seconds")
    time_of(time)


async def _instant_result(value: ScalarGrid | TextGrid | VectorGrid, time: float, source: PromqlSource) -> Result:
    match value:
        case TextGrid(text):
            return StringPoint(time, text)
        case ScalarGrid(values):
            return ScalarPoint(Point(time, values[0]))
    samples: list[VectorSample] = []
    async for batch in source.slices.batches(value.series, 1000):
        samples += [
            VectorSample(each.labels, Point(time, each.values[0])) for each in batch if each.values[0] is not None
        ]
    return Vector(samples)


async def _range_result(
    value: ScalarGrid | TextGrid | VectorGrid, times: EvaluationTimes, source: PromqlSource
) -> Result:
    at = times.all
    if isinstance(value, ScalarGrid):
        return Matrix([MatrixSeries((), list(map(Point, at, value.values)))])
    assert isinstance(value, VectorGrid)
    series: list[MatrixSeries] = []
    for each in value.series:
        if source.slices.over:
            await source.slices.pause()
        points = [Point(time, number) for time, number in zip(at, each.values, strict=True) if number is not None]
        if points:
            series.append(MatrixSeries(each.labels, points))
    series.sort(key=lambda each: each.labels)
    return Matrix(series)
