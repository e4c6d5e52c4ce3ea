"""Counts the rows that PostgreSQL reads for a query, from the plans of its statements, executed with EXPLAIN (ANALYZE)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from meter.store.query.access_paths import BY_INDEXES
from meter.store.query.access_paths import NEWEST_FIRST

EXPLAIN = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
EXPLAIN_ONLY = "EXPLAIN (FORMAT JSON) "
PARTITION = re.compile(r"(sample|packed_samples)_(\d{4}_\d\d_\d\d|default)")
REMOVED = ("Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter")


@dataclass(frozen=True, slots=True)
class RowsRead:
    """The rows that the scans of one or more statements read.

    ``tables`` is the number of rows by table, including those that a filter removed; an index scan that finds a row and the
    heap scan that fetches it count once. ``intermediate`` is the same for scans of intermediate results (common table
    expressions, subqueries, functions), by name. ``plans`` are the plans.
    """

    tables: Counter[str] = field(default_factory=Counter)
    intermediate: Counter[str] = field(default_factory=Counter)
    plans: list[Any] = field(default_factory=list)

    def add(self, plan: Any) -> None:
        """Add the scans of ``plan``."""
        self.plans.append(plan)
        for node in _nodes(plan):
            rows = _rows_passed(node)
            if "Relation Name" in node:
                self.tables[_table(node["Relation Name"])] += rows
            elif node["Node Type"].endswith("Scan") and node["Node Type"] != "Bitmap Index Scan":
                self.intermediate[node.get("CTE Name") or node.get("Alias") or node["Node Type"]] += rows
            elif node["Node Type"] == "Nested Loop" and "Rows Removed by Join Filter" in node:
                self.intermediate["join filter"] += rows

    def text(self) -> str:
        """Return the plans as text for an error message, one node per line."""
        return "\n".join(line for plan in self.plans for line in _lines(plan))


def _rows_passed(node: Any) -> int:
    rows = node["Actual Rows"] + sum(node.get(removed, 0) for removed in REMOVED)
    return round(rows * node["Actual Loops"])


def _table(relation: str) -> str:
    """Return the table of ``relation``: partitions of samples are one table."""
    return "sample" if relation.startswith("sample_") else relation


def _nodes(plan: Any) -> Iterator[Any]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _lines(node: Any, depth: int = 0) -> Iterator[str]:
    words = [
        node["Node Type"],
        *(str(node[key]) for key in ("Relation Name", "CTE Name", "Index Name", "Subplan Name") if key in node),
        f"expected {node['Plan Rows']}, passed {_rows_passed(node)} in {node['Actual Loops']} loops",
        *(f"{key}: {node[key]}" for key in ("Index Cond", "Filter", "Join Filter") if key in node),
    ]
    yield "  " * depth + " · ".join(words)[:300]
    for part in node.get("Plans", ()):
        yield from _lines(part, depth + 1)


@contextmanager
def _recorded(pool: Any) -> Iterator[list[tuple[str, Any]]]:
    """Record the statements that ``pool``, a pool or a connection, executes."""
    statements: list[tuple[str, Any]] = []
    execute = pool.rows

    async def rows(statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        statements.append((statement, parameters))
        return await execute(statement, parameters)

    pool.rows = rows
    try:
        yield statements
    finally:
        del pool.rows


async def count_rows_read(pool: Any, query: Callable[[], Awaitable[Any]]) -> tuple[Any, RowsRead]:
    """Return the result of ``query`` and the rows that its statements read over ``pool``, a pool or a connection."""
    with _recorded(pool) as statements:
        result = await query()
    read = RowsRead()
    for statement, parameters in statements:
        read.add(await _plan(pool, EXPLAIN, statement, parameters))
    return result, read


async def count_partitions(pool: Any, query: Callable[[], Awaitable[Any]]) -> tuple[Any, list[int]]:
    """Return the result of ``query`` and of each of its statements how many scans of a week's partition have been planned.

    Those are counted, too, that PostgreSQL leaves out when it begins to execute the plan: it has planned them.
    """
    with _recorded(pool) as statements:
        result = await query()
    plans = [await _plan(pool, EXPLAIN_ONLY, *each) for each in statements]
    return result, [sum(map(_partitions, _nodes(plan))) for plan in plans]


def _partitions(node: Any) -> int:
    return bool(PARTITION.fullmatch(node.get("Relation Name", ""))) + node.get("Subplans Removed", 0)


async def _plan(pool: Any, explain: str, statement: str, parameters: Any) -> Any:
    settings = next((each for each in (BY_INDEXES, NEWEST_FIRST) if statement.startswith(each)), "")
    [[[output]]] = await pool.rows(f"{settings}{explain}{statement.removeprefix(settings)}", parameters)
    return output["Plan"]
