"""JSON of the answers of Prometheus' HTTP API: an envelope with the status, the data and, if there are some, warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from meter.api.prometheus.results import Labels
from meter.api.prometheus.results import Matrix
from meter.api.prometheus.results import MatrixSeries
from meter.api.prometheus.results import MetricMetadata
from meter.api.prometheus.results import Point
from meter.api.prometheus.results import PromqlAnswer
from meter.api.prometheus.results import ScalarPoint
from meter.api.prometheus.results import StringPoint
from meter.api.prometheus.results import VectorSample
from meter.api.responses import ListResponse

MAX_EXACT = 2.0**53
"""Whole numbers below it have all their digits in double precision."""


class QueryData(msgspec.Struct, rename="camel"):
    """The value of an expression. ``result`` is a list of series, or the time and the text of one value."""

    result_type: str
    result: list[Any]


class QueryAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to ``query`` and ``query_range``."""

    status: str
    data: QueryData
    warnings: list[str] = []


class NamesAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to ``labels`` and ``label/<name>/values``."""

    status: str
    data: list[str]
    warnings: list[str] = []


class SeriesAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to ``series``: the labels of each."""

    status: str
    data: list[dict[str, str]]
    warnings: list[str] = []


class MetricDescription(msgspec.Struct):
    """Type, help and unit of a metric."""

    type: str
    help: str
    unit: str


class MetadataAnswer(msgspec.Struct):
    """The answer to ``metadata``: by metric, one entry per type and unit."""

    status: str
    data: dict[str, list[MetricDescription]]


class BuildInfo(msgspec.Struct, kw_only=True, rename="camel"):
    """What serves the API. ``version`` is that of Prometheus whose HTTP API is served: clients choose endpoints by it."""

    application: str
    version: str
    revision: str = ""
    branch: str = ""
    build_user: str = ""
    build_date: str = ""
    go_version: str = ""


class BuildInfoAnswer(msgspec.Struct):
    """The answer to ``status/buildinfo``."""

    status: str
    data: BuildInfo


class RuntimeInfo(msgspec.Struct, kw_only=True, rename="camel"):
    """What clients know of a running Prometheus. Meter starts, and reads its configuration, at ``start_time``.

    The working directory is not told to clients, and what only a program in Go has is 0 or empty.
    """

    start_time: str
    last_config_time: str
    reload_config_success: bool = True
    cwd: str = msgspec.field(default="", name="CWD")
    corruption_count: int = 0
    goroutine_count: int = 0
    gomaxprocs: int = msgspec.field(default=0, name="GOMAXPROCS")
    gogc: str = msgspec.field(default="", name="GOGC")
    godebug: str = msgspec.field(default="", name="GODEBUG")
    storage_retention: str = ""


class RuntimeInfoAnswer(msgspec.Struct):
    """The answer to ``status/runtimeinfo``."""

    status: str
    data: RuntimeInfo


class Targets(msgspec.Struct, rename="camel"):
    """Targets that are scraped: Meter scrapes none."""

    active_targets: list[dict[str, str]] = []
    dropped_targets: list[dict[str, str]] = []


class TargetsAnswer(msgspec.Struct):
    """The answer to ``targets``."""

    status: str
    data: Targets


class RuleGroups(msgspec.Struct):
    """Groups of rules: Meter evaluates none."""

    groups: list[dict[str, str]] = []


class RulesAnswer(msgspec.Struct):
    """The answer to ``rules``."""

    status: str
    data: RuleGroups


class Alerts(msgspec.Struct):
    """Alerts: Meter has none."""

    alerts: list[dict[str, str]] = []


class AlertsAnswer(msgspec.Struct):
    """The answer to ``alerts``."""

    status: str
    data: Alerts


def value_text(value: float) -> str:
    """Return the number as Prometheus writes it: ``NaN``, ``+Inf``, ``-Inf``, or all digits that a double needs."""
    if value != value:
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == (whole := int(value)) and abs(value) < MAX_EXACT:
        return "-0" if not whole and math.copysign(1, value) < 0 else str(whole)
    return repr(value)


def time_number(seconds: float) -> float:
    """Return a time as Prometheus writes it, which is exact to the millisecond: a whole number of seconds without a fraction."""
    rounded = round(seconds, 3)
    return int(rounded) if rounded == int(rounded) else rounded


def answer(found: PromqlAnswer, limit: int | None) -> QueryAnswer | ListResponse:
    """Return the answer to a query with at most ``limit`` series, and a warning if there are more.

    It takes the series out of ``found``: they are rendered one after another, as there can be a million points.
    """
    result = found.result
    match result:
        case ScalarPoint(point):
            return QueryAnswer(
                status="success", data=QueryData("scalar", list(_pair(point))), warnings=list(found.warnings)
            )
        case StringPoint(time, text):
            data = QueryData("string", [time_number(time), text])
            return QueryAnswer(status="success", data=data, warnings=list(found.warnings))
        case Matrix(series):
            return _series_answer("matrix", *truncated(series, limit, found.warnings), _rendered_series)
        case _:
            return _series_answer("vector", *truncated(result.samples, limit, found.warnings), _rendered_sample)


def truncated(rows: list[Any], limit: int | None, warnings: Sequence[str]) -> tuple[list[Any], Sequence[str]]:
    """Return at most ``limit`` of ``rows``, and ``warnings`` with one more if there are more rows."""
    if limit is None or len(rows) <= limit:
        return rows, warnings
    return rows[:limit], (*warnings, "results truncated due to limit")


def names(found: list[str], limit: int | None) -> ListResponse:
    """Return at most ``limit`` names."""
    rows, warnings = truncated(found, limit, ())
    return ListResponse(rows, _unchanged, envelope=_envelope(b'"data":[', b"]", warnings))


def series(found: list[Labels], limit: int | None) -> ListResponse:
    """Return the labels of at most ``limit`` series."""
    rows, warnings = truncated(found, limit, ())
    return ListResponse(rows, dict, envelope=_envelope(b'"data":[', b"]", warnings))


def metadata(found: Sequence[MetricMetadata], limit: int | None, per_metric: int | None) -> MetadataAnswer:
    """Return what is known of at most ``limit`` metrics, with at most ``per_metric`` entries each."""
    by_metric: dict[str, list[MetricDescription]] = {}
    for each in found:
        by_metric.setdefault(each.metric, []).append(MetricDescription(each.type, each.help, each.unit))
    kept = list(by_metric.items())[:limit]
    return MetadataAnswer("success", {metric: entries[:per_metric] for metric, entries in kept})


def _series_answer(result_type: str, rows: list[Any], warnings: Sequence[str], render: Any) -> ListResponse:
    before = b'"data":{"resultType":"%b","result":[' % result_type.encode()
    return ListResponse(rows, render, envelope=_envelope(before, b"]}", warnings), rows_per_slice=1)


def _envelope(before: bytes, after: bytes, warnings: Sequence[str]) -> tuple[bytes, bytes]:
    """Return the bytes around a list that is rendered in slices; without ``warnings``, as most answers are."""
    told = b',"warnings":' + msgspec.json.encode(list(warnings)) if warnings else b""
    return b'{"status":"success",' + before, after + told + b"}"


def _unchanged(row: Any) -> Any:
    return row


def _pair(point: Point) -> tuple[float, str]:
    return time_number(point.time), value_text(point.value)


def _rendered_sample(sample: VectorSample) -> dict[str, Any]:
    return {"metric": dict(sample.labels), "value": _pair(sample.point)}


def _rendered_series(one: MatrixSeries) -> dict[str, Any]:
    return {"metric": dict(one.labels), "values": [_pair(point) for point in one.points]}
