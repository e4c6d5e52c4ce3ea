"""What finalizing an hour reads grows with its series, and not with these times the owners, whatever PostgreSQL expects."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted

from meter.store.maintenance import minute_totals
from meter.store.maintenance.partitions import WEEK
from meter.store.maintenance.partitions import week_of
from meter.store.maintenance.rollups import METER_TOTALS
from meter.store.maintenance.rollups import OWNER_ROLLUPS
from tests.integration.test_store_rollups import running
from tests.plans import EXPLAIN
from tests.plans import RowsRead
from tests.store_messages import message

HOUR = timedelta(hours=1)
START = datetime.combine(week_of(datetime.now(UTC)) - WEEK, datetime.min.time(), UTC)
PROJECTS, METERS = 150, ("cpu", "memory.usage", "disk.read.bytes")
SERIES = PROJECTS * len(METERS)
FACTOR = 20
"""How many times a table of all series and owners may be read by all statements together: two for each series, and not hundreds."""


def minute(at: datetime) -> list[Any]:
    """The messages of a minute: each project has an instance, whose meters have a sample each."""
    return [
        message(meter, n, at=at + timedelta(seconds=n % 50), resource_id=f"domain-{n}", project_id=f"project-{n}")
        for n in range(PROJECTS)
        for meter in METERS
    ]


class RolledBack(Exception):
    """Raised to roll a transaction back."""


@pytest.mark.parametrize("is_analyzed", [True, False], ids=["analyzed", "never analyzed"])
@pytest_twisted.ensureDeferred
async def test_owners_of_an_hour_are_looked_up_and_not_compared_with_each_other(
    postgresql, monkeypatch, is_analyzed: bool
) -> None:
    monkeypatch.setattr(minute_totals, "MIN_SAMPLES_PER_MINUTE", 1)
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        for hour in range(2):
            await store.write(minute(START + hour * HOUR))
            await store.maintenance.finalize(START + (hour + 1) * HOUR)
        if is_analyzed:
            postgresql.execute("ANALYZE", dsn)
        read = await _read_again(store, START + HOUR)
        assert postgresql.execute("SELECT count(*) FROM minute_totals WHERE series_id > 0", dsn) == [(2 * SERIES,)]
    for name, rows in read.items():
        assert rows.tables.total() + rows.intermediate.total() <= FACTOR * 2 * SERIES, f"{name}:\n{rows.text()}"


async def _read_again(store: Any, hour: datetime) -> dict[str, RowsRead]:
    """Return what the statements read that make the totals of ``hour`` again, which is rolled back."""
    read: dict[str, RowsRead] = {}
    period = {"start": hour, "hours": 1, "min_samples_per_minute": 1, "max_samples": 10_000}
    changes = {
        "of owners": OWNER_ROLLUPS,
        "of meters": METER_TOTALS,
        "of changed series": minute_totals.CHANGED_METERS,
        "of changed series, deleted": minute_totals.DELETE_OF_SERIES,
        "of changed meters": minute_totals.MAKE_OF_METERS,
        "by minute": minute_totals.DELETE_OF_HOUR,
    }
    statements = [*changes.items(), ("by minute", minute_totals.MAKE_OF_HOUR)]

    async def work(session: Any) -> None:
        rows = await session.rows("SELECT id, meter_id FROM series WHERE resource_id > 0")
        period["series"], period["meters"] = ([*{*column}] for column in zip(*rows, strict=True))
        for name, text in statements:
            rows = read.setdefault(name, RowsRead())
            for statement in text.split(";"):
                [[[output]]] = await session.rows(EXPLAIN + statement, period)
                rows.add(output["Plan"])
        raise RolledBack

    with pytest.raises(RolledBack):
        await store.maintenance._pool.run(work)
    return read
