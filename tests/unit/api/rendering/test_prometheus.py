"""Answers in the JSON and in the text format of Prometheus."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from meter.api.prometheus.results import Matrix
from meter.api.prometheus.results import MatrixSeries
from meter.api.prometheus.results import MetricMetadata
from meter.api.prometheus.results import Point
from meter.api.prometheus.results import PromqlAnswer
from meter.api.prometheus.results import ScalarPoint
from meter.api.prometheus.results import StringPoint
from meter.api.prometheus.results import Vector
from meter.api.prometheus.results import VectorSample
from meter.api.rendering import prometheus as rendering
from meter.api.rendering.exposition import exposition
from meter.api.rendering.lists import encoded_list
from meter.api.responses import ListResponse
from meter.daemon.shared_slices import OwnedSlices
from meter.daemon.shared_slices import SharedSlices


def slices() -> OwnedSlices:
    return SharedSlices(Clock()).of("tests")


async def body(response: Any) -> Any:
    if isinstance(response, ListResponse):
        return msgspec.json.decode(b"".join(await encoded_list(response, slices())))
    return msgspec.json.decode(msgspec.json.encode(response))


def sample(name: str, value: float, **labels: str) -> VectorSample:
    return VectorSample(tuple(sorted({"__name__": name, **labels}.items())), Point(1700000000.5, value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (0.0, "0"),
        (-0.0, "-0"),
        (3.0, "3"),
        (0.1, "0.1"),
        (2.0**53 - 1, "9007199254740991"),
        (1e300, "1e+300"),
    ],
)
def test_value_is_the_text_that_prometheus_writes(value: float, text: str) -> None:
    assert rendering.value_text(value) == text


@given(st.floats())
def test_value_is_read_back_exactly(value: float) -> None:
    again = float(rendering.value_text(value))
    assert again == value or (math.isnan(again) and math.isnan(value))


@pytest_twisted.ensureDeferred
async def test_vector_has_labels_time_and_text_of_each_sample() -> None:
    found = PromqlAnswer(Vector([sample("a", math.nan, x="1"), sample("b", 2.5)]))
    assert await body(rendering.answer(found, None)) == {
        "status": "success",
        "data": {
            "resultType": "vector",
            "result": [
                {"metric": {"__name__": "a", "x": "1"}, "value": [1700000000.5, "NaN"]},
                {"metric": {"__name__": "b"}, "value": [1700000000.5, "2.5"]},
            ],
        },
    }


@pytest_twisted.ensureDeferred
async def test_empty_vector_is_an_empty_list() -> None:
    assert (await body(rendering.answer(PromqlAnswer(Vector([])), None)))["data"]["result"] == []


@pytest_twisted.ensureDeferred
async def test_more_series_than_the_limit_are_truncated_with_a_warning() -> None:
    series = [MatrixSeries((("n", str(n)),), [Point(0, n), Point(60, n)]) for n in range(3)]
    answer = await body(rendering.answer(PromqlAnswer(Matrix(series), ("first",)), 2))
    assert answer["data"]["resultType"] == "matrix"
    assert [one["metric"]["n"] for one in answer["data"]["result"]] == ["0", "1"]
    assert answer["data"]["result"][1]["values"] == [[0, "1"], [60, "1"]]
    assert answer["warnings"] == ["first", "results truncated due to limit"]


@pytest_twisted.ensureDeferred
async def test_scalar_and_string_are_one_value() -> None:
    scalar = await body(rendering.answer(PromqlAnswer(ScalarPoint(Point(12, 2))), None))
    assert scalar["data"] == {"resultType": "scalar", "result": [12, "2"]}
    text = await body(rendering.answer(PromqlAnswer(StringPoint(12.25, "x")), None))
    assert text["data"] == {"resultType": "string", "result": [12.25, "x"]}


@pytest_twisted.ensureDeferred
async def test_a_long_series_is_one_slice() -> None:
    answer = rendering.answer(PromqlAnswer(Matrix([MatrixSeries((), [Point(0, 0)])])), None)
    assert isinstance(answer, ListResponse)
    assert answer.rows_per_slice == 1


def test_metadata_is_by_metric_and_limited() -> None:
    found = [MetricMetadata(m, "gauge", u, "") for m, u in (("a", "B"), ("a", "GB"), ("b", "B"), ("c", "B"))]
    whole = rendering.metadata(found, None, None).data
    assert {metric: [each.unit for each in entries] for metric, entries in whole.items()} == {
        "a": ["B", "GB"],
        "b": ["B"],
        "c": ["B"],
    }
    some = rendering.metadata(found, 2, 1).data
    assert {metric: len(entries) for metric, entries in some.items()} == {"a": 1, "b": 1}


async def text_of(samples: list[VectorSample], types: dict[str, str], warnings: tuple[str, ...] = ()) -> str:
    return "".join([chunk.decode() async for chunk in exposition(samples, types, warnings, slices())])


@pytest_twisted.ensureDeferred
async def test_exposition_has_each_metric_together_with_type_and_time() -> None:
    samples = [sample("b", 1, x="1"), sample("a", math.inf), sample("b", 2.5, x="0")]
    assert await text_of(samples, {"a": "counter"}, ("only\nsome",)) == (
        "# warning: only some\n"
        "# TYPE a counter\n"
        "a +Inf 1700000000500\n"
        "# TYPE b untyped\n"
        'b{x="0"} 2.5 1700000000500\n'
        'b{x="1"} 1 1700000000500\n'
    )
    assert await text_of([], {}) == ""


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "\\n", "}", "é", "\u202e"])
@pytest_twisted.ensureDeferred
async def test_label_of_any_text_is_read_back(value: str) -> None:
    [family] = text_string_to_metric_families(await text_of([sample("a", 1, x=value)], {"a": "gauge"}))
    assert family.samples[0].labels == {"x": value}
