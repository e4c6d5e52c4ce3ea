"""Questions that name many values or long keys of metadata make no statements that PostgreSQL plans for seconds."""

from __future__ import annotations

from meter.query import And
from meter.query import Comparison
from meter.query import In
from meter.query import SampleFilter
from meter.store.query.conditions import TRUE
from meter.store.query.conditions import split_filter

FIVE_PARTS = "metadata.a.b.c.d.e"
"""A key that can mean 16 places of a document."""

LONG = f"metadata.{'a.' * 127}a"

MOST_DOCUMENTS = 1000


def documents_of(*parts: Comparison | In) -> int:
    conditions = split_filter(SampleFilter(expression=And(parts)))
    return sum(map(len, conditions.documents.parameters))


def test_index_is_asked_for_few_documents_however_many_values_are_named() -> None:
    assert documents_of(In(FIVE_PARTS, ("x", "y"))) == 32
    for key in (FIVE_PARTS, LONG):
        assert split_filter(SampleFilter(expression=In(key, tuple(map(str, range(1000)))))).documents == TRUE


def test_index_is_asked_for_few_documents_however_many_conditions_there_are() -> None:
    assert 0 < documents_of(*(Comparison(FIVE_PARTS, "=", number) for number in range(500))) <= MOST_DOCUMENTS
    assert documents_of(*(Comparison(LONG, "=", number) for number in range(500))) == 0
    assert documents_of(*(In(FIVE_PARTS, (number, -number)) for number in range(500))) <= MOST_DOCUMENTS
