"""Samples are read from plain and from packed rows, with the columns that a statement needs and within its time."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

from meter.query import And
from meter.query import Comparison
from meter.query import SampleFilter
from meter.store.packing.packed_rows import SAMPLE_COLUMNS
from meter.store.postgres.sql import Sql
from meter.store.query.conditions import split_filter
from meter.store.query.named_edges import edge_of_series
from meter.store.query.packed_parts import NO_END
from meter.store.query.packed_parts import NO_START
from meter.store.query.packed_parts import TimeBounds
from meter.store.query.sample_rows import EVER
from meter.store.query.sample_rows import first_of_series
from meter.store.query.sample_rows import sample_columns
from meter.store.query.sample_rows import samples_between
from meter.store.query.sample_rows import samples_with_ids
from meter.store.query.samples_by_time import samples_by_time

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
VOLUMES = ("timestamp", "volume", "series_id")
BOUNDS = TimeBounds(Sql("%s", (START,)), Sql("%s", (END,)))


def test_columns_are_those_that_the_texts_name_in_the_order_of_the_table() -> None:
    assert sample_columns("s.volume > 3", Sql("x.id = s.series_id AND this.message_id")) == (
        "timestamp",
        "volume",
        "series_id",
    )
    assert sample_columns("") == ("timestamp",)
    assert sample_columns("SELECT s.*") == SAMPLE_COLUMNS


def test_arrays_of_other_columns_are_not_read() -> None:
    text = samples_between(VOLUMES, BOUNDS).text

    assert "p.volumes[" in text
    assert "message_ids" not in text
    assert "signatures" not in text


def test_parameters_are_in_the_order_of_the_text() -> None:
    condition, series = Sql("s.volume > %s", (7,)), Sql("p.series_id = %s", (8,))
    for rows in (
        samples_between(VOLUMES, BOUNDS, series=series, plain=Sql("s.series_id = %s", (9,))),
        first_of_series(("timestamp", "message_id", "volume"), BOUNDS, series="x.id", condition=condition, limit=3),
        samples_with_ids(VOLUMES, BOUNDS, Sql("%s::uuid[]", (["id"],))),
        samples_by_time(VOLUMES, BOUNDS, condition=condition, limit=3, series=series),
    ):
        parts = rows.text.split("%s")
        assert len(parts) - 1 == len(rows.parameters)
        for before, value in zip(parts, rows.parameters, strict=False):
            if before.endswith("s.volume > "):
                assert value == 7
            if before.endswith("p.series_id = "):
                assert value == 8


def test_part_of_a_range_is_bounded_by_both() -> None:
    assert EVER.within("r.first", "r.last") == (Sql("r.first"), Sql("r.last"), NO_START)
    assert BOUNDS.within(NO_START, NO_END) == BOUNDS
    of_rollup = BOUNDS.within("r.first", "r.last")
    assert (of_rollup.first.text, of_rollup.last.text) == ("greatest(%s, r.first)", "least(%s, r.last)")
    assert of_rollup.since == BOUNDS.first == of_rollup.within("gap.start", "gap.finish").since


def test_comparisons_of_the_timestamp_narrow_the_range() -> None:
    expression = And(
        (Comparison("timestamp", ">", START), Comparison("timestamp", "<=", END), Comparison("volume", ">", 1))
    )

    first, last, _ = split_filter(SampleFilter(expression=expression)).bounds

    assert (first.parameters, last.parameters) == ((START,), (END,))
    assert split_filter(SampleFilter(expression=Comparison("timestamp", "!=", START))).bounds == EVER


def test_newest_samples_of_a_series_are_read_from_the_end_of_its_rows() -> None:
    columns = ("timestamp", "message_id")
    newest = first_of_series(columns, EVER, series="x.id", condition="true", limit=1).text
    oldest = first_of_series(columns, EVER, series="x.id", condition="true", limit=1, oldest=True).text

    assert "ORDER BY p.first DESC, p.part DESC" in newest
    assert "p.last >= (SELECT" in newest
    assert "ORDER BY p.first ASC, p.part ASC" in oldest
    assert "p.first <= (SELECT" in oldest


def test_time_of_the_edge_of_a_series_is_found_with_one_step_of_the_index() -> None:
    edge = edge_of_series(("timestamp", "message_id"), "%(since)s", "%(until)s", series="x.id", condition="true")

    assert "max(s.timestamp)" in edge
    assert "%s" not in edge
