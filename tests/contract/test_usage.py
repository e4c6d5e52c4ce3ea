"""The contract of IUsage: the same tests for the in-memory store and for PostgreSQL."""

from __future__ import annotations

import random
import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import Place
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Tier
from meter.rating.book.price_book import Validity
from meter.rating.costs.unpriced_usage import unpriced_usage
from meter.rating.money.rating import in_order
from meter.rating.statements.annex import AnnexDigest
from meter.rating.statements.annex import annex_line
from meter.rating.usage.usage_store import IUsage
from meter.store import PostgresStore
from meter.testing import MemoryStore
from tests.archived import before_reads
from tests.packed import TABLES as PACKED_TABLES
from tests.spread import server_and_dsn
from tests.store_messages import message
from tests.usage_books import EVERY_KIND
from tests.usage_books import book
from tests.usage_books import in_zone
from tests.usage_books import october
from tests.usage_books import sku
from tests.waiting import until

DAY = datetime(2026, 10, 10, tzinfo=UTC)
END = datetime(2026, 10, 25, tzinfo=UTC)
OVER = datetime(2026, 11, 2, tzinfo=UTC)
TABLES = (
    'sample, voided_sample, series, meter, resource, project, "user", source, run, metadata, wire_format, signed_batch, unstored_entry,'
    " usage_sku, usage_values, usage_resource, usage_project, usage_day, usage_atom, usage_life, final_period, rollup, changed_series,"
    " retention_cutoff"
)


@pytest.fixture(scope="module")
def database(request):
    return request.getfixturevalue("postgresql").dsn_with_schema()


def opened(dsn):
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=1, writers=1, rating_connections=2)
    store.startService()
    pytest_twisted.blockon(Deferred.fromCoroutine(until(lambda: store.readiness().ready and store.rating.ready)))
    return store


@contextmanager
def emptied(server, dsn):
    """Provide the store in the database, and empty it in the end."""
    store = opened(dsn)
    yield store
    pytest_twisted.blockon(store.stopService())
    server.execute(f"TRUNCATE {TABLES}, {', '.join(PACKED_TABLES)}", dsn)


@pytest.fixture
def on_postgresql(request):
    with emptied(*server_and_dsn(request, "postgresql")) as store:
        yield store


@pytest.fixture(params=["memory", "postgresql", "packed", "archived", "spread"])
def store(request):
    if request.param == "memory":
        yield MemoryStore(reactor)
        return
    if request.param == "spread":
        with emptied(*server_and_dsn(request, "spread")) as store:
            yield store
        return
    store = request.getfixturevalue("on_postgresql")
    with before_reads(request, request.getfixturevalue("database")):
        yield store


def polled(meter, volume, at, resource="vm1", *, project="p1", run="boot", interval=300, type="gauge", **metadata):
    return message(
        meter,
        volume,
        at=at,
        type=type,
        resource_id=resource,
        project_id=project,
        metadata={**metadata, "_meter": {"interval": interval, "run": run}},
    )


def notified(meter, volume, at, resource="vm1", *, project="p1", event="compute.instance.update", **metadata):
    return message(
        meter, volume, at=at, resource_id=resource, project_id=project, metadata={**metadata, "event_type": event}
    )


def instance(state, at, resource="vm1", *, event="compute.instance.update", flavor="small", project="p1", volume=1):
    return notified(
        "instance", volume, at, resource, project=project, event=event, state=state, flavor={"name": flavor}
    )


def minutes(number):
    return DAY + timedelta(minutes=number)


async def measured(store, prices, messages, *, now=END):
    """Write messages and return the atoms as tuples."""
    await store.write(messages)
    await store.rating.usage.refresh(prices, october(prices), now)
    return await kept(store, prices)


async def kept(store, prices):
    found = store.rating.usage.atoms(prices, october(prices), ["", "p1", "p2"])
    return [told(atom) async for atom in found]


def told(atom):
    values = " ".join(atom.values.values())
    return atom.project_id, atom.resource_id, atom.day.day, values, atom.quantity, atom.unmetered_seconds


@pytest_twisted.ensureDeferred
async def test_a_store_provides_usage(store):
    assert verifyObject(IUsage, store.rating.usage)


