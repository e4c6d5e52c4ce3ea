"""Evaluates a syntax tree at all times at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set

from meter.api.prometheus.aggregation import aggregated
from meter.api.prometheus.binary import combined
from meter.api.prometheus.functions import SIMPLE
from meter.api.prometheus.functions import absent
from meter.api.prometheus.functions import absent_labels
from meter.api.prometheus.functions import clamped
from meter.api.prometheus.functions import label_replaced
from meter.api.prometheus.functions import mapped
from meter.api.prometheus.functions import mapped_with
from meter.api.prometheus.functions import ordered
from meter.api.prometheus.functions import rounded
from meter.api.prometheus.functions import scalar_of
from meter.api.prometheus.grid import GridSeries
from meter.api.prometheus.grid import ScalarGrid
from meter.api.prometheus.grid import TextGrid
from meter.api.prometheus.grid import VectorGrid
from meter.api.prometheus.grid import joined
from meter.api.prometheus.grid import without_name
from meter.api.prometheus.parsing import RANGE_FUNCTIONS
from meter.api.prometheus.questions import SeriesQuestions
from meter.api.prometheus.reading import SeriesReader
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.syntax import AggregationNode
from meter.api.prometheus.syntax import BinaryNode
from meter.api.prometheus.syntax import CallNode
from meter.api.prometheus.syntax import NegationNode
from meter.api.prometheus.syntax import Node
from meter.api.prometheus.syntax import NumberNode
from meter.api.prometheus.syntax import RangeNode
from meter.api.prometheus.syntax import SelectorNode
from meter.api.prometheus.syntax import TextNode
from meter.api.prometheus.times import EvaluationTimes
from meter.api.prometheus.windows import WINDOW_FUNCTIONS
from meter.api.prometheus.windows import quantile_aggregate
from meter.api.prometheus.windows import quantile_function
from meter.query import Aggregate

ADDED_UP: Mapping[str, Set[str]] = {
    "sum": frozenset({"increase", "rate", "sum_over_time", "count_over_time"}),
    "min": frozenset({"min_over_time"}),
    "max": frozenset({"max_over_time"}),
}
"""Functions of windows that the store can compute for several series together, by the aggregation that follows."""

MAX_HELD = 4
"""Points that an expression may hold at one time, in as many vectors as it has, as a multiple of those of one selector."""

Grid = ScalarGrid | TextGrid | VectorGrid


class Evaluator:
    """Evaluates expressions at ``times``."""

    def __init__(self, questions: SeriesQuestions, times: EvaluationTimes) -> None:
        self._times = times
        self._slices = questions.source.slices
        self._reader = SeriesReader(questions)
        self._max_points = questions.source.limits.max_points
        self._max_held = MAX_HELD * self._max_points
        self._held = 0

    async def value(self, node: Node) -> Grid:
        """Return the value of ``node``. Raises :class:`PromqlError`."""
        value = await self._value(node)
        if self._points(value) > self._max_points:  # of a union: selectors are refused before they are read
            raise PromqlError(
                "execution",
                f"a vector of the expression has more than {self._max_points} points: select fewer series, a shorter time or"
                " a longer step, or join fewer vectors",
            )
        if self._held + self._points(value) > self._max_held:
            raise PromqlError(
                "execution",
                f"the expression holds more than {self._max_held} points at one time: select fewer series, a shorter time or"
                " a longer step, or join fewer vectors",
            )
        return value

    def _points(self, value: Grid) -> int:
        """Return how many points ``value`` has: the memory that it takes grows with them."""
        return len(value.series) * self._times.count if isinstance(value, VectorGrid) else 0

    async def _value(self, node: Node) -> Grid:
        match node:
            case NumberNode(value):
                return self._constant(value)
            case TextNode(text):
                return TextGrid(text)
            case SelectorNode():
                return (await self._reader.newest(node, self._times)).values
            case NegationNode(operand):
                return await self._negated(await self.value(operand))
            case AggregationNode():
                return await self._aggregated(node)
            case BinaryNode():
                left = await self.value(node.left)
                self._held += self._points(left)  # it stays while the right side is evaluated
                right = await self.value(node.right)
                self._held -= self._points(left)
                if isinstance(left, TextGrid) or isinstance(right, TextGrid):
                    raise PromqlError("bad_data", f"the operator {node.operator} is not defined for texts")
                return await combined(node, left, right, self._slices)
            case CallNode():
                if node.function in RANGE_FUNCTIONS:
                    return await self._over_time(node)
                return await self._called(node)
        raise PromqlError("bad_data", "a range vector can only be the argument of a function of range vectors")

    def _constant(self, value: float) -> ScalarGrid:
        return ScalarGrid([value] * self._times.count)

    async def _vector(self, node: Node) -> VectorGrid:
        value = await self.value(node)
        if not isinstance(value, VectorGrid):
            raise PromqlError("bad_data", "an instant vector is expected")
        return value

    async def _scalar(self, node: Node) -> ScalarGrid:
        value = await self.value(node)
        if not isinstance(value, ScalarGrid):
            raise PromqlError("bad_data", "a scalar is expected")
        return value

    def _text(self, node: Node) -> str:
        if not isinstance(node, TextNode):
            raise PromqlError("bad_data", "a text is expected")
        return node.value

    async def _negated(self, operand: Grid) -> Grid:
        match operand:
            case ScalarGrid(values):
                return ScalarGrid([-value for value in values])
            case VectorGrid():
                return await mapped(operand, lambda value: -value, self._slices)
        raise PromqlError("bad_data", "a text cannot be negated")

    async def _aggregated(self, node: AggregationNode) -> VectorGrid:
        parameter: Sequence[float] | None = None
        if node.parameter is not None:
            parameter = (await self._scalar(node.parameter)).values
        operand = node.operand
        if node.by and isinstance(operand, CallNode) and operand.function in ADDED_UP.get(node.operator, ()):
            vector = await self._over_time(operand, frozenset(node.labels))
        else:
            vector = await self._vector(operand)
        return await aggregated(node, vector, parameter, self._slices)

    async def _over_time(self, node: CallNode, needed: Set[str] | None = None) -> VectorGrid:
        """Return a function of range vectors, perhaps added up over labels that are not ``needed``."""
        selected = node.arguments[-1]
        if not isinstance(selected, RangeNode):
            raise PromqlError("bad_data", f"{node.function}() requires a range vector")
        if node.function == "quantile_over_time":
            parts = set((await self._scalar(node.arguments[0])).values)
            if len(parts) > 1 and not all(map(math.isnan, parts)):
                raise PromqlError(
                    "execution", "the first argument of quantile_over_time() must be the same at all times"
                )
            part = parts.pop()
            aggregates = (quantile_aggregate(part),) if 0 <= part <= 1 else (Aggregate("count"),)
            return await self._reader.windows(selected, quantile_function(part), aggregates, self._times)
        absence = node.function == "absent_over_time"
        function = WINDOW_FUNCTIONS["present_over_time" if absence else node.function]
        vector = await self._reader.windows(
            selected, function, tuple(Aggregate(name) for name in function.aggregates), self._times, needed
        )
        if absence:
            labels = absent_labels(selected.selector.matchers)
            return await absent(vector, labels, self._times.count, self._slices)
        return vector

    async def _called(self, node: CallNode) -> Grid:
        arguments = node.arguments
        if node.function in SIMPLE:
            return await mapped(await self._vector(arguments[0]), SIMPLE[node.function], self._slices)
        match node.function:
            case "time":
                return ScalarGrid(self._times.all)
            case "scalar":
                return await scalar_of(await self._vector(arguments[0]), self._times.count, self._slices)
            case "vector":
                return VectorGrid([GridSeries((), list((await self._scalar(arguments[0])).values))])
            case "timestamp":
                return await self._timestamp(arguments[0])
            case "absent":
                labels = absent_labels(arguments[0].matchers) if isinstance(arguments[0], SelectorNode) else ()
                return await absent(await self._vector(arguments[0]), labels, self._times.count, self._slices)
            case "sort" | "sort_desc":
                vector = await self._vector(arguments[0])
                return ordered(vector, descending=node.function == "sort_desc")
            case "round" | "clamp" | "clamp_min" | "clamp_max":
                return await self._limited(node)
            case "label_replace":
                texts = [self._text(argument) for argument in arguments[1:]]
                vector = await self._vector(arguments[0])
                return await label_replaced(vector, texts[0], texts[1], texts[2], texts[3], self._slices)
        raise PromqlError("bad_data", f"the function {node.function}() is not evaluated")

    async def _timestamp(self, argument: Node) -> VectorGrid:
        """Return the times of the samples of a selector, or of the evaluation of another vector."""
        if isinstance(argument, SelectorNode):
            vector = (await self._reader.newest(argument, self._times)).times
        else:
            times = self._times.all
            vector = VectorGrid(
                [
                    GridSeries(
                        each.labels,
                        [None if value is None else at for value, at in zip(each.values, times, strict=True)],
                    )
                    for each in (await self._vector(argument)).series
                ]
            )
        return await joined(
            [GridSeries(without_name(each.labels), each.values) for each in vector.series], self._slices
        )

    async def _limited(self, node: CallNode) -> VectorGrid:
        vector = await self._vector(node.arguments[0])
        given = [await self._scalar(argument) for argument in node.arguments[1:]]
        everything = self._constant(math.inf)
        match node.function:
            case "round":
                return await mapped_with(vector, rounded, given or [self._constant(1.0)], self._slices)
            case "clamp_min":
                given = [given[0], everything]
            case "clamp_max":
                given = [self._constant(-math.inf), given[0]]
        return await mapped_with(vector, clamped, given, self._slices)
