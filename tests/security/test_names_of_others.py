"""What a tenant can ask takes the same work whatever others call their resources, users, meters and metadata.

Each question is asked twice: once it fits data of another project, once it fits nothing at all. PostgreSQL must read the same rows
for both, and none of the names of others. Otherwise the time of an answer tells a name, character by character.
"""

from __future__ import annotations

from collections.abc import Awaitable
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from meter.api.auth.requester import Requester
from meter.api.auth.restriction import restrict
from meter.query import And
from meter.query import Comparison
from meter.query import Expression
from meter.query import In
from meter.query import MetadataMatch
from meter.query import Not
from meter.query import Or
from meter.query import Order
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from tests.integration.test_store_rollups import running
from tests.plans import RowsRead
from tests.plans import count_rows_read
from tests.store_messages import message

MINE = Requester(is_admin=False, project_id="mine")
OWN, OTHERS = 8, 400
BEGAN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
SINCE = Comparison("recorded_at", ">=", BEGAN - timedelta(days=1))
SECRET, NOTHING = "acme", "acmf"
"""The beginning of what the other project calls everything, and that of nothing."""

ANY_NAME = SampleFilter()


def of(project: str, prefix: str, n: int) -> Any:
    return message(
        f"{prefix}.meter" if n % 2 else "cpu",
        n,
        at=BEGAN + timedelta(seconds=n),
        unit=f"{prefix}-unit" if n % 4 == 3 else "ns",
        resource_id=f"{prefix}-vm-{n}",
        user_id=f"{prefix}-user",
        source=f"{prefix}-source",
        project_id=project,
        metadata={"name": f"{prefix}-web-{n}"},
        message_id=f"{'acce' if prefix == SECRET else '0000'}0000-0000-4000-8000-{n:012}",
    )


@pytest.fixture(scope="module")
def store(request: Any) -> Any:
    """A store with a few samples of the asker, and before, between and after them many of another project."""
    postgresql = request.getfixturevalue("postgresql")
    dsn = postgresql.dsn_with_schema()
    opening = running(dsn)
    store: Any = pytest_twisted.blockon(Deferred.fromCoroutine(opening.__aenter__()))

    async def fill() -> None:
        await store.write([of("theirs", SECRET, n) for n in range(OTHERS)])
        await store.write([of("mine", "own", 40 * n + n % 4) for n in range(OWN)])

    pytest_twisted.blockon(Deferred.fromCoroutine(fill()))
    postgresql.execute("VACUUM ANALYZE", dsn)
    yield store
    pytest_twisted.blockon(Deferred.fromCoroutine(opening.__aexit__(None, None, None)))


def name_conditions(start: str) -> dict[str, Expression]:
    """Conditions that fit texts which begin with ``start``."""
    conditions: dict[str, Expression] = {}
    for field in ("resource_id", "user_id", "source", "meter", "unit", "metadata.name"):
        conditions |= {
            f"{field} =~": Comparison(field, "~", f"^{start}"),
            f"not {field} =~": Not(Comparison(field, "~", f"^{start}")),
            f"{field} < and >": And((Comparison(field, ">=", start), Comparison(field, "<", start + "~"))),
            f"{field} =~ or a volume": Or((Comparison(field, "~", f"^{start}"), Comparison("volume", ">", 1e9))),
        }
    for field in ("message_id", "signature"):
        conditions[f"{field} =~"] = Comparison(field, "~", "^acc" if start == SECRET else "^fff")
    conditions["volume"] = Comparison("volume", ">", 320 if start == SECRET else 1e6)
    return conditions


def questions(store: Any, expression: Expression) -> dict[str, Callable[[], Awaitable[Any]]]:
    filter = restrict(SampleFilter(expression=expression), MINE)
    recorded = restrict(SampleFilter(expression=And((expression, SINCE))), MINE)
    ids = In("message_id", tuple(f"acce0000-0000-4000-8000-{n:012}" for n in range(20)))
    by_id = restrict(SampleFilter(expression=And((expression, ids))), MINE)
    return {
        "a page": lambda: store.samples(filter, 100),
        "a small page": lambda: store.samples(filter, 3),
        "in another order": lambda: store.samples(filter, 100, (Order("volume"), Order("resource_id"))),
        "recorded since": lambda: store.samples(recorded, 100, (Order("recorded_at"),)),
        "of given ids": lambda: store.samples(by_id, 100),
        "statistics": lambda: store.statistics(StatisticsQuery(filter=filter, groupby=("resource_id",))),
        "meters": lambda: store.meters(filter, 100, False),
        "unique meters": lambda: store.meters(filter, 100, True),
        "resources": lambda: store.resources(filter, 100),
    }