@pytest_twisted.ensureDeferred
async def test_existence_is_measured_to_the_second_by_flavor_and_without_stops(store):
    prices = book(sku("vm", "exists", resource_kind="instance", states=("active",), by=("flavor",)))
    assert await measured(
        store,
        prices,
        [
            instance("active", minutes(600), event="compute.instance.create.end"),
            instance("stopped", minutes(660.5)),
            instance("active", minutes(720)),
            instance("active", minutes(780), flavor="large", event="compute.instance.resize.confirm.end"),
            instance("deleted", minutes(1500), volume=0, flavor="large", event="compute.instance.delete.end"),
        ],
    ) == [
        ("p1", "vm1", 10, "large", Decimal("11.000000000"), 0),
        ("p1", "vm1", 10, "small", Decimal("2.008333333"), 0),
        ("p1", "vm1", 11, "large", Decimal("1.000000000"), 0),
    ]


@pytest_twisted.ensureDeferred
async def test_a_gauge_is_integrated_from_the_value_carried_in_until_the_life_ends(store):
    prices = book(sku("memory", "integral", "memory"))
    found = await measured(
        store,
        prices,
        [
            instance("active", minutes(0), event="compute.instance.create.end"),
            *(polled("memory", 2, minutes(5 * n)) for n in range(288)),
            *(polled("memory", 3, minutes(1440 + 5 * n)) for n in range(3)),
            instance("deleted", minutes(1452), volume=0, event="compute.instance.delete.end"),
        ],
    )
    # A day with 2, then 12 minutes with 3.
    assert found == [
        ("p1", "vm1", 10, "", Decimal("48.000000000"), 0),
        ("p1", "vm1", 11, "", Decimal("0.600000000"), 0),
    ]


@pytest_twisted.ensureDeferred
async def test_a_gap_that_nothing_explains_is_unmetered_and_one_within_a_run_is_not(store):
    prices = book(sku("memory", "integral", "memory"))
    found = await measured(
        store,
        prices,
        [
            polled("memory", 1, minutes(0), "lost", run="a"),
            polled("memory", 1, minutes(60), "lost", run="b"),
            polled("memory", 1, minutes(0), "same", run="a"),
            polled("memory", 1, minutes(60), "same", run="a"),
        ],
    )
    # Three intervals are carried; the last value is too.
    assert found == [
        ("p1", "lost", 10, "", Decimal("0.500000000"), 45 * 60),
        ("p1", "same", 10, "", Decimal("1.250000000"), 0),
    ]


@pytest_twisted.ensureDeferred
async def test_time_in_which_an_instance_is_off_is_not_unmetered_but_silence_is(store):
    """It is off before its first start, runs for two hours, and is off until the agent is no longer heard of."""
    prices = book(sku("memory", "integral", "memory"))
    on = range(120, 144)
    found = await measured(
        store,
        prices,
        [
            *(polled("instance", 1, minutes(5 * n), state="active" if n in on else "stopped") for n in range(288)),
            *(polled("memory", 2, minutes(5 * n)) for n in on if n != 130),
            message(
                "memory", 0, at=minutes(720), resource_id="vm1", project_id="p1", metadata={"_meter": {"interval": 300}}
            ),
        ],
        now=minutes(2880),
    )
    assert found == [
        ("p1", "vm1", 10, "", Decimal("4.000000000"), 0),
        ("p1", "vm1", 11, "", Decimal(0), 86400),
    ]


@pytest_twisted.ensureDeferred
async def test_a_life_that_turns_out_to_be_a_stop_changes_what_is_unmetered(store):
    prices = book(sku("memory", "integral", "memory"))
    created = instance("active", minutes(0), event="compute.instance.create.end")
    found = await measured(store, prices, [created, polled("memory", 0, minutes(60))], now=minutes(1440))
    assert found == [("p1", "vm1", 10, "", Decimal(0), 86400 - 900)]
    await store.write([instance("stopped", minutes(0.5), event="compute.instance.power_off.end")])
    await store.rating.usage.refresh(prices, october(prices), minutes(1440))
    assert await kept(store, prices) == [("p1", "vm1", 10, "", Decimal(0), 30)]


@pytest_twisted.ensureDeferred
async def test_polls_and_notifications_of_one_gauge_are_billed_once(store):
    prices = book(sku("memory", "integral", "memory"))
    found = await measured(
        store,
        prices,
        [
            instance("active", minutes(0), event="compute.instance.create.end"),
            notified("memory", 4, minutes(0)),
            *(polled("memory", 2, minutes(60 + 5 * n)) for n in range(12)),
            instance("deleted", minutes(240), volume=0, event="compute.instance.delete.end"),
        ],
    )
    # An hour of 4 before the polls, an hour and ten minutes of 2, then 4 until the end.
    expected = Decimal(4) + 2 * (Decimal(55) + 15) / 60 + 4 * (Decimal(240 - 60 - 70)) / 60
    assert found == [("p1", "vm1", 10, "", expected.quantize(Decimal("1e-9")), 0)]


