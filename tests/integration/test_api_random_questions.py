"""Random questions of old billing scripts: the API's responses equal those of a computation that knows nothing of Meter's."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from statistics import pstdev
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import pytest_twisted

from tests.api_client import ApiClient
from tests.integration.test_api_on_postgresql import request
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import running
from tests.store_messages import message

QUESTIONS = int(os.environ.get("METER_RANDOM_QUESTIONS", "12"))
"""Of each kind."""

HOURS = 30
COUNT = 400
METERS = [
    ("ram", "gauge", "MB"),
    ("ram", "gauge", "MiB"),
    ("requests", "delta", "request"),
    ("cpu", "cumulative", "ns"),
]
METADATA: list[dict[str, Any]] = [
    {},
    {"size": 0},
    {"size": 1},
    {"size": "1"},
    {"size": 1.5},
    {"size": True},
    {"size": None},
    {"flavor": {"name": "m1", "extra": {"ssd": True}}},
    {"flavor": {"name": "m2"}, "disks": [{"id": "a"}, 7]},
    {"when": "2026-11-16T01:00:00"},
    {"name": "ünï ☃", "a.b": "dotted"},
]


@dataclass(frozen=True, slots=True)
class Row:
    """A sample, as the naive computation knows it."""

    id: str
    meter: str
    type: str
    unit: str
    volume: float
    resource_id: str
    project_id: str | None
    user_id: str | None
    source: str
    at: datetime
    metadata: Mapping[str, Any]


def drawn_rows(drawn: random.Random) -> list[Row]:
    times = drawn.sample(range(HOURS * 3600), COUNT)  # distinct, so that orders are total
    rows = []
    for number, second in enumerate(times):
        meter, type, unit = drawn.choice(METERS)
        second = round(second / 3600) * 3600 + number / 1000 if drawn.random() < 0.1 else second
        rows.append(
            Row(
                f"id{number}",
                *(meter, type, unit),
                drawn.randrange(-100 if type == "gauge" else 0, 1000) / 4,
                drawn.choice(["vm-1", "vm/2 x", "vm+3"]),
                drawn.choice(["blue", "red", "red", None]),
                drawn.choice(["ann", "bob", None]),
                drawn.choice(["one", "two"]),
                START + timedelta(seconds=second),
                drawn.choice(METADATA),
            )
        )
    return rows


# --- conditions --------------------------------------------------------------------------------------------------------

Condition = Callable[[Row], bool]


def value_at(row: Row, key: str) -> Any:
    if key == "a.b":
        return row.metadata.get("a.b")
    value: Any = row.metadata
    for part in key.replace("[", ".[").split("."):
        if part.startswith("["):
            index = int(part[1:-1])
            value = value[index] if isinstance(value, list) and index < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def same(one: Any, other: Any) -> bool:
    """Compare as the typed columns of Ceilometer do: a text is no number, a boolean is none either."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    return type(one) is type(other) and one == other


def written(when: datetime, drawn: random.Random) -> str:
    """Return a time in one of the forms that clients send."""
    plain = when.replace(tzinfo=None)
    hours = drawn.choice([-5, 2, 0])
    zoned = (when + timedelta(hours=hours)).replace(
        tzinfo=None
    ).isoformat() + f"{'-' if hours < 0 else '+'}{abs(hours):02}:00"
    return drawn.choice([plain.isoformat(), plain.isoformat(" "), plain.isoformat() + "Z", zoned])


