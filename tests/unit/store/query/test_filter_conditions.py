"""A filter is split by the tables that its conditions need, and every value is a parameter."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from typing import Any

import pytest

from meter.interfaces import RequestError
from meter.query import And
from meter.query import Comparison
from meter.query import In
from meter.query import MetadataMatch
from meter.query import Not
from meter.query import Or
from meter.query import SampleFilter
from meter.store.query.access_paths import AccessPath
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import split_filter
from meter.store.query.metadata import metadata_values

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
PROJECT = Comparison("project_id", "=", "p")
HOST = Comparison("metadata.host", "=", "h")
VOLUME = Comparison("volume", ">", 7)


def test_values_are_always_parameters() -> None:
    filter = SampleFilter(
        equals={"meter": "'; --", "project_id": None, "message_id": "x"},
        start=START,
        as_of=END,
        metadata=(MetadataMatch("'; --", "'; --"),),
    )
    conditions = split_filter(filter)
    for condition in (conditions.series, conditions.sample):
        assert "'; --" not in condition.text
        assert condition.text.count("%s") == len(condition.parameters)


def test_empty_filter_has_no_conditions() -> None:
    conditions = split_filter(SampleFilter())

    assert {conditions.series, conditions.metadata, conditions.range, conditions.rest, conditions.sample} == {TRUE}
    assert not conditions.joined_metadata
    assert not conditions.joined_for_rest.strip()


def test_conditions_are_split_by_the_tables_that_they_need() -> None:
    filter = SampleFilter(
        equals={"meter": "cpu"},
        start=START,
        end=END,
        metadata=(MetadataMatch("name", "n"),),
        expression=And((PROJECT, HOST, Or((PROJECT, VOLUME)))),
    )
    conditions = split_filter(filter)

    assert conditions.series.parameters == ("cpu", ["p"])
    assert conditions.metadata.parameters == (["host"], ['"h"'], ["name"], ['"n"'])
    assert conditions.range.parameters == (START, END)
    assert conditions.rest.parameters == (["p"], 7.0)
    assert (conditions.rest_needs_series, conditions.rest_needs_metadata) == (True, False)


@pytest.mark.parametrize(
    ("expression", "needs_series", "needs_metadata"),
    [
        (VOLUME, False, False),
        (PROJECT, False, False),
        (HOST, False, False),
        (Or((VOLUME, HOST)), False, True),
        (Not(Or((PROJECT, HOST))), True, True),
    ],
)
def test_rest_needs_the_tables_of_the_fields_that_it_compares(
    expression: Any, needs_series: bool, needs_metadata: bool
) -> None:
    conditions = split_filter(SampleFilter(expression=expression))
    assert (conditions.rest_needs_series, conditions.rest_needs_metadata) == (needs_series, needs_metadata)


@pytest.mark.parametrize(
    ("filter", "path"),
    [
        (SampleFilter(), AccessPath.TIMESTAMP),
        (SampleFilter(metadata=(MetadataMatch("host", "h"),), start=START), AccessPath.TIMESTAMP),
        (SampleFilter(equals={"meter": "cpu"}), AccessPath.SERIES),
        (SampleFilter(expression=PROJECT), AccessPath.SERIES),
        (SampleFilter(equals={"message_id": "m", "meter": "cpu"}), AccessPath.MESSAGE_ID),
        (SampleFilter(expression=In("message_id", ("a", "b"))), AccessPath.MESSAGE_ID),
        (SampleFilter(expression=Comparison("message_id", "!=", "m")), AccessPath.TIMESTAMP),
        (
            SampleFilter(expression=Comparison("recorded_at", ">=", START), equals={"meter": "cpu"}),
            AccessPath.RECORDED_AT,
        ),
        (SampleFilter(expression=Comparison("recorded_at", ">=", START), start=START), AccessPath.TIMESTAMP),
        (SampleFilter(expression=Comparison("recorded_at", "<", START)), AccessPath.TIMESTAMP),
    ],
)
def test_narrowest_access_path_is_chosen(filter: SampleFilter, path: AccessPath) -> None:
    assert split_filter(filter).access_path is path


@pytest.mark.parametrize(
    ("filter", "selects"),
    [
        (SampleFilter(equals={"resource_id": "r"}), True),
        (SampleFilter(expression=Not(Or((VOLUME, Comparison("resource_id", "=", "r"))))), True),
        (SampleFilter(equals={"meter": "cpu"}, expression=PROJECT), False),
    ],
)
def test_filter_that_compares_resource_ids_selects_resources(filter: SampleFilter, selects: bool) -> None:
    assert split_filter(filter).selects_resources is selects


def test_dotted_metadata_key_is_read_in_every_way() -> None:
    assert metadata_values("a.b.c").parameters == (["a", "b", "c"], ["a", "b.c"], ["a.b", "c"], ["a.b.c"])
    assert len(metadata_values(".".join("abcdefghij")).parameters) == 2


@pytest.mark.parametrize("field", ["volume", "id; DROP TABLE sample"])
def test_unknown_field_is_refused(field: Any) -> None:
    with pytest.raises(RequestError, match="cannot be selected by"):
        split_filter(SampleFilter(equals={field: "x"}))


@pytest.mark.parametrize("value", ["a\0b", float("nan"), "\ud800"])
def test_metadata_value_that_cannot_be_stored_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match="metadata cannot contain"):
        split_filter(SampleFilter(metadata=(MetadataMatch("k", value),)))


def test_too_deeply_nested_expression_is_refused() -> None:
    expression: Any = VOLUME
    for _ in range(100_000):
        expression = Not(expression)

    with pytest.raises(RequestError, match="nested too deeply"):
        split_filter(SampleFilter(expression=expression))
