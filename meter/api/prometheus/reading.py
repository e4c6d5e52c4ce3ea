"""Reads selectors: the newest samples of series before each time, and functions of windows, as few questions to the store."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from collections.abc import Set
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime
from datetime import timedelta

import msgspec

from meter.api.prometheus.aggregation import total
from meter.api.prometheus.current import FoundSample
from meter.api.prometheus.current import carried
from meter.api.prometheus.current import keep_newest
from meter.api.prometheus.grid import Column
from meter.api.prometheus.grid import GridSeries
from meter.api.prometheus.grid import VectorGrid
from meter.api.prometheus.grid import joined
from meter.api.prometheus.grid import without_name
from meter.api.prometheus.matchers import LabelMatcher
from meter.api.prometheus.matchers import all_match
from meter.api.prometheus.names import NamedMeter
from meter.api.prometheus.questions import SeriesQuestions
from meter.api.prometheus.questions import SeriesRows
from meter.api.prometheus.questions import time_of
from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import PromqlError
from meter.api.prometheus.syntax import RangeNode
from meter.api.prometheus.syntax import SelectorNode
from meter.api.prometheus.times import EvaluationTimes
from meter.api.prometheus.times import selected_times
from meter.api.prometheus.windows import WindowFunction
from meter.counter_runs import INTERVALS_CARRIED
from meter.query import Aggregate

INCREASE = "increase"

NEWEST = (Aggregate("last"), Aggregate("polling_interval"))

MAX_QUESTIONS = 100
"""Questions to the store for one selector, if its windows cannot be put together of tiles."""

CHECKED_TIMES = 100
"""Times of evaluation between two looks at the clock."""

SPARSE = 4
"""Windows that cover less than this part of the time are asked for one by one, if they are few."""


@dataclass(frozen=True, slots=True)
class _Tiles:
    """The tiles of a series that have samples: their positions, and their aggregates by label."""

    positions: list[int]
    columns: Mapping[str, list[float]]


@dataclass(frozen=True, slots=True)
class NewestVector:
    """The newest samples of series: their values, and in series with the same labels their times."""

    values: VectorGrid
    times: VectorGrid


def repeated(vector: VectorGrid, count: int) -> VectorGrid:
    """Return a vector for one time as one for ``count`` times."""
    return VectorGrid([GridSeries(each.labels, each.values * count) for each in vector.series])


def whole_seconds(*durations: float) -> int:
    """Return the greatest common divisor of ``durations``; :class:`PromqlError` if it is not a whole number of seconds."""
    milliseconds = math.gcd(*(round(duration * 1000) for duration in durations))
    if milliseconds % 1000:
        raise PromqlError("bad_data", "the step and the ranges must be whole seconds")
    return milliseconds // 1000


class SeriesReader:
    """Reads the selectors of one evaluation."""

    def __init__(self, questions: SeriesQuestions) -> None:
        self._questions = questions
        self._limits = questions.source.limits
        self._slices = questions.source.slices

    def _check(self, number_of_series: int, times: EvaluationTimes) -> None:
        if number_of_series > self._limits.max_series:
            raise PromqlError("execution", f"a selector matches more than {self._limits.max_series} series")
        if number_of_series * times.count > self._limits.max_points:
            raise PromqlError(
                "execution",
                f"a selector has more than {self._limits.max_points} points: select fewer series, a shorter time or a"
                " longer step",
            )

    async def newest(self, node: SelectorNode, times: EvaluationTimes) -> NewestVector:
        """Return the newest sample of each series before each time, unless it is too old.

        What of a resource and meter has other labels than its newest sample is not current any more.
        """
        at = selected_times(node, times)
        longest = max(self._limits.lookback_seconds, self._limits.max_lookback_seconds)
        step = whole_seconds(at.step) if at.count > 1 else None
        earlier = 1 if step is None else math.ceil(longest / step)
        start = at.start - (longest if step is None else earlier * step)
        found: list[SeriesRows] = []
        for meter in await self._questions.meters(node.matchers):
            found += await self._questions.rows(
                meter, node.matchers, start, at.end, NEWEST, period=step, whole_resources=True
            )
            self._check(len(found), at)
        values, sample_times = await self._current(found, at, time_of(start), step, earlier)
        selected = [all_match(node.matchers, each.labels) for each in values]
        result = NewestVector(
            VectorGrid([each for each, is_selected in zip(values, selected, strict=True) if is_selected]),
            VectorGrid([each for each, is_selected in zip(sample_times, selected, strict=True) if is_selected]),
        )
        if at.count == times.count:
            return result
        self._check(len(result.values.series), times)
        return NewestVector(repeated(result.values, times.count), repeated(result.times, times.count))

    def _validity(self, polling_interval: float) -> float:
        """Return for how many seconds a sample is current that is not followed by another one."""
        if polling_interval <= 0:
            return self._limits.lookback_seconds
        return min(INTERVALS_CARRIED * polling_interval, self._limits.max_lookback_seconds)

    async def _current(
        self, found: Sequence[SeriesRows], times: EvaluationTimes, origin: datetime, step: int | None, earlier: int
    ) -> tuple[list[GridSeries], list[GridSeries]]:
        """Return the values and the times of the samples that are current at each time.

        ``earlier`` tiles, each ``step`` seconds long, are from the ``origin`` to the first time.
        """
        of_subject: defaultdict[tuple[str, str, str | None], list[tuple[Labels, Column, Column]]] = defaultdict(list)
        tile = timedelta(seconds=step or 1)
        for series in found:
            if self._slices.over:
                await self._slices.pause()
            samples = [
                FoundSample(
                    (row.period_start - origin) // tile - earlier + 1 if step is not None else 0,
                    row.last.timestamp(),
                    row.values["last"],
                    self._validity(row.values["polling_interval"]),
                )
                for row in series.rows
            ]
            of_subject[series.subject].append((series.labels, *carried(samples, times)))
        result: tuple[list[GridSeries], list[GridSeries]] = [], []
        for variants in of_subject.values():
            if self._slices.over:
                await self._slices.pause()
            if len(variants) > 1:
                keep_newest([(values, sample_times) for _, values, sample_times in variants])
            for labels, values, sample_times in variants:
                if any(value is not None for value in values):
                    result[0].append(GridSeries(labels, values))
                    current = [
                        None if value is None else time for value, time in zip(values, sample_times, strict=True)
                    ]
                    result[1].append(GridSeries(labels, current))
        return result

    async def windows(
        self,
        node: RangeNode,
        function: WindowFunction,
        aggregates: Sequence[Aggregate],
        times: EvaluationTimes,
        needed: Set[str] | None = None,
    ) -> VectorGrid:
        """Return ``function`` of the windows that end at each time; where a window has no samples, nothing.

        The store may add up series that differ only in labels that are not ``needed``.
        """
        if needed is not None and len(await self._questions.meters(node.selector.matchers)) == 1:
            needed |= {matcher.label for matcher in node.selector.matchers}
        else:
            needed = None  # without the name of the metric they would be the same
        at = selected_times(node.selector, times)
        if at.count == 1:
            result = await self._single_windows(node, function, aggregates, at, needed)
        else:
            tile = whole_seconds(at.step, node.seconds)
            one_tile = tile == node.seconds
            sparse = node.seconds * SPARSE <= at.step and at.count <= MAX_QUESTIONS
            if sparse or (function.whole and not one_tile):
                result = await self._single_windows(node, function, aggregates, at, needed)
            else:
                result = await self._tiled_windows(node, function, aggregates, at, tile, needed)
        if at.count == times.count:
            return result
        self._check(len(result.series), times)
        return repeated(result, times.count)

    async def _single_windows(
        self,
        node: RangeNode,
        function: WindowFunction,
        aggregates: Sequence[Aggregate],
        times: EvaluationTimes,
        needed: Set[str] | None,
    ) -> VectorGrid:
        """Ask for each window by itself."""
        if times.count > MAX_QUESTIONS:
            raise PromqlError(
                "execution",
                f"this function of overlapping windows is evaluated at {MAX_QUESTIONS} times at most, not {times.count}:"
                " use a step that is a multiple of the range, or fewer steps",
            )
        tiles: dict[Labels, _Tiles] = {}
        names = [aggregate.label for aggregate in aggregates]
        for number, time in enumerate(times.all):
            for meter in await self._questions.meters(node.selector.matchers):
                ask = self._window_of_counters if function.counter else self._questions.rows
                for series in await ask(
                    meter, node.selector.matchers, time - node.seconds, time, aggregates, needed=needed
                ):
                    if series.labels not in tiles:
                        tiles[series.labels] = _Tiles([], {name: [] for name in names})
                    of_series = tiles[series.labels]
                    for row in series.rows:
                        of_series.positions.append(number)
                        for name in names:
                            of_series.columns[name].append(row.values[name])
                self._check(len(tiles), times)
        return await self._computed(tiles, function, times, node.seconds, every=1, length=1)

    async def _window_of_counters(
        self,
        meter: NamedMeter,
        matchers: Sequence[LabelMatcher],
        start: float,
        end: float,
        aggregates: Sequence[Aggregate],
        *,
        needed: Set[str] | None,
    ) -> list[SeriesRows]:
        """Return the increases in a window, with that from the last sample before it.

        It is the increase since some time before the window, less the one until its start: rollups serve both.
        """
        earlier = start - self._limits.max_lookback_seconds
        since = await self._questions.rows(meter, matchers, earlier, end, aggregates, needed=needed)
        before = await self._questions.rows(meter, matchers, earlier, start, aggregates, needed=needed)
        until = {each.labels: total([row.values[INCREASE] for row in each.rows]) for each in before}
        window = time_of(start)
        result = []
        for each in since:
            newest = max(each.rows, key=lambda row: row.last)
            if newest.last >= window:
                increase = total([row.values[INCREASE] for row in each.rows]) - until.get(each.labels, 0.0)
                values = {INCREASE: max(increase, 0.0)}  # the difference of two roundings
                result.append(replace(each, rows=[msgspec.structs.replace(newest, values=values)]))
        return result

    async def _tiled_windows(
        self,
        node: RangeNode,
        function: WindowFunction,
        aggregates: Sequence[Aggregate],
        times: EvaluationTimes,
        tile: int,
        needed: Set[str] | None,
    ) -> VectorGrid:
        """Ask for all tiles of the windows together."""
        # The increase from the last sample before a window belongs to the window.
        earlier = math.ceil(self._limits.max_lookback_seconds / tile) if function.counter else 0
        start = times.start - node.seconds - earlier * tile
        origin = time_of(start)
        length_of_tile = timedelta(seconds=tile)
        tiles: dict[Labels, _Tiles] = {}
        names = [aggregate.label for aggregate in aggregates]
        for meter in await self._questions.meters(node.selector.matchers):
            for series in await self._questions.rows(
                meter, node.selector.matchers, start, times.end, aggregates, period=tile, needed=needed
            ):
                if self._slices.over:
                    await self._slices.pause()
                tiles[series.labels] = _Tiles(
                    [(row.period_start - origin) // length_of_tile - earlier for row in series.rows],
                    {name: [row.values[name] for row in series.rows] for name in names},
                )
            self._check(len(tiles), times)
        every, length = round(times.step / tile), round(node.seconds / tile)
        return await self._computed(tiles, function, times, node.seconds, every=every, length=length)

    async def _computed(
        self,
        tiles: Mapping[Labels, _Tiles],
        function: WindowFunction,
        times: EvaluationTimes,
        seconds: float,
        *,
        every: int,
        length: int,
    ) -> VectorGrid:
        """Return ``function`` of windows of ``length`` tiles, which begin ``every`` so many tiles."""
        results = []
        for labels, series in tiles.items():
            if self._slices.over:
                await self._slices.pause()
            values: Column = [None] * times.count
            for number in range(times.count):
                if number % CHECKED_TIMES == 0 and self._slices.over:
                    await self._slices.pause()
                first = bisect_left(series.positions, number * every)
                end = bisect_left(series.positions, number * every + length, lo=first)
                if first < end:
                    values[number] = function.compute(series.columns, first, end, seconds)
            results.append(GridSeries(labels if function.keeps_name else without_name(labels), values))
        return await joined(results, self._slices)