NAMES = ("resource", "user", "source")
ALL_CONDITIONS = tuple(name_conditions(SECRET))


@pytest.mark.parametrize("condition", ALL_CONDITIONS)
@pytest_twisted.ensureDeferred
async def test_work_does_not_depend_on_what_others_call_theirs(store: Any, condition: str) -> None:
    problems = []
    fitting, futile = (questions(store, name_conditions(start)[condition]) for start in (SECRET, NOTHING))
    for kind, ask in fitting.items():
        await ask()  # fills the caches of what the asker's samples refer to
        found, read = await count_rows_read(store._readers, ask)
        _, read_in_vain = await count_rows_read(store._readers, futile[kind])
        assert SECRET not in repr(found)
        if read.tables != read_in_vain.tables:
            problems.append(f"{kind}: {_difference(read, read_in_vain)}\n{read.text()}")
        foreign = {table: rows for table in NAMES if (rows := read.tables[table]) > 10 * OWN}
        if foreign:
            problems.append(f"{kind}: reads {foreign}\n{read.text()}")
    assert not problems, "\n\n".join(problems)


def _difference(one: RowsRead, other: RowsRead) -> dict[str, tuple[int, int]]:
    tables = one.tables.keys() | other.tables.keys()
    return {
        table: (one.tables[table], other.tables[table]) for table in tables if one.tables[table] != other.tables[table]
    }


@pytest.mark.parametrize("field", ["resource_id", "user_id", "source", "meter"])
@pytest_twisted.ensureDeferred
async def test_exact_name_of_another_costs_one_index_lookup(store: Any, field: Any) -> None:
    value = {"meter": "acme.meter", "resource_id": "acme-vm-1"}.get(field, f"acme-{field.removesuffix('_id')}")
    problems = []
    for filter in (SampleFilter(equals={field: value}), SampleFilter(expression=Comparison(field, "=", value))):
        wanted = restrict(filter, MINE)
        for kind, ask in {
            "samples": lambda wanted=wanted: store.samples(wanted, 100),
            "statistics": lambda wanted=wanted: store.statistics(StatisticsQuery(filter=wanted)),
            "meters": lambda wanted=wanted: store.meters(wanted, 100, False),
            "unique meters": lambda wanted=wanted: store.meters(wanted, 100, True),
            "resources": lambda wanted=wanted: store.resources(wanted, 100),
        }.items():
            found, read = await count_rows_read(store._readers, ask)
            assert not found
            others = {table: rows for table, rows in read.tables.items() if table in NAMES and rows > 10}
            if read.tables["series"] > 10 * OWN or read.tables["sample"] > 10 * OWN or others:
                problems.append(f"{kind}: {dict(read.tables)}\n{read.text()}")
    assert not problems, "\n\n".join(problems)


@pytest_twisted.ensureDeferred
async def test_metadata_of_others_are_not_read(store: Any) -> None:
    matching = restrict(SampleFilter(metadata=(MetadataMatch("name", "own-web-0"),)), MINE)
    [sample] = await store.samples(matching, 100)
    assert sample.resource_id == "own-vm-0"

    by_metadata = restrict(SampleFilter(expression=Comparison("metadata.name", "~", "^acme")), MINE)
    for ask in (
        lambda: store.statistics(StatisticsQuery(filter=by_metadata)),
        lambda: store.resources(by_metadata, 100),
        lambda: store.meters(by_metadata, 100, True),
    ):
        found, read = await count_rows_read(store._readers, ask)
        assert not found
        assert read.tables["metadata"] <= 4 * OWN, read.text()


@pytest_twisted.ensureDeferred
async def test_visible_samples_are_found_by_the_same_patterns(store: Any) -> None:
    for expression, expected in (
        (Comparison("resource_id", "~", "^own-vm-4[0-9]$"), 1),
        (Comparison("metadata.name", "~", "web"), OWN),
        (And((Comparison("user_id", "~", "^own"), Comparison("source", ">", "own"))), OWN),
        (Or((Comparison("metadata.name", "~", "web-0$"), Comparison("meter", "~", "^own[.]"))), 5),
        (Not(Comparison("resource_id", "~", "^own")), 0),
        (And((Comparison("message_id", "~", "^0000"), SINCE)), OWN),
    ):
        found = await store.samples(restrict(SampleFilter(expression=expression), MINE), 100)
        assert len(found) == expected, expression
