"""What PostgreSQL reads to answer: the plans of a store's questions, executed, with the rows that each scan passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from meter.store.query.access_paths import NEWEST_FIRST

EXPLAIN = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "
REMOVED = ("Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter")


@dataclass(frozen=True, slots=True)
class QueryRunner:
    """What one or more statements read.

    ``rows`` is, by table, how many rows its scans passed, whether or not a condition threw them away; an index scan that
    finds a row and a heap scan that fetches it count once. ``aside`` is the same for what a statement put aside
    (common table expressions, sorted and hashed parts), by what it is; ``plans`` is the plans themselves.
    """

    rows: Counter[str] = field(default_factory=Counter)
    aside: Counter[str] = field(default_factory=Counter)
    plans: list[Any] = field(default_factory=list)

    def add(self, plan: Any) -> None:
        """Count the scans of ``plan``."""
        self.plans.append(plan)
        for node in _nodes(plan):
            passed = _passed(node)
            if "Relation Name" in node:
                self.rows[_table(node["Relation Name"])] += passed
            elif node["Node Type"].endswith("Scan") and node["Node Type"] != "Bitmap Index Scan":
                self.aside[node.get("CTE Name") or node.get("Alias") or node["Node Type"]] += passed
            elif node["Node Type"] == "Nested Loop" and "Rows Removed by Join Filter" in node:
                self.aside["join filter"] += passed

    def described(self) -> str:
        """Return the plans for whoever wonders, a node a line."""
        return "\n".join(line for plan in self.plans for line in _lines(plan))


def _passed(node: Any) -> int:
    rows = node["Actual Rows"] + sum(node.get(removed, 0) for removed in REMOVED)
    return round(rows * node["Actual Loops"])


def _table(relation: str) -> str:
    """Partitions are one table."""
    return "sample" if relation.startswith("sample_") else relation


def _nodes(plan: Any) -> Iterator[Any]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _lines(node: Any, depth: int = 0) -> Iterator[str]:
    words = [
        node["Node Type"],
        *(str(node[key]) for key in ("Relation Name", "CTE Name", "Index Name", "Subplan Name") if key in node),
        f"expected {node['Plan Rows']}, passed {_passed(node)} in {node['Actual Loops']} loops",
        *(f"{key}: {node[key]}" for key in ("Index Cond", "Filter", "Join Filter") if key in node),
    ]
    yield "  " * depth + " · ".join(words)[:300]
    for part in node.get("Plans", ()):
        yield from _lines(part, depth + 1)


@contextmanager
def _noted(asked: Any) -> Iterator[list[tuple[str, Any]]]:
    """Note the statements that ``asked``, a pool or a connection, is asked."""
    statements: list[tuple[str, Any]] = []
    ask = asked.rows

    async def rows(statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        statements.append((statement, parameters))
        return await ask(statement, parameters)

    asked.rows = rows
    try:
        yield statements
    finally:
        del asked.rows


async def reading_of(asked: Any, question: Callable[[], Awaitable[Any]]) -> tuple[Any, QueryRunner]:
    """Return the answer to ``question`` and what the statements read that it asks ``asked``, a pool or a connection."""
    with _noted(asked) as statements:
        answer = await question()
    reading = QueryRunner()
    for statement, parameters in statements:
        settings = NEWEST_FIRST if statement.startswith(NEWEST_FIRST) else ""
        [[[explained]]] = await asked.rows(
            f"{settings}{EXPLAIN}{statement.removeprefix(NEWEST_FIRST)}",
            parameters,
        )
        reading.add(explained["Plan"])
    return answer, reading