@pytest_twisted.ensureDeferred
async def test_a_counter_counts_by_run_and_a_step_belongs_to_the_day_of_its_end(store):
    prices = book(sku("cpu", "increase", "cpu"))
    found = await measured(
        store,
        prices,
        [
            polled("cpu", 100, minutes(1430), run="a", type="cumulative"),
            polled("cpu", 150.25, minutes(1450), run="a", type="cumulative"),
            polled("cpu", 0, minutes(1460), run="b", type="cumulative"),
            polled("cpu", 7, minutes(1465), run="b", type="cumulative"),
        ],
    )
    assert found == [("p1", "vm1", 11, "", Decimal("57.250000000"), 0)]


HOSTS = {
    "moved": ([(0, "hv1", 1000), (5, "hv1", 1004), (10, "hv2", 1), (15, "hv2", 3)], 4 + 3),
    "moved at midnight": ([(-5, "hv1", 1000), (-1, "hv1", 1004), (0, "hv2", 1), (5, "hv2", 3)], 4 + 3),
    "there and back": (
        [(0, "hv1", 100), (5, "hv1", 110), (10, "hv2", 20), (15, "hv2", 50), (20, "hv1", 200), (25, "hv1", 205)],
        10 + 50 + 205,
    ),
    "there and back at midnight": (
        [(-15, "hv1", 100), (-10, "hv1", 110), (-5, "hv2", 20), (-1, "hv2", 50), (0, "hv1", 200), (5, "hv1", 205)],
        10 + 50 + 205,
    ),
    "still listed": (
        [(0, "hv1", 1000), (5, "hv1", 1003), (6, "hv2", 1), (10, "hv1", 1004), (15, "hv1", 1004), (16, "hv2", 2)],
        4 + 2,
    ),
    "while it arrives": (
        [(0, "hv1", 1000), (1, "hv2", 0), (5, "hv1", 1003), (6, "hv2", 0), (10, "hv1", 1004), (11, "hv2", 2)],
        4 + 2,
    ),
}


@pytest.mark.parametrize(("polls", "expected"), HOSTS.values(), ids=HOSTS)
@pytest_twisted.ensureDeferred
async def test_a_counter_of_ceilometers_agents_counts_from_zero_where_it_arrives(store, polls, expected):
    prices = book(sku("cpu", "increase", "cpu"))
    on_hosts = [
        message(
            "cpu",
            volume,
            at=minutes(at),
            type="cumulative",
            resource_id="vm1",
            project_id="p1",
            metadata={"host": host},
        )
        for at, host, volume in polls
    ]
    found = await measured(store, prices, on_hosts)
    assert sum(atom[4] for atom in found) == expected
    query = StatisticsQuery(filter=SampleFilter(equals={"meter": "cpu"}), aggregates=(Aggregate("increase"),))
    [row] = await store.statistics(query)
    assert row.values[Aggregate("increase").label] == expected


@pytest_twisted.ensureDeferred
async def test_a_resource_that_moves_bills_each_project_for_its_time(store):
    prices = book(sku("memory", "integral", "memory"), sku("vm", "exists", resource_kind="instance"))
    found = await measured(
        store,
        prices,
        [
            instance("active", minutes(0), event="compute.instance.create.end"),
            *(polled("memory", 1, minutes(5 * n)) for n in range(25)),
            instance("active", minutes(123), project="p2"),
            *(polled("memory", 1, minutes(5 * n), project="p2") for n in range(25, 48)),
            instance("deleted", minutes(240), project="p2", volume=0, event="compute.instance.delete.end"),
        ],
    )
    assert (
        found
        == [
            ("p1", "vm1", 10, "", Decimal("2.050000000"), 0),
            ("p2", "vm1", 10, "", Decimal("1.950000000"), 0),
        ]
        * 2
    )


@pytest_twisted.ensureDeferred
async def test_what_clients_submit_is_not_billed(store):
    prices = book(sku("requests", "sum", "requests"))
    submitted = message("requests", -5, at=minutes(1), type="delta", project_id="p1", source="p1:mine")
    made = message("requests", 7, at=minutes(2), type="delta", project_id="p1", source="openstack")
    found = await measured(store, prices, [submitted, made])
    assert [atom[4] for atom in found] == [Decimal("7.000000000")]


