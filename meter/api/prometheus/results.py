"""Answers to queries in PromQL, as frozen records, and the error of a query.

Times are seconds since 1970. Values are double precision numbers; ``nan``, ``inf`` and ``-inf`` are possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from typing import NamedTuple

ErrorKind = Literal["bad_data", "execution", "timeout", "canceled", "internal"]
"""The words that Prometheus has for ``errorType``."""

METRIC_NAME = "__name__"
"""The label that has the name of the metric."""

Labels = tuple[tuple[str, str], ...]
"""A label set: pairs of a name and a value, sorted by name. No value is empty: a label without a value is absent."""


class PromqlError(Exception):
    """A query that cannot be answered. ``kind`` is Prometheus' ``errorType``, ``text`` is for the client."""

    def __init__(self, kind: ErrorKind, text: str) -> None:
        super().__init__(text)
        self.kind: ErrorKind = kind
        self.text = text


class Point(NamedTuple):
    """A value of a series at a time."""

    time: float
    value: float


@dataclass(frozen=True, slots=True)
class VectorSample:
    """One element of an instant vector."""

    labels: Labels
    point: Point


@dataclass(frozen=True, slots=True)
class MatrixSeries:
    """One series of a matrix, with its points from the oldest to the newest."""

    labels: Labels
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Vector:
    """An instant vector: Prometheus' ``resultType`` ``vector``."""

    samples: list[VectorSample]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Series over a range of time: ``matrix``."""

    series: list[MatrixSeries]


@dataclass(frozen=True, slots=True)
class ScalarPoint:
    """A number: ``scalar``."""

    point: Point


@dataclass(frozen=True, slots=True)
class StringPoint:
    """A text: ``string``."""

    time: float
    text: str


Result = Vector | Matrix | ScalarPoint | StringPoint


@dataclass(frozen=True, slots=True)
class PromqlAnswer:
    """The result of a query, and what the client should know about it: Prometheus' ``warnings``."""

    result: Result
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricMetadata:
    """What is known of a metric. ``type`` is a type of Prometheus: ``counter`` or ``gauge``."""

    metric: str
    type: Literal["counter", "gauge"]
    unit: str
    help: str
