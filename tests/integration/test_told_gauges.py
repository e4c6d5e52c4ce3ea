"""Gauges that were told of long ago, in PostgreSQL: voided, expired, and what it costs to look for them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import pytest_twisted
from twisted.internet.threads import deferToThread

from meter.rating.period import BillingPeriod
from meter.store.maintenance.maintenance import Retention
from meter.store.rating.usage_sql import measuring
from tests.contract.test_told_gauges import SIZES
from tests.contract.test_told_gauges import volume
from tests.contract.test_usage import notified
from tests.contract.test_usage import polled
from tests.integration.test_store_usage import VOID
from tests.integration.test_store_usage import rating
from tests.packed import BlockingSession
from tests.packed import result
from tests.plans import EXPLAIN
from tests.plans import PARTITION

NOW = datetime.now(UTC)
PERIOD = BillingPeriod.containing(NOW, SIZES.timezone).previous
DAYS = (PERIOD.until - PERIOD.first).days
DAY_SECONDS = 86400


async def refreshed(store, now=NOW):
    """Return quantity and unmetered seconds by day."""
    await store.rating.usage.refresh(SIZES, PERIOD, now)
    atoms = store.rating.usage.atoms(SIZES, PERIOD, ["p1"])
    return {atom.day.day: (atom.quantity, atom.unmetered_seconds) async for atom in atoms}


async def expired(store, before):
    """Expire the samples of the weeks that are over at ``before``."""
    later = before + timedelta(days=7)
    await store.maintenance.finalize(later)
    await store.maintenance.expire(later)
    [[left]] = await store.maintenance._pool.rows("SELECT count(*) FROM sample")
    return left


async def _execute(session, statement, parameters):
    await session.count(statement, parameters)


@pytest_twisted.ensureDeferred
async def test_voiding_what_was_told_long_ago_changes_all_days(postgresql):
    async with rating(postgresql.dsn_with_schema()) as store:
        created, resized = (PERIOD.start - timedelta(days=days) for days in (100, 60))
        await store.write([*volume("create", 10, created), *volume("resize", 20, resized)])
        assert await refreshed(store) == {n: (Decimal(20 * 24), 0) for n in range(1, DAYS + 1)}
        await store.maintenance._pool.run(_execute, VOID, [20])
        assert await refreshed(store) == {n: (Decimal(10 * 24), 0) for n in range(1, DAYS + 1)}


@pytest_twisted.ensureDeferred
async def test_what_was_told_and_has_expired_is_unmetered_from_then_on(postgresql):
    """What was computed before stays; the day on which it expires becomes unmetered as a whole."""
    expires = PERIOD.start + timedelta(days=9, hours=12)
    async with rating(postgresql.dsn_with_schema(), retention=Retention(days=7, rollup_days=0)) as store:
        await store.write(volume("create", 10, PERIOD.start - timedelta(days=100)))
        before = {n: (Decimal(240), 0) for n in range(1, 10)}
        assert await refreshed(store, expires) == {**before, 10: (Decimal(120), 0)}
        assert await expired(store, PERIOD.start - timedelta(days=20)) == 0
        found = await refreshed(store)
        assert found == {**before, **{n: (Decimal(0), DAY_SECONDS) for n in range(10, DAYS + 1)}}
        # Late samples of others on days that were computed take nothing away.
        await store.write(
            [notified("volume.size", 1, PERIOD.start + timedelta(days=n), "other", project="p2") for n in (2, 20)]
        )
        assert await refreshed(store) == found
        # A deletion that is told late does.
        await store.write(volume("delete", 10, PERIOD.start + timedelta(days=4)))
        assert await refreshed(store) == {n: before[n] for n in range(1, 5)}


@pytest_twisted.ensureDeferred
async def test_what_expired_before_it_was_ever_computed_is_unmetered(postgresql):
    async with rating(postgresql.dsn_with_schema(), retention=Retention(days=7, rollup_days=0)) as store:
        await store.write(
            [
                *volume("create", 10, PERIOD.start - timedelta(days=100)),
                *volume("create", 1, PERIOD.start - timedelta(days=30), "recent"),
            ]
        )
        assert await expired(store, PERIOD.start - timedelta(days=50)) == 2
        await refreshed(store)
        of_volumes = Counter()
        async for atom in store.rating.usage.atoms(SIZES, PERIOD, ["p1"]):
            of_volumes[atom.resource_id, "quantity"] += atom.quantity
            of_volumes[atom.resource_id, "unmetered"] += atom.unmetered_seconds
        assert of_volumes == {
            ("v1", "quantity"): 0,
            ("v1", "unmetered"): DAYS * DAY_SECONDS,
            ("recent", "quantity"): DAYS * 24,
            ("recent", "unmetered"): 0,
        }


def weeks_read(dsn):
    """Return the rows that are read of each week of samples for a day of the period, and how often each is looked at."""
    parts, parameters = measuring(SIZES.skus["size"])
    day = PERIOD.start + timedelta(days=9)
    parameters |= {"after": 0, "through": 2**31 - 1, "start": day, "finish": day + timedelta(days=1)}
    parameters |= {"as_of": "infinity", "cutoff": None}
    session = BlockingSession(dsn)
    try:
        result(session.count("SET enable_seqscan = off"))
        [[[plan]]] = result(session.rows(f"{EXPLAIN}WITH {parts} SELECT * FROM computed", parameters))
    finally:
        session.close()
    rows, looks, nodes = Counter(), Counter(), [plan["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        week = PARTITION.fullmatch(node.get("Relation Name", ""))
        if week and node["Actual Loops"]:
            rows[week[2]] += round(node["Actual Rows"] * node["Actual Loops"])
            looks[week[2]] += node["Actual Loops"]
    return rows, looks


def read_before(counted, time):
    """Return the sum of what was counted of weeks that are over before ``time``."""
    return sum(number for week, number in counted.items() if week < (time - timedelta(days=7)).strftime("%Y_%m_%d"))


@pytest_twisted.ensureDeferred
async def test_only_what_was_told_and_whose_resource_exists_is_looked_for_in_all_weeks(postgresql):
    dsn = postgresql.dsn_with_schema()
    look_back = PERIOD.start + timedelta(days=9) - timedelta(days=45)
    listed = {"interval": 3600, "run": "exists", "status": "in-use"}
    count = 5
    async with rating(dsn) as store:
        messages = []
        for ago in range(0, 180, 10):
            at = PERIOD.start - timedelta(days=ago)
            # Of those that exist, and of those that a service lists no more.
            names = [f"{kind}-{n}" for kind in ("polled", *(["gone"] if ago > 100 else [])) for n in range(count)]
            messages += [polled(meter, 1, at, name, **listed) for name in names for meter in ("volume", "volume.size")]
        deleted = PERIOD.start - timedelta(days=100)
        for n in range(count):
            messages += volume("create", 1, deleted - timedelta(days=70), f"deleted-{n}")
            messages += volume("delete", 1, deleted, f"deleted-{n}")
        await store.write(messages)
        await refreshed(store, PERIOD.start + timedelta(days=2))
        rows, looks = await deferToThread(weeks_read, dsn)
        assert (read_before(rows, look_back), read_before(looks, look_back)) == (0, 0)
        await store.write([each for n in range(count) for each in volume("create", 1, deleted, f"told-{n}")])
        await refreshed(store, PERIOD.start + timedelta(days=2))
        rows, looks = await deferToThread(weeks_read, dsn)
        # The time of the newest one, and the sample; of those of others none.
        assert read_before(rows, look_back) == 2 * count