@pytest_twisted.ensureDeferred
async def test_repeating_a_refresh_changes_nothing_and_a_late_sample_changes_its_day_and_what_follows(store):
    prices = book(sku("cpu", "increase", "cpu"))
    period, usage = october(prices), store.rating.usage
    first = [polled("cpu", 10 * n, DAY + timedelta(days=n), type="cumulative") for n in (1, 3)]
    before = await measured(store, prices, first)
    as_of = await usage.as_of(prices, period)
    assert await usage.refresh(prices, period, END) == 0
    assert await usage.as_of(prices, period) >= as_of
    await store.write([polled("cpu", 15, DAY + timedelta(days=2), type="cumulative")])
    assert await usage.refresh(prices, period, END) > 0
    assert await kept(store, prices) == [
        ("p1", "vm1", 12, "", Decimal("5.000000000"), 0),
        ("p1", "vm1", 13, "", Decimal("15.000000000"), 0),
    ]
    assert [told(atom) async for atom in usage.computed(prices, period, ["p1"], as_of)] == before


@pytest_twisted.ensureDeferred
async def test_a_poll_that_explains_a_gap_changes_the_day_before(store):
    prices = book(sku("memory", "integral", "memory"))
    found = await measured(store, prices, [polled("memory", 1, minutes(1320))])
    assert found == [("p1", "vm1", 10, "", Decimal("0.250000000"), 0)]
    await store.write([polled("memory", 1, minutes(1500))])
    await store.rating.usage.refresh(prices, october(prices), END)
    assert [atom[2:5] for atom in await kept(store, prices)] == [
        (10, "", Decimal("2.000000000")),
        (11, "", Decimal("1.250000000")),
    ]


@pytest_twisted.ensureDeferred
async def test_a_late_deletion_ends_gauges_that_were_integrated_before(store):
    prices = book(sku("memory", "integral", "memory"))
    created = instance("active", minutes(0), event="compute.instance.create.end")
    found = await measured(store, prices, [created, notified("memory", 2, minutes(0))])
    assert len(found) == 15
    await store.write([instance("deleted", minutes(60), volume=0, event="compute.instance.delete.end")])
    assert await store.rating.usage.refresh(prices, october(prices), END) == 15
    assert await kept(store, prices) == [("p1", "vm1", 10, "", Decimal("2.000000000"), 0)]


@pytest_twisted.ensureDeferred
async def test_the_present_day_counts_until_now_and_later_days_do_not(store):
    prices = book(sku("vm", "exists", resource_kind="instance"))
    created = instance("active", minutes(0), event="compute.instance.create.end")
    assert [atom[2:5] for atom in await measured(store, prices, [created], now=minutes(90))] == [
        (10, "", Decimal("1.500000000"))
    ]
    await store.rating.usage.refresh(prices, october(prices), minutes(1500))
    assert [atom[2:5] for atom in await kept(store, prices)] == [
        (10, "", Decimal("24.000000000")),
        (11, "", Decimal("1.000000000")),
    ]


@pytest.mark.parametrize(
    ("timezone", "first_hours"),
    [("Asia/Kolkata", "18.5"), ("America/New_York", "4"), ("Europe/Paris", "22")],
)
@pytest_twisted.ensureDeferred
async def test_days_are_those_of_the_book(store, timezone, first_hours):
    prices = book(sku("vm", "exists", resource_kind="instance"), timezone=timezone)
    created = instance("active", DAY, event="compute.instance.create.end")
    found = await measured(store, prices, [created], now=END)
    assert found[0][4] == Decimal(first_hours).quantize(Decimal("1e-9"))
    assert sum(atom[4] for atom in found) == 15 * 24


@pytest_twisted.ensureDeferred
async def test_a_day_of_twenty_five_hours_counts_as_such(store):
    prices = book(sku("vm", "exists", resource_kind="instance"), timezone="Europe/Paris")
    created = instance("active", datetime(2026, 10, 24, 12, tzinfo=UTC), event="compute.instance.create.end")
    found = await measured(store, prices, [created], now=OVER)
    assert [(atom[2], atom[4]) for atom in found][:3] == [(24, Decimal(10)), (25, Decimal(25)), (26, Decimal(24))]