SIMPLE: list[tuple[tuple[str, str, str], Condition]] = [
    *(
        (("resource_id", each, ""), lambda row, each=each: row.resource_id == each)
        for each in ("vm-1", "vm/2 x", "vm+3", "")
    ),
    *((("project", each, ""), lambda row, each=each: row.project_id == each) for each in ("blue", "red", "green")),
    (("project_id", "None", ""), lambda row: row.project_id is None),
    (("user", "None", ""), lambda row: row.user_id is None),
    (("user_id", "ann", ""), lambda row: row.user_id == "ann"),
    (("source", "two", ""), lambda row: row.source == "two"),
    *(
        ((f"metadata.{key}", text, kind), lambda row, key=key, value=value: same(value_at(row, key), value))
        for key, text, kind, value in [
            ("size", "0", "", 0),
            ("size", "1", "", 1),
            ("size", "1", "string", "1"),
            ("size", "'1'", "", "1"),
            ("size", "1", "integer", 1),
            ("size", "1", "float", 1.0),
            ("size", "1.5", "float", 1.5),
            ("size", "1.5", "", 1.5),
            ("size", "True", "", True),
            ("size", "true", "boolean", True),
            ("flavor.name", "m1", "", "m1"),
            ("flavor.extra.ssd", "True", "boolean", True),
            ("disks[0].id", "a", "", "a"),
            ("disks[1]", "7", "integer", 7),
            ("name", "ünï ☃", "string", "ünï ☃"),
            ("a.b", "dotted", "", "dotted"),
            ("when", "2026-11-16T01:00:00", "string", "2026-11-16T01:00:00"),
        ]
    ),
    (("metadata.size", "None", ""), lambda row: value_at(row, "size") is None),
]


@dataclass(slots=True)
class Filter:
    """Terms of ``q``, what they mean, and the range that they ask for."""

    terms: list[tuple[str, str, str, str]]
    conditions: list[Condition]
    start: datetime | None = None
    end: datetime | None = None
    offset: int = 0
    after_start: bool = False
    through_end: bool = False

    def matches(self, row: Row) -> bool:
        shift = timedelta(minutes=self.offset)
        if self.start is not None:
            start = self.start - shift
            if row.at < start or (self.after_start and row.at == start):
                return False
        if self.end is not None:
            end = self.end + shift
            if row.at > end or (not self.through_end and row.at == end):
                return False
        return all(condition(row) for condition in self.conditions)

    def pairs(self) -> list[tuple[str, str]]:
        return [
            pair
            for field, op, value, kind in self.terms
            for pair in (("q.field", field), ("q.op", op), ("q.value", value), ("q.type", kind))
        ]


def drawn_filter(drawn: random.Random, rows: list[Row], *, times: bool = True) -> Filter:
    found = Filter([], [])
    fields = set()
    for (field, value, kind), condition in drawn.sample(SIMPLE, drawn.choice([0, 0, 1, 1, 2])):
        name = {"project": "project_id", "user": "user_id"}.get(field, field)
        if name not in fields:
            fields.add(name)
            found.terms.append((field, "eq", value, kind))
            found.conditions.append(condition)
    if times and drawn.random() < 0.7:
        edge = drawn.choice([drawn.choice(rows).at, START + timedelta(hours=drawn.randrange(HOURS))])
        found.start, found.after_start = edge, drawn.random() < 0.5
        found.terms.append(("timestamp", "gt" if found.after_start else "ge", written(edge, drawn), ""))
    if times and drawn.random() < 0.6:
        edge = drawn.choice([drawn.choice(rows).at, START + timedelta(hours=drawn.randrange(HOURS))])
        found.end, found.through_end = edge, drawn.random() < 0.5
        found.terms.append(("timestamp", "le" if found.through_end else "lt", written(edge, drawn), ""))
    if (found.start or found.end) and drawn.random() < 0.2:
        found.offset = drawn.randrange(1, 300)
        found.terms.append(("search_offset", "eq", str(found.offset), ""))
    drawn.shuffle(found.terms)
    return found


# --- statistics --------------------------------------------------------------------------------------------------------

GROUPS: dict[str, Callable[[Row], Any]] = {
    "user_id": lambda row: row.user_id,
    "project_id": lambda row: row.project_id,
    "resource_id": lambda row: row.resource_id,
    "source": lambda row: row.source,
    "resource_metadata.flavor.name": lambda row: value_at(row, "flavor.name"),
}


def percentile(volumes: list[float], percent: float) -> float:
    ordered = sorted(volumes)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def aggregates(rows: list[Row]) -> dict[str, float]:
    volumes = [row.volume for row in rows]
    ordered = sorted(rows, key=lambda row: row.at)
    return {
        "max": max(volumes),
        "min": min(volumes),
        "sum": sum(volumes),
        "avg": sum(volumes) / len(volumes),
        "count": len(volumes),
        "stddev": pstdev(volumes),
        "first": ordered[0].volume,
        "last": ordered[-1].volume,
        "percentile/50": percentile(volumes, 50),
        "percentile/95": percentile(volumes, 95),
        **{
            f"cardinality/{name}": len({GROUPS[name](row) for row in rows} - {None})
            for name in ("resource_id", "user_id", "project_id")
        },
    }


