"""The SQL that the store runs for typical queries, compared with the files in tests/data/sql.

They are those of a store on one server. A file holds the statements of one query in the order in which they run. Parameters are numbered, equal ones alike, and
listed at the top; lines are indented by their parentheses. After an intended change of a statement, rewrite the files
and read the difference::

    METER_REWRITE_GOLDEN_FILES=1 .venv/bin/python -m pytest tests/unit/store/query/test_golden_sql.py
    git diff tests/data/sql
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from meter.completeness.lives.kinds import KINDS
from meter.query import Aggregate
from meter.query import Comparison
from meter.query import Marker
from meter.query import MetadataMatch
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store.postgres.sql import chosen
from meter.store.query.runner import QueryRunner

FILES = Path(__file__).parents[3] / "data/sql"
REWRITE = "METER_REWRITE_GOLDEN_FILES"

START = datetime(2026, 11, 1, tzinfo=UTC)
MONTH = {"start": START, "end": START + timedelta(days=30)}
CPU = SampleFilter(equals={"meter": "cpu"}, **MONTH)
PROJECT = SampleFilter(equals={"meter": "cpu", "project_id": "demo"}, **MONTH)
HOST = SampleFilter(equals={"meter": "cpu"}, metadata=(MetadataMatch("host", "compute-1"),), **MONTH)
WITHOUT_TIMES = SampleFilter(equals={"meter": "cpu", "project_id": "demo"})
ODD_ENDS = SampleFilter(
    equals={"meter": "cpu"}, start=START + timedelta(minutes=7), end=START + timedelta(days=30, minutes=7)
)
LARGE_VOLUMES = SampleFilter(equals={"meter": "cpu"}, expression=Comparison("volume", ">", 100), **MONTH)
MARKER = Marker(START + timedelta(days=7), "0195d3f0-1111-7abc-8def-000000000001")
COUNT = (Aggregate("count"),)


class RecordingPool:
    """A connection pool that records statements. It finds ``matching`` series, of which two count as few, and no samples."""

    generation = 1
    spread = False

    def __init__(self, matching: int) -> None:
        self.matching = matching
        self.statements: list[tuple[str, Sequence[Any]]] = []

    async def rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        text, values = chosen(statement, parameters, spread=self.spread)
        self.statements.append((text, list(values or ())))
        return [(2, list(range(1, self.matching + 1)), None)] if "found.ids)) AS until" in statement else []


def statistics(filter: SampleFilter, **options: Any) -> Callable[[QueryRunner], Awaitable[Any]]:
    return lambda runner: runner.statistics(StatisticsQuery(filter=filter, **options))


def samples(filter: SampleFilter, **options: Any) -> Callable[[QueryRunner], Awaitable[Any]]:
    return lambda runner: runner.samples(filter, 20, **options)


QUERIES: dict[str, Callable[[QueryRunner], Awaitable[Any]]] = {
    "statistics-from-samples": statistics(LARGE_VOLUMES, aggregates=COUNT),
    "statistics-from-rollups": statistics(CPU),
    "statistics-by-resource": statistics(PROJECT, groupby=("resource_id",), aggregates=COUNT),
    "statistics-by-metadata": statistics(HOST, groupby=("metadata.flavor.name",), aggregates=COUNT),
    "statistics-increase": statistics(CPU, aggregates=(Aggregate("increase"),)),
    "statistics-increase-of-project": statistics(PROJECT, aggregates=(Aggregate("increase"),)),
    "statistics-integral-of-metadata": statistics(HOST, aggregates=(Aggregate("integral"),)),
    "statistics-rate-from-samples": statistics(LARGE_VOLUMES, aggregates=(Aggregate("rate"),)),
    "statistics-integral": statistics(CPU, aggregates=(Aggregate("integral"),)),
    "statistics-last": statistics(
        CPU,
        period=3600,
        groupby=("resource_id",),
        aggregates=(Aggregate("last"), Aggregate("polling_interval")),
    ),
    "statistics-percentile": statistics(CPU, aggregates=(Aggregate("percentile", "95"),)),
    "statistics-cardinality": statistics(CPU, aggregates=(Aggregate("cardinality", "resource_id"),)),
    "statistics-with-period": statistics(CPU, period=3600, aggregates=COUNT),
    "statistics-with-odd-ends": statistics(ODD_ENDS, aggregates=COUNT),
    "statistics-with-period-and-no-start": statistics(WITHOUT_TIMES, period=600, aggregates=COUNT),
    "statistics-with-long-odd-windows": statistics(ODD_ENDS, period=7200, groupby=("resource_id",), aggregates=COUNT),
    "samples-newest-first": samples(SampleFilter()),
    "samples-of-few-series": samples(PROJECT),
    "samples-of-many-series": samples(PROJECT),
    "samples-by-metadata": samples(HOST),
    "samples-after-marker": samples(PROJECT, after=MARKER),
    "sample-by-message-id": samples(SampleFilter(equals={"message_id": MARKER.message_id})),
    "meters": lambda runner: runner.meters(CPU, 100, False),
    "meters-unique": lambda runner: runner.meters(CPU, 100, True),
    "resources": lambda runner: runner.resources(PROJECT, 100),
    "meters-by-rollups": lambda runner: runner.meters(SampleFilter(), 100, False),
    "resources-by-rollups": lambda runner: runner.resources(SampleFilter(), 100),
    "life-resources": lambda runner: runner.life_resources(
        SampleFilter(equals={"project_id": "demo"}), ["volume", "volume.size"], 100
    ),
    "life-runs": lambda runner: runner.life_runs(["v1", "v2"], ["volume", "volume.size"], None),
    "life-reports": lambda runner: runner.life_reports(["v1", "v2"], ["volume"], START),
    "arrivals": lambda runner: runner.activity.arrivals(None, START, 60, 1000),
    "arrivals-of-project": lambda runner: runner.activity.arrivals("demo", START, 60, 1000),
    "resource-counts": lambda runner: runner.activity.resource_counts(None, [KINDS["instance"]], START, 1000),
    "resource-counts-of-project": lambda runner: runner.activity.resource_counts(
        "demo", [KINDS["volume"]], START, 1000
    ),
}
MANY_SERIES = 3


@pytest.mark.parametrize("name", QUERIES)
@pytest_twisted.ensureDeferred
async def test_sql_of_a_query_is_that_of_its_golden_file(name: str) -> None:
    pool: Any = RecordingPool(MANY_SERIES if name == "samples-of-many-series" else 1)
    await QUERIES[name](QueryRunner(pool, Clock(), 5.0))
    sql = "\n".join(rendered(statement, parameters) for statement, parameters in pool.statements)

    file = FILES / f"{name}.sql"
    if os.environ.get(REWRITE):
        file.write_text(sql)
    assert sql == file.read_text(), f"{file.name} has other SQL: if that is intended, rewrite it with {REWRITE}=1"


def test_every_golden_file_belongs_to_a_query() -> None:
    assert {file.stem for file in FILES.iterdir()} == set(QUERIES)


def rendered(statement: str, parameters: Sequence[Any]) -> str:
    """Return ``statement`` with numbered parameters, which are listed in comments before it."""
    distinct: list[Any] = []
    numbers = []
    for value in parameters:
        if not any(type(value) is type(other) and value == other for other in distinct):
            distinct.append(value)
        numbers.append(distinct.index(value) + 1)
    given = iter(numbers)
    numbered = re.sub("%s", lambda _: f"${next(given)}", statement)
    assert next(given, None) is None, "there are more parameters than places for them"
    lines = [f"-- ${number} = {_shown(value)}" for number, value in enumerate(distinct, 1)]
    return "\n".join([*lines, *_indented(numbered)]) + ";\n"


def _shown(value: Any) -> str:
    return value.isoformat(" ") if isinstance(value, datetime) else repr(value)


def _indented(statement: str) -> Iterator[str]:
    """Yield the lines of ``statement``, indented by the parentheses that are open where each begins."""
    depth = 0
    for line in statement.replace("; ", ";\n").splitlines():
        words = " ".join(line.split()).replace(" ,", ",")
        if words:
            closed_first = len(words) - len(words.lstrip(")"))
            continues = words.startswith("AND ")
            yield "    " * (depth - closed_first + continues) + words
            depth += words.count("(") - words.count(")")