@pytest.mark.parametrize("by", [("flavor", "state"), ("flavor",)])
@pytest_twisted.ensureDeferred
async def test_order_is_that_of_the_annex_whatever_the_values_are(store, by):
    prices = book(sku("vm", "exists", resource_kind="instance", by=by, minimum=Decimal(1000)), per_resource=("vm",))
    summed = book(sku("vm", "exists", resource_kind="instance", by=by))
    changes = [
        ("b", "active"),
        ("b b", "stopped"),
        ("c", "active"),
        ("b!", "stopped"),
        ("b", "stopped"),
        ("a", "stopped"),
    ]
    messages = [
        instance(state, minutes(60 * hour), resource, flavor=flavor)
        for resource in ("vm1", "vm2")
        for hour, (flavor, state) in enumerate(changes)
    ]
    await store.write(messages)
    usage, period = store.rating.usage, october(prices)
    await usage.refresh(prices, period, END)

    annex = AnnexDigest()
    async for row in usage.annex(prices, period, ["p1"]):
        annex.add(row, annex_line(row))
    atoms = [atom async for atom in usage.atoms(prices, period, ["p1"])]
    totals = [atom async for atom in usage.totals(summed, period, ["p1"])]
    computed = [atom async for atom in usage.computed(prices, period, ["p1"], datetime.now(UTC))]

    assert annex.rows == 2 * len({change if len(by) == 2 else change[0] for change in changes})
    assert atoms == in_order(atoms)
    assert totals == in_order(totals)
    assert len(totals) < len(atoms)
    assert [(each.day, each.values, each.quantity) for each in computed if each.day.day < 20] == [
        (each.day, each.values, each.quantity) for each in atoms if each.day.day < 20
    ]


@pytest_twisted.ensureDeferred
async def test_totals_and_annex_are_sums_of_the_atoms(store):
    usage, period = store.rating.usage, october(EVERY_KIND)
    await store.write(cloud(1))
    await usage.refresh(EVERY_KIND, period, END)
    projects = await usage.projects(EVERY_KIND, period)
    atoms = [atom async for atom in usage.atoms(EVERY_KIND, period, projects)]
    totals = [atom async for atom in usage.totals(EVERY_KIND, period, projects)]
    annex = [row async for row in usage.annex(EVERY_KIND, period, projects)]
    assert set(projects) <= {"p1", "p2", "p3"}
    for id in EVERY_KIND.skus:
        total = sum(atom.quantity for atom in atoms if atom.sku == id)
        assert total == sum(atom.quantity for atom in totals if atom.sku == id)
        assert total == sum(sum(row.days.values()) for row in annex if row.sku == id)
        assert all(bool(atom.resource_id) == (id == "e-cpu") for atom in totals if atom.sku == id)
    unmetered = sum(atom.unmetered_seconds for atom in atoms)
    assert unmetered == sum(atom.unmetered_seconds for atom in totals)
    assert [row for row in annex if row.project_id == "p1"] == [
        row async for row in usage.annex(EVERY_KIND, period, ["p1"])
    ]


SPLIT = book(
    sku("count", "sum", "count"), sku("cpu", "increase", "cpu"), sku("ram", "integral", "ram", factor=Fraction(1))
)
"""SKUs whose days are summed, without factors."""
ZONES = ("UTC", "Asia/Kolkata")
"""Midnight is at minute 1440 in the first one, at 1110 in the second."""


def count(minute, volume, interval=0):
    """Return a delta, polled if it has an interval."""
    return message(
        "count",
        volume,
        at=minutes(minute),
        type="delta",
        resource_id="vm1",
        project_id="p1",
        metadata={"_meter": {"interval": interval}} if interval else {},
    )


def cpu(minute, volume, run=""):
    """Return a sample of a counter, polled if it has a run."""
    if run:
        return polled("cpu", volume, minutes(minute), run=run, type="cumulative")
    return message("cpu", volume, at=minutes(minute), type="cumulative", resource_id="vm1", project_id="p1")


def ram(minute, volume, run):
    return polled("ram", volume, minutes(minute), run=run)