def following(rows: Iterable[Row]) -> dict[str, float]:
    """Return for each gauge without a run or interval its volume times the hours to the next one of its resource.

    It counts to the next one of its unit, or of another unit if its own has ended.
    """
    found: dict[str, float] = {}
    resources: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.at):
        resources.setdefault((row.meter, row.resource_id), []).append(row)
    for each in resources.values():
        for number, row in enumerate(each):
            later = each[number + 1 :]
            if after := next((one for one in later if one.unit == row.unit), later[0] if later else None):
                found[row.id] = row.volume * (after.at - row.at).total_seconds() / 3600
    return found


STANDARD = ("max", "min", "sum", "avg", "count")


def expected_statistics(
    rows: list[Row], asked: Filter, period: int, groupby: list[str], wanted: list[str]
) -> list[dict[str, Any]]:
    matching = [row for row in rows if asked.matches(row)]
    if not matching:
        return []
    begin = min(row.at for row in matching)
    if asked.start is not None:
        begin = asked.start - timedelta(minutes=asked.offset)
    windows: dict[tuple[Any, ...], list[Row]] = {}
    for row in matching:
        number = int((row.at - begin) / timedelta(seconds=period)) if period else 0
        windows.setdefault((number, row.unit, *(GROUPS[name](row) for name in groupby)), []).append(row)
    found = []
    for (number, unit, *group), each in windows.items():
        first, last = min(row.at for row in each), max(row.at for row in each)
        edges = (begin + timedelta(seconds=period * number), begin + timedelta(seconds=period * (number + 1)))
        duration_start = first if asked.start is None else max(first, asked.start)
        duration_end = last if asked.end is None else min(last, asked.end)
        valid = duration_start <= duration_end
        values = aggregates(each)
        found.append(
            {
                "unit": unit,
                "groupby": dict(zip(groupby, group, strict=True)) if groupby else None,
                "period": period,
                "period_start": edges[0] if period else first,
                "period_end": edges[1] if period else last,
                "duration": (duration_end - duration_start).total_seconds() if valid else None,
                "duration_start": duration_start if valid else None,
                "duration_end": duration_end if valid else None,
                **{name: values[name] for name in (wanted or STANDARD) if name in STANDARD},
                **({"aggregate": {name: values[name] for name in wanted}} if wanted else {}),
            }
        )
    return found


def comparable(rows: list[dict[str, Any]]) -> list[Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=None).isoformat()
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        return pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float | int) else value

    def order(row: dict[str, Any]) -> str:
        return repr((plain(row["period_start"]), row["unit"], row["groupby"]))

    return [plain(row) for row in sorted(rows, key=order)]


# --- complex queries ---------------------------------------------------------------------------------------------------

FIELDS: dict[str, Callable[[Row], Any]] = {
    "meter": lambda row: row.meter,
    "counter_name": lambda row: row.meter,
    "counter_volume": lambda row: row.volume,
    "volume": lambda row: row.volume,
    "counter_unit": lambda row: row.unit,
    "resource": lambda row: row.resource_id,
    "project_id": lambda row: row.project_id,
    "user": lambda row: row.user_id,
    "source": lambda row: row.source,
    "timestamp": lambda row: row.at,
    "message_id": lambda row: row.id,
    "metadata.size": lambda row: value_at(row, "size"),
    "metadata.flavor.name": lambda row: value_at(row, "flavor.name"),
}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: one == other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    "=<": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
    "=>": lambda one, other: one >= other,
}


