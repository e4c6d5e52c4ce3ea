"""Names of projects, domains and users in PostgreSQL: how long they stay, and many of them."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest_twisted

from meter.identity_names import IdentityFilter
from meter.identity_report import IdentityChange
from meter.identity_report import IdentityName
from meter.identity_report import IdentityReport
from meter.sample import utc_text
from meter.sample_identity import WEEK
from meter.store.maintenance.maintenance import Retention
from tests.integration.test_store_rollups import running
from tests.store_messages import message

NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)


def listing(weeks_ago, kind="project", **names):
    at = utc_text(NOW - weeks_ago * WEEK)
    entries = tuple(IdentityName(kind, id, name, at, "d" if kind != "domain" else None) for id, name in names.items())
    return IdentityReport("keystone", f"{kind} {weeks_ago}", at, entries, (kind,))


def change(weeks_ago, id, what):
    at = utc_text(NOW - weeks_ago * WEEK)
    return IdentityReport("notification", "m", at, changes=(IdentityChange("project", id, at, what),))


async def names(store, kind="project"):
    found, _ = await store.identities(IdentityFilter(kind=kind), 100)
    return {each.id: [period.name for period in each.names] for each in found}


async def record(store, *reports):
    for report in reports:
        await store.record_identities(report)


@pytest_twisted.ensureDeferred
async def test_names_of_deleted_identities_stay_while_they_have_samples(postgresql):
    async with running(postgresql.dsn_with_schema(), retention=Retention(days=70, rollup_days=70)) as store:
        await store.write([message(at=NOW - 9 * WEEK, project_id="metered", user_id="ann")])
        await record(
            store,
            listing(20, metered="red", unused="blue", recent="green"),
            listing(20, "user", ann="Ann", bob="Bob"),
            listing(8, "user", zoe="Zoe"),
            listing(8, recent="green"),
            listing(1, other="grey"),
        )
        await store.maintenance.run()
        assert await names(store) == {"metered": ["red"], "recent": ["green"], "other": ["grey"]}
        assert await names(store, "user") == {"ann": ["Ann"], "zoe": ["Zoe"]}

        # The samples and rollups expire, then the ids, and with them the names.
        later = NOW + 4 * WEEK
        await store.maintenance.finalize(later)
        await store.maintenance.expire(later)
        await store.maintenance.collect_garbage()
        await store.maintenance.collect_identity_names(later)
        assert await names(store) == {"recent": ["green"], "other": ["grey"]}
        assert await names(store, "user") == {"zoe": ["Zoe"]}


@pytest_twisted.ensureDeferred
async def test_former_names_stay_as_long_as_samples_of_their_time(postgresql):
    async with running(postgresql.dsn_with_schema(), retention=Retention(days=70, rollup_days=70)) as store:
        await store.write([message(at=NOW - 5 * WEEK, project_id="p")])
        await record(store, listing(20, p="first"), listing(15, p="second"), listing(3, p="third"))
        await store.maintenance.run()
        assert await names(store) == {"p": ["second", "third"]}


@pytest_twisted.ensureDeferred
async def test_without_retention_only_names_without_samples_go(postgresql):
    async with running(postgresql.dsn_with_schema()) as store:
        await store.write([message(at=NOW - 30 * WEEK, project_id="metered")])
        await record(
            store, listing(50, metered="red", p="one", unused="blue"), listing(40, p="two"), listing(30, p="two")
        )
        await store.maintenance.run()
        assert await names(store) == {"metered": ["red"], "p": ["one", "two"]}


@pytest_twisted.ensureDeferred
async def test_domain_stays_while_an_identity_in_it_does(postgresql):
    async with running(postgresql.dsn_with_schema()) as store:
        await record(store, listing(20, "domain", d="Customers", e="Empty", f="Other"), listing(20, p="red"))
        await record(store, listing(15, "domain", f="Other"))
        await store.maintenance.run()
        assert await names(store, "domain") == {"d": ["Customers"], "f": ["Other"]}


@pytest_twisted.ensureDeferred
async def test_history_is_the_same_after_old_evidence_is_deleted(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        await record(store, listing(20), change(19.5, "p", "created"), listing(19, p="red"))
        await record(store, change(18.8, "p", "updated"), change(18.5, "p", "updated"), change(17.5, "p", "updated"))
        await record(store, listing(18, p="red"), listing(17, p="crimson"), change(16.5, "p", "deleted"), listing(16))
        await record(store, listing(15, p="again"), listing(1, p="again"))
        before, _ = await store.identities(IdentityFilter(), 10)
        assert [(each.name, each.exact_since, each.exact_until) for each in before[0].names] == [
            ("red", True, True),
            ("crimson", True, True),
            ("again", False, False),
        ]
        await store.maintenance.run()
        assert (await store.identities(IdentityFilter(), 10))[0] == before
        assert postgresql.execute("SELECT count(*) FROM identity_list", dsn) == [(1,)]
        assert postgresql.execute("SELECT count(*) FROM identity_change", dsn) == [(2,)]


@pytest_twisted.ensureDeferred
async def test_unchanged_list_writes_one_row(postgresql):
    dsn = postgresql.dsn_with_schema()
    async with running(dsn) as store:
        projects = {f"{n:04}": f"project {n}" for n in range(1000)}
        await record(store, listing(2, **projects))
        count = "SELECT max(xmin::text::bigint) FROM identity_name"
        newest = postgresql.execute(count, dsn)
        for weeks in (1.9, 1.8, 1.7):
            await record(store, listing(weeks, **projects))
        assert postgresql.execute(count, dsn) == newest