async def sums_by_zone(store, messages):
    """Return the sum of the days by zone, as tuples of SKU, quantity and unmetered time; midnights differ by zone."""
    await store.write(messages)
    found = {}
    for zone in ZONES:
        prices = in_zone(SPLIT, zone)
        await store.rating.usage.refresh(prices, october(prices), OVER)
        atoms = [atom async for atom in store.rating.usage.atoms(prices, october(prices), ["", "p1", "p2"])]
        found[zone] = [
            (
                id,
                sum(atom.quantity for atom in atoms if atom.sku == id),
                sum(atom.unmetered_seconds for atom in atoms if atom.sku == id),
            )
            for id in sorted(SPLIT.skus)
            if any(atom.sku == id for atom in atoms)
        ]
    return found


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([count(1436, 3, 300), count(1439, 1), count(1441, 0.1, 300)], [("count", Decimal("3.1"), 0)]),
        ([count(1436, 3, 300), count(1439, 1), count(1445, 0.1, 300)], [("count", Decimal("4.1"), 0)]),
        ([cpu(1429, 100, "a"), cpu(1430, 100), cpu(1435, 150), cpu(1441, 150, "a")], [("cpu", Decimal(50), 0)]),
        ([cpu(1429, 100, "a"), cpu(1430, 100), cpu(1435, 150), cpu(9000, 150, "a")], [("cpu", Decimal(50), 0)]),
        ([cpu(1425, 0, "a"), cpu(1430, 50, "a"), cpu(1429, 40), cpu(1445, 60)], [("cpu", Decimal(50), 0)]),
        ([cpu(1430, 50, "a"), cpu(1429, 40), cpu(1445, 60)], [("cpu", Decimal(20), 0)]),
        ([ram(1380, 2, "a"), ram(1500, 2, "b")], [("ram", Decimal(3600), 105 * 60)]),
        ([ram(1380, 2, "a"), ram(4380, 2, "b")], [("ram", Decimal(3600), 2985 * 60)]),
        ([ram(1300, 2, "a"), ram(1360, 1, "b"), ram(1500, 2, "a")], [("ram", Decimal(7200 + 900 + 1800), 125 * 60)]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_midnight_between_samples_changes_nothing(store, messages, expected):
    assert await sums_by_zone(store, messages) == dict.fromkeys(ZONES, expected)


@pytest_twisted.ensureDeferred
async def test_a_poll_of_the_next_day_takes_away_what_was_told_of_the_day_before(store):
    prices = SPLIT
    found = await measured(store, prices, [count(1436, 3, 300), count(1439, 1)], now=OVER)
    assert [atom[4] for atom in found] == [Decimal(4)]
    await store.write([count(1441, 0.1, 300)])
    await store.rating.usage.refresh(prices, october(prices), OVER)
    assert [atom[4] for atom in await kept(store, prices)] == [Decimal(3), Decimal("0.1")]


@pytest_twisted.ensureDeferred
async def test_a_step_of_a_run_takes_away_what_was_told_on_all_days_that_it_spans(store):
    first = [cpu(100, 100, "a"), cpu(200, 100), cpu(300, 150), cpu(1700, 170)]
    found = await measured(store, SPLIT, first, now=OVER)
    assert [(atom[2], atom[4]) for atom in found] == [(10, Decimal(50)), (11, Decimal(20))]
    await store.write([cpu(3000, 170, "a")])
    await store.rating.usage.refresh(SPLIT, october(SPLIT), OVER)
    assert [(atom[2], atom[4]) for atom in await kept(store, SPLIT)] == [(12, Decimal(70))]


@pytest.mark.parametrize("seed", range(2))
@pytest_twisted.ensureDeferred
async def test_the_days_are_the_whole_wherever_midnight_is(store, seed):
    """Polls with gaps, runs that alternate and others who tell the same: over four days, in zones with different midnights."""
    rng, messages, total = random.Random(seed), [], 0
    at = 1300.0
    while at < 7000:
        at += rng.choice((1, 3, 5, 5, 40, 1200))
        total += rng.randrange(9)
        run = rng.choice(("a", "a", "b", ""))
        messages.append(cpu(at, total, run))
        messages.append(count(at, rng.randrange(1, 9), 300 if run else 0))
        if run:
            messages.append(ram(at, rng.randrange(1, 9), run))
    found = await sums_by_zone(store, messages)
    assert len({tuple(each) for each in found.values()}) == 1, found


def cloud(seed):
    """Return a month of odd messages: two sources, runs that end, gaps, transfers, ties, late starts."""
    rng = random.Random(seed)
    messages = []

    def add(made):
        messages.append(made)

    def fields(**more):
        return {"message_id": str(uuid.UUID(int=rng.getrandbits(128))), **more}

    for n in range(4):
        vm, project = f"vm{n}", f"p{1 + n % 3}"
        at = DAY + timedelta(seconds=rng.randrange(200_000), microseconds=rng.randrange(10**6))
        state, flavor, run, counter = "active", "small", f"{n}-0", 0.0
        ends = at + timedelta(hours=rng.randrange(20, 80))
        add(instance(state, at, vm, event="compute.instance.create.end", project=project))
        while at < ends:
            at += timedelta(seconds=rng.choice((300, 300, 300, 301.5, 1200, 9000)))
            if rng.random() < 0.02:
                state = rng.choice(("active", "stopped", "paused"))
                add(instance(state, at, vm, flavor=flavor, project=project))
            if rng.random() < 0.01:
                flavor = rng.choice(("small", "large"))
                add(instance(state, at + timedelta(seconds=1), vm, flavor=flavor, project=project))
            if rng.random() < 0.005:
                project = f"p{rng.randrange(1, 4)}"
                add(instance(state, at + timedelta(seconds=2), vm, flavor=flavor, project=project))
            if rng.random() < 0.02:
                run, counter = f"{n}-{rng.randrange(9)}", 0.0
            counter += rng.choice((0, 1, 0.1, 12345.678, 2.0**53, 1e9 / 3))
            zone = {"zone": rng.choice(("a", "b"))} if rng.random() < 0.1 else {"zone": "a"}
            common = {"resource": vm, "project": project, "run": run, **zone}
            if rng.random() < 0.9:
                add(polled("memory", rng.choice((512, 0.1, 1 / 3)), at, **common))
            if rng.random() < 0.9:
                add(polled("cpu", counter, at, type="cumulative", flavor={"name": flavor}, **common))
            if rng.random() < 0.05:
                add(notified("memory", 768, at + timedelta(seconds=rng.choice((0, 17))), vm, project=project, zone="c"))
            if rng.random() < 0.1:
                add(
                    message(
                        "cpu",
                        counter,
                        at=at,
                        type="cumulative",
                        resource_id=vm,
                        project_id=project,
                        metadata={"host": f"h{rng.randrange(2)}"},
                    )
                )
            if rng.random() < 0.3:
                add(
                    message(
                        "requests", rng.choice((1, -2.5, 0.1)), at=at, type="delta", resource_id=vm, project_id=project
                    )
                )
            if rng.random() < 0.1:
                add(polled("requests", 3, at + timedelta(seconds=5), type="delta", **common))
            if rng.random() < 0.8:
                add(polled("rate", rng.random() * 100, at, f"port{n}", project=project))
        if rng.random() < 0.7:
            add(
                instance(
                    "deleted", at, vm, volume=0, flavor=flavor, project=project, event="compute.instance.delete.end"
                )
            )
    for n in range(3):
        at, size = DAY + timedelta(seconds=rng.randrange(100_000)), 10
        for _ in range(200):
            at += timedelta(seconds=rng.choice((600, 600, 600, 7200)))
            size += rng.choice((0, 0, 0, 0, 2.5))
            add(polled("volume.size", size, at, f"volume{n}", interval=600, run="exists", status="in-use"))
    rng.shuffle(messages)
    return messages


@pytest.mark.parametrize("seed", range(2))
@pytest_twisted.ensureDeferred
async def test_postgresql_answers_as_memory_does(on_postgresql, seed):
    memory, messages = MemoryStore(reactor), cloud(seed)
    prices = in_zone(EVERY_KIND, random.Random(seed).choice(("UTC", "Asia/Kolkata", "America/St_Johns")))
    period, projects = october(prices), ["", "p1", "p2", "p3"]
    cut = len(messages) // 2
    for store in (memory, on_postgresql):
        for some in (messages[:cut], messages[cut:]):
            await store.write(some)
            await store.rating.usage.refresh(prices, period, OVER)
    expected = [atom async for atom in memory.rating.usage.atoms(prices, period, projects)]
    found = [atom async for atom in on_postgresql.rating.usage.atoms(prices, period, projects)]
    assert found == expected
    assert len(found) > 100
    # As of then, everything is computed from samples.
    as_of = await on_postgresql.rating.usage.as_of(prices, period)
    computed = [atom async for atom in on_postgresql.rating.usage.computed(prices, period, projects, as_of)]
    assert computed == expected
    totals = [atom async for atom in memory.rating.usage.totals(prices, period, projects)]
    assert [atom async for atom in on_postgresql.rating.usage.totals(prices, period, projects)] == totals
    annex = [row async for row in memory.rating.usage.annex(prices, period, projects)]
    assert [row async for row in on_postgresql.rating.usage.annex(prices, period, projects)] == annex
    assert await on_postgresql.rating.usage.projects(prices, period) == await memory.rating.usage.projects(
        prices, period
    )


@pytest.mark.parametrize("seed", range(2))
@pytest_twisted.ensureDeferred
async def test_usage_is_what_the_statistics_of_the_same_days_are(store, seed):
    """For one project in UTC, with polls only: volumes are multiples of 1/8, of which doubles are exact."""
    rng = random.Random(seed)
    messages = []
    for vm in ("vm1", "vm2"):
        at, counter, run = DAY + timedelta(minutes=rng.randrange(600)), 0, 0
        while at < DAY + timedelta(days=3):
            if rng.random() < 0.3:
                run, counter = run + 1, rng.choice((counter, 0, 5000))
            counter += rng.randrange(1, 8000) / 8
            metadata = {"host": f"h{run}"} if vm == "vm1" else {"_meter": {"interval": 300, "run": f"{vm}-{run}"}}
            for meter, volume, type in (
                ("cpu", counter, "cumulative"),
                ("requests", counter / 2, "delta"),
                ("rate", counter, "gauge"),
            ):
                messages.append(
                    message(meter, volume, at=at, type=type, resource_id=vm, project_id="p1", metadata=metadata)
                )
            at += timedelta(minutes=rng.choice((5, 5, 30, 700)))
    rng.shuffle(messages)
    prices = book(sku("cpu", "increase", "cpu"), sku("peak", "maximum", "rate"), sku("requests", "sum", "requests"))
    await store.write(messages)
    await store.rating.usage.refresh(prices, october(prices), END)
    atoms = [atom async for atom in store.rating.usage.atoms(prices, october(prices), ["p1"])]
    for id, meter, function in (("cpu", "cpu", "increase"), ("requests", "requests", "sum"), ("peak", "rate", "max")):
        rows = await store.statistics(
            StatisticsQuery(
                filter=SampleFilter(equals={"meter": meter}, start=DAY),
                aggregates=(Aggregate(function),),
                period=None if function == "max" else 86400,
                groupby=("resource_id",),
            )
        )
        day = date(2026, 10, 1)  # a maximum is one of the period
        expected = {
            (row.group["resource_id"], day if function == "max" else row.period_start.date()): row.values[function]
            for row in rows
        }
        found = {(atom.resource_id, atom.day): float(atom.quantity) for atom in atoms if atom.sku == id}
        assert found == {key: value for key, value in expected.items() if value}
        assert len(found) >= 2


def test_the_period_begins_on_the_first_day():
    assert october(EVERY_KIND).first == date(2026, 10, 1)


FLAVORED = sku("vm", "exists", resource_kind="instance", states=("active",), by=("flavor",))
PLAIN = sku("vm2", "exists", resource_kind="instance", states=("active",))


class Pauses:
    """Slices that are over at every look, and count the pauses."""

    over = True
    count = 0

    async def pause(self):
        self.count += 1


def price(of, **fields):
    tiers = (Tier(up_to=None, list_price=Decimal(1), price=Decimal(1)),)
    return Price(id=f"{of}-{fields}", sku=of, place=Place(file="x.toml", line=1), tiers=tiers, **fields)


@pytest_twisted.ensureDeferred
async def test_unpriced_usage_is_that_of_all_accounts_by_sku_and_values(store):
    prices = replace(
        book(FLAVORED, PLAIN),
        prices=(
            price("vm", match={"flavor": "small"}),
            price(
                "vm",
                match={"flavor": "large"},
                scope=PriceScope(project="p2"),
                validity=Validity(since=date(2026, 10, 11)),
            ),
            price("vm2"),
        ),
    )
    names = iter(range(100))

    def lives(project, flavor, begin, end):
        resource = f"vm{next(names)}"
        at = {"project": project, "flavor": flavor}
        yield instance("active", begin, resource, event="compute.instance.create.end", **at)
        yield instance("deleted", end, resource, volume=0, event="compute.instance.delete.end", **at)

    begin, midnight, end = minutes(22 * 60), minutes(24 * 60), minutes(26 * 60)
    await store.write(
        [
            *lives("p1", "small", begin, end),
            *lives("p1", "large", begin, end),
            *lives("p1", "large", begin, midnight),
            *lives("p2", "large", begin, end),
            *lives("p2", "huge", midnight, end),
            *lives("", "huge", begin, end),
        ]
    )
    await store.rating.usage.refresh(prices, october(prices), END)
    directory, pauses = PriceDirectory(books={"test": prices}, accounts={}), Pauses()

    async def found(now):
        groups = await unpriced_usage(store.rating, store, directory, now, pauses)
        return [
            (
                each.period.name,
                each.sku,
                each.values["flavor"],
                each.quantity,
                each.resources,
                each.projects,
                each.accounts,
            )
            for each in groups
        ]

    assert await found(END) == [
        ("2026-10", "vm", "huge", Decimal(2), 1, 1, 1),
        ("2026-10", "vm", "large", Decimal(8), 3, 2, 2),
    ]
    assert pauses.count >= 5
    assert await found(OVER) == await found(END)  # also of the period before
    assert await found(OVER + timedelta(days=40)) == []
    acme = Account(id="acme", name="", book="test", projects=(Membership(id="p1"), Membership(id="p2")))
    directory = PriceDirectory(books={"test": prices}, accounts={"acme": acme})
    assert [each[-2:] for each in await found(END)] == [(1, 1), (2, 1)]
    elsewhere = replace(acme, book="other")
    directory = PriceDirectory(
        books={"test": prices, "other": replace(prices, name="other", default=False)}, accounts={"acme": elsewhere}
    )
    assert {(await unpriced_usage(store.rating, store, directory, END, pauses))[0].book} == {"other"}