def drawn_expression(drawn: random.Random, rows: list[Row], depth: int = 0) -> tuple[Any, Condition]:
    pick = drawn.random()
    if depth < 3 and pick < 0.35:
        kind = drawn.choice(["and", "or", "AND", "Or"])
        parts = [drawn_expression(drawn, rows, depth + 1) for _ in range(drawn.choice([2, 2, 3]))]
        combine = all if kind.lower() == "and" else any
        return {kind: [text for text, _ in parts]}, lambda row: combine(condition(row) for _, condition in parts)
    if depth < 3 and pick < 0.5:
        text, condition = drawn_expression(drawn, rows, depth + 1)
        return {"not": text}, lambda row: not condition(row)
    name = drawn.choice(list(FIELDS))
    read = FIELDS[name]
    known = sorted(
        {value for row in rows if (value := read(row)) is not None and not isinstance(value, bool)}, key=repr
    )
    value = drawn.choice(known)
    typed = isinstance(value, str)

    def comparable_with(found: Any) -> bool:
        return found is not None and not isinstance(found, bool) and isinstance(found, str) == typed

    shown = written(value, drawn) if isinstance(value, datetime) else value
    if name != "timestamp" and pick > 0.85:
        values = drawn.sample(known, min(len(known), drawn.choice([1, 2, 3])))
        return {"in": {name: values}}, lambda row: any(same(read(row), each) for each in values)
    if typed and pick > 0.75:
        part = value[: drawn.randrange(1, len(value) + 1)]
        escaped = "".join("\\" + each if each in "+/.-" else each for each in part)
        return {"=~": {name: f"^{escaped}"}}, lambda row: isinstance(read(row), str) and read(row).startswith(part)
    if pick > 0.7:
        return {"!=": {name: shown}}, lambda row: not (comparable_with(read(row)) and read(row) == value)
    operator = drawn.choice(list(OPERATORS))
    compare = OPERATORS[operator]
    return {operator: {name: shown}}, lambda row: comparable_with(read(row)) and compare(read(row), value)


# --- the tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(int(os.environ.get("METER_RANDOM_SEEDS", "1"))))
@pytest_twisted.ensureDeferred
async def test_responses_equal_a_computation_that_knows_nothing_of_meter(postgresql: Any, seed: int) -> None:
    drawn = random.Random(seed)
    rows = drawn_rows(drawn)
    steps = following(row for row in rows if row.type == "gauge")
    async with running(postgresql.dsn_with_schema()) as store:
        for part in (rows[:300], rows[300:]):
            await store.write(
                [
                    message(
                        row.meter,
                        row.volume,
                        at=row.at,
                        type=row.type,
                        unit=row.unit,
                        resource_id=row.resource_id,
                        project_id=row.project_id,
                        user_id=row.user_id,
                        source=row.source,
                        metadata=row.metadata,
                        message_id=row.id,
                    )
                    for row in part
                ]
            )
            await store.maintenance.finalize(START + timedelta(hours=90))
        api = ApiClient(store=store)
        for _ in range(QUESTIONS):
            await _ask_for_samples(api, drawn, rows)
            await _ask_for_statistics(api, drawn, rows)
            await _ask_for_integrals(api, drawn, rows, steps)
            await _ask_a_complex_query(api, drawn, rows)
            await _ask_for_resources(api, drawn, rows)


async def _ask_for_samples(api: ApiClient, drawn: random.Random, rows: list[Row]) -> None:
    asked = drawn_filter(drawn, rows)
    meter, limit = drawn.choice(["", "ram", "cpu", "none"]), drawn.choice([3, 50, 10_000])
    path = (f"/v2/meters/{meter}" if meter else "/v2/samples") + "?" + urlencode([*asked.pairs(), ("limit", limit)])
    status, found = await request(api, path)
    matching = sorted(
        (row for row in rows if asked.matches(row) and meter in ("", row.meter)), key=lambda row: row.at, reverse=True
    )
    assert status == 200, (path, found)
    key = "message_id" if meter else "id"
    assert [row[key] for row in found] == [row.id for row in matching[:limit]], path


