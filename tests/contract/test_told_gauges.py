"""Gauges that only notifications tell of hold as long as the life of their resource lasts: in memory and in PostgreSQL."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import pytest_twisted

from tests.contract.test_usage import database
from tests.contract.test_usage import kept
from tests.contract.test_usage import measured
from tests.contract.test_usage import notified
from tests.contract.test_usage import on_postgresql
from tests.contract.test_usage import polled
from tests.contract.test_usage import store
from tests.contract.test_usage import told
from tests.usage_books import book
from tests.usage_books import october
from tests.usage_books import sku

__all__ = ["database", "on_postgresql", "store"]

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
SIZES = book(sku("size", "integral", "volume.size"))
DAYS_AGO = (40, 50, 100, 400)


DAYS = 4
END = OCTOBER + timedelta(days=DAYS)
"""Until when usage is computed."""


def days(number):
    return OCTOBER + timedelta(days=number)


def volume(event, size, at, resource="v1", *, project="p1", **metadata):
    """Return what one notification of Cinder tells."""
    count = 0 if event == "delete" else 1
    fields = {"project": project, "event": f"volume.{event}.end", "status": "deleted" if not count else "in-use"}
    return [
        notified("volume", count, at, resource, **fields, **metadata),
        notified("volume.size", size, at, resource, **fields, **metadata),
    ]


def gib_hours(found, project="p1"):
    """Return the sum of the quantities of a project, and of its unmetered seconds."""
    of_project = [atom for atom in found if atom[0] == project]
    return sum(atom[4] for atom in of_project), sum(atom[5] for atom in of_project)


async def refreshed(store):
    """Compute usage again, and return it."""
    await store.rating.usage.refresh(SIZES, october(SIZES), END)
    return await kept(store, SIZES)


async def as_computed(store, found):
    """Check that a computation as of the time of the kept usage gives ``found``."""
    as_of = await store.rating.usage.as_of(SIZES, october(SIZES))
    computed = store.rating.usage.computed(SIZES, october(SIZES), ["", "p1", "p2"], as_of)
    assert [each async for atom in computed if (each := told(atom))[2] <= DAYS] == found


@pytest_twisted.ensureDeferred
async def test_volume_that_was_told_once_is_billed_until_it_is_deleted(store):
    created = [each for ago in DAYS_AGO for each in volume("create", ago, days(-ago), f"v{ago:03}")]
    found = await measured(store, SIZES, created, now=END)
    assert found == [("p1", f"v{ago:03}", n + 1, "", Decimal(24 * ago), 0) for n in range(DAYS) for ago in DAYS_AGO]
    await as_computed(store, found)
    await store.write(volume("delete", 400, days(2.5), "v400"))
    found = await refreshed(store)
    assert gib_hours(found) == (24 * (DAYS * sum(DAYS_AGO[:-1]) + Decimal("2.5") * 400), 0)
    await as_computed(store, found)


@pytest_twisted.ensureDeferred
async def test_volume_that_exists_has_its_size_however_long_ago_it_was_told(store):
    prices = book(sku("v", "exists", resource_kind="volume", times_size=True))
    messages = [each for ago in DAYS_AGO for each in volume("create", ago, days(-ago), f"v{ago}")]
    found = await measured(store, prices, messages, now=END)
    assert gib_hours(found) == (sum(DAYS_AGO) * 24 * DAYS, 0)


@pytest_twisted.ensureDeferred
async def test_new_size_after_a_hundred_days_changes_it_from_then_on(store):
    messages = [*volume("create", 10, days(-100)), *volume("resize", 30, days(2.5))]
    found = await measured(store, SIZES, messages, now=END)
    assert gib_hours(found) == (24 * (Decimal("2.5") * 10 + (DAYS - Decimal("2.5")) * 30), 0)


@pytest_twisted.ensureDeferred
async def test_size_that_is_told_late_changes_all_days_until_the_next_one(store):
    found = await measured(store, SIZES, volume("create", 10, days(-100)), now=END)
    assert gib_hours(found) == (10 * 24 * DAYS, 0)
    await store.write(volume("resize", 20, days(-60)))
    assert gib_hours(await refreshed(store)) == (20 * 24 * DAYS, 0)
    await store.write(volume("resize", 40, days(1)))
    assert gib_hours(await refreshed(store)) == (24 * (20 + 40 * (DAYS - 1)), 0)
    await store.write(volume("resize", 50, days(-99)))
    found = await refreshed(store)
    assert gib_hours(found) == (24 * (20 + 40 * (DAYS - 1)), 0)
    await as_computed(store, found)


@pytest_twisted.ensureDeferred
async def test_what_the_former_owner_had_does_not_hold_on(store):
    messages = [
        *volume("create", 10, days(-300)),
        *volume("transfer.accept", 12, days(-200), project="p2"),
    ]
    found = await measured(store, SIZES, messages, now=END)
    assert (gib_hours(found), gib_hours(found, "p2")) == ((0, 0), (12 * 24 * DAYS, 0))


@pytest_twisted.ensureDeferred
async def test_deletion_a_hundred_days_ago_ends_it(store):
    messages = [*volume("create", 10, days(-300)), *volume("delete", 10, days(-100))]
    assert await measured(store, SIZES, messages, now=END) == []


@pytest_twisted.ensureDeferred
async def test_size_that_was_told_long_ago_fills_only_what_later_polls_leave(store):
    """What the service listed later came after what was told; what polls measured comes first where it holds."""
    listed = {"interval": 3600, "run": "exists", "status": "in-use"}
    messages = [
        *volume("create", 10, days(-100), "listed"),
        polled("volume.size", 20, days(-60), "listed", **listed),
        *volume("create", 10, days(-100), "measured"),
        polled("volume.size", 20, days(-60), "measured", run="other"),
        polled("volume.size", 30, days(1), "measured", interval=3600, run="another"),
    ]
    found = await measured(store, SIZES, messages, now=END)
    by_resource = {name: gib_hours([atom for atom in found if atom[1] == name]) for name in ("listed", "measured")}
    assert by_resource["measured"] == (10 * (24 * DAYS - 3) + 30 * 3, 0)
    assert by_resource["listed"] == (0, 0)
    await as_computed(store, found)


@pytest_twisted.ensureDeferred
async def test_without_a_life_nothing_holds_for_ever(store):
    """Nothing tells that the resource of this meter exists."""
    prices = book(sku("other", "integral", "other"))
    told_once = [notified("other", 5, days(-100), "thing")]
    assert await measured(store, prices, told_once, now=END) == []
