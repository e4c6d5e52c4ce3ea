"""The annex: canonical lines in order, in pages."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from meter.rating.exact import plain
from meter.rating.statements import annex_spool
from meter.rating.statements.annex import AnnexDigest
from meter.rating.statements.annex import annex_line
from meter.rating.statements.annex import annex_order
from meter.rating.statements.annex import read_annex_line
from meter.rating.statements.annex_spool import AnnexSpool
from meter.rating.statements.statement import AnnexRow
from meter.rating.statements.statement import builtins
from tests.statements import ROWS

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
rows = st.builds(
    AnnexRow,
    project_id=texts,
    sku=texts,
    resource_id=texts,
    values=st.dictionaries(texts, texts, max_size=3),
    days=st.dictionaries(
        st.dates().map(str),
        st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**12), max_value=10**12),
        max_size=3,
    ),
)


@given(rows)
def test_line_is_the_canonical_form_of_the_row_and_reads_back(row):
    line = annex_line(row)
    shortest = replace(row, days={day: plain(quantity) for day, quantity in row.days.items()})
    assert line == rfc8785.dumps(builtins(shortest)) + b"\n"
    assert read_annex_line(line) == row
    assert line.count(b"\n") == 1


@given(st.lists(rows, max_size=20, unique_by=annex_order))
def test_pages_have_the_lines_in_order(some):
    some.sort(key=annex_order)
    digest = AnnexDigest()
    for row in some:
        digest.add(row, annex_line(row))
    assert digest.rows == len(some)


@pytest.mark.parametrize("size", [1, 400, 10**6])
def test_pages_of_a_spool_are_its_lines_and_each_is_of_one_project(size, monkeypatch):
    monkeypatch.setattr(annex_spool, "PAGE_BYTES", size)
    some = [
        AnnexRow(
            project_id=f"p{project}",
            sku="vm",
            resource_id=f"r{number:03}",
            values={},
            days={"2026-11-01": Decimal(number)},
        )
        for project in range(3)
        for number in range(50)
    ]

    async def collect(spool):
        return [page async for page in spool.pages()]

    with AnnexSpool() as spool:
        for row in some:
            spool.add(row)
        spool.finish()
        for _ in range(2):
            coroutine = collect(spool)
            with pytest.raises(StopIteration) as stopped:
                coroutine.send(None)
            pages = stopped.value.value
            assert b"".join(page.text() for page in pages) == b"".join(annex_line(row) for row in some)
            assert [row for page in pages for row in page.annex_rows()] == some
            assert all({row.project_id for row in page.annex_rows()} == {page.project_id} for page in pages)
            assert sum(page.rows for page in pages) == 150
        assert spool.digest.quantities["p1", "vm"] == sum(range(50))


def test_rows_out_of_order_are_refused():
    with AnnexSpool() as spool:
        spool.add(ROWS[1])
        with pytest.raises(ValueError, match="row 2 of the annex is not in order"):
            spool.add(ROWS[0])


@pytest.mark.parametrize(
    ("days", "problem"),
    [
        ({"2026-11-01": "1E999999999"}, "out of the bounds of numbers - at `$.days.2026-11-01`"),
        ({"2026-11-01": "1E-999999999"}, "out of the bounds"),
        ({"2026-11-01": "sNaN"}, "out of the bounds"),
        ({"2026-11-01": "Infinity"}, "out of the bounds"),
        ({"tomorrow": "1"}, "isoformat"),
        ({"0000-01-01": "1"}, "year"),
    ],
)
def test_forged_row_is_refused(days, problem):
    row = {"project_id": "p", "sku": "s", "resource_id": "r", "values": {}, "days": days}
    with pytest.raises(ValueError, match=f"this is not a row of an annex: .*{re.escape(problem)}"):
        read_annex_line(json.dumps(row).encode())