async def _ask_for_statistics(api: ApiClient, drawn: random.Random, rows: list[Row]) -> None:
    asked = drawn_filter(drawn, rows)
    meter, _, _ = drawn.choice(METERS)
    period = drawn.choice([0, 0, 3600, 1000, 86_400, 7])
    groupby = drawn.sample(list(GROUPS), drawn.choice([0, 0, 1, 2]))
    wanted = drawn.sample(list(aggregates(rows)), drawn.choice([0, 0, 1, 3]))
    wanted.sort(key=lambda name: "/" not in name)
    pairs = [*asked.pairs(), *(("groupby", name) for name in groupby)]
    if period:
        pairs.append(("period", str(period)))
    for name in wanted:
        function, _, parameter = name.partition("/")
        pairs.append(("aggregate.func", function))
        if parameter:
            pairs.append(("aggregate.param", parameter))
    path = f"/v2/meters/{meter}/statistics?{urlencode(pairs)}"
    status, found = await request(api, path)
    assert status == 200, (path, found)
    expected = expected_statistics([row for row in rows if row.meter == meter], asked, period, groupby, wanted)
    assert comparable(found) == comparable(expected), path


async def _ask_for_integrals(api: ApiClient, drawn: random.Random, rows: list[Row], steps: Mapping[str, float]) -> None:
    asked = drawn_filter(drawn, rows)
    asked.terms = [term for term in asked.terms if term[0] not in ("timestamp", "search_offset")]
    asked.start = asked.end = None
    asked.offset = 0
    groupby = drawn.sample(list(GROUPS), drawn.choice([0, 1, 2]))
    pairs = [*asked.pairs(), ("aggregate.func", "integral"), *(("groupby", name) for name in groupby)]
    path = f"/v2/meters/ram/statistics?{urlencode(pairs)}"
    status, found = await request(api, path)
    assert status == 200, (path, found)
    totals: dict[str, float] = {}
    for row in rows:
        if row.meter == "ram" and asked.matches(row):
            key = repr((row.unit, [GROUPS[name](row) for name in groupby]))
            totals[key] = totals.get(key, 0.0) + steps.get(row.id, 0.0)
    answered = {
        repr((row["unit"], [row["groupby"][name] for name in groupby])): row["aggregate"]["integral"] for row in found
    }
    assert answered == {key: pytest.approx(value, rel=1e-9, abs=1e-6) for key, value in totals.items()}, path


async def _ask_a_complex_query(api: ApiClient, drawn: random.Random, rows: list[Row]) -> None:
    expression, condition = drawn_expression(drawn, rows)
    limit, descending = drawn.choice([5, "7", 10_000]), drawn.random() < 0.5
    order = drawn.choice(["timestamp", "volume"])
    orderby = [{order: "DESC" if descending else "asc"}]
    if order == "volume":
        orderby.append({"timestamp": "asc"})
    query = {"filter": msgspec.json.encode(expression).decode(), "orderby": msgspec.json.encode(orderby).decode()}
    status, found = await request(api, "/v2/query/samples", {**query, "limit": limit})
    assert status == 200, (expression, found)
    matching = sorted((row for row in rows if condition(row)), key=lambda row: row.at)
    if order == "volume":
        matching.sort(key=lambda row: row.volume, reverse=descending)
    elif descending:
        matching.reverse()
    assert [row["id"] for row in found] == [row.id for row in matching[: int(limit)]], (expression, orderby)


async def _ask_for_resources(api: ApiClient, drawn: random.Random, rows: list[Row]) -> None:
    asked = drawn_filter(drawn, rows)
    asked.terms.append(("project_id", "eq", "red", ""))
    asked.terms = [term for term in asked.terms if term[0] != "project" and term[2] != "None"]
    asked.terms = [term for term in asked.terms if not term[0].startswith(("metadata", "user", "source"))]
    if not any(term[0] == "resource_id" for term in asked.terms):
        asked.conditions = []
    else:
        [wanted] = [term[2] for term in asked.terms if term[0] == "resource_id"]
        asked.conditions = [lambda row: row.resource_id == wanted]
    asked.conditions.append(lambda row: row.project_id == "red")
    path = "/v2/resources?" + urlencode([*asked.pairs(), ("meter_links", "0")])
    status, found = await request(api, path)
    assert status == 200, (path, found)
    expected: dict[str, tuple[str, str]] = {}
    for row in rows:
        if asked.matches(row):
            text = row.at.replace(tzinfo=None).isoformat()
            first, last = expected.get(row.resource_id, (text, text))
            expected[row.resource_id] = (min(first, text), max(last, text))
    answered = {row["resource_id"]: (row["first_sample_timestamp"], row["last_sample_timestamp"]) for row in found}
    assert answered == expected, path
