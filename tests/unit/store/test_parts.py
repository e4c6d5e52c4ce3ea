"""Small parts of the store: DSNs, weeks, caches of ids, conditions, migrations."""

from __future__ import annotations

from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta

import pytest
from twisted.internet import reactor

from meter.sample_identity import week_of
from meter.store import PostgresStore
from meter.store.maintenance.partitions import end_of_week
from meter.store.maintenance.partitions import partition_name
from meter.store.migrations import migrations
from meter.store.postgres.dsn import connection_parameters
from meter.store.postgres.dsn import described
from meter.store.postgres.sql import Sql
from meter.store.postgres.sql import filled
from meter.store.write.dimensions import CachedId
from meter.store.write.dimensions import IdCache


def parameters(dsn, **options):
    return connection_parameters(dsn, statement_timeout_seconds=30, application_name="meter", **options)


def test_dsn_is_completed_and_keeps_its_own_settings():
    found = parameters("postgresql://m:secret@db:6432/usage?application_name=billing&options=-c%20jit%3Don")

    assert (found["host"], found["port"], found["dbname"], found["password"]) == ("db", "6432", "usage", "secret")
    assert found["application_name"] == "billing"
    assert "-c timezone=UTC -c statement_timeout=30000" in found["options"]
    assert found["options"].endswith("-c jit=on")
    assert parameters("dbname=usage", read_only=True)["options"].count("read_only=on") == 1


def test_description_of_a_database_has_no_password():
    assert described(parameters("postgresql://m:secret@db:6432/usage")) == "PostgreSQL at db:6432/usage"
    assert described(parameters("dbname=usage")) == "PostgreSQL at the local socket/usage"


def test_invalid_dsn_is_refused_with_an_example():
    with pytest.raises(ValueError, match="postgresql://user@host/database"):
        PostgresStore(reactor, "mysql://db/meter", clock=reactor, migrate=False)


def test_weeks_begin_on_monday_in_utc():
    assert week_of(datetime(2026, 11, 22, 23, 59, tzinfo=UTC)) == date(2026, 11, 16)
    assert week_of(datetime(2026, 11, 23, tzinfo=UTC)) == date(2026, 11, 23)
    assert week_of(datetime(1, 1, 1, tzinfo=UTC)) == date(1, 1, 1)
    assert partition_name(date(2026, 11, 16)) == "sample_2026_11_16"


LATER = datetime(2026, 11, 30, tzinfo=UTC)


def test_id_cache_drops_unused_ids():
    cache = IdCache(10)
    cache.update({"old": CachedId(1, LATER)})
    for number in range(100):
        cache.update({number: CachedId(number, LATER)})
        assert cache.get_many(["old"], LATER) == [1]

    assert cache.get_many([5], LATER) == [None]
    assert cache.get_many([99, "new"], LATER) == [99, None]
    cache.clear()
    assert cache.get_many(["old"], LATER) == [None]


def test_id_is_cached_until_its_row_may_be_deleted():
    cache = IdCache(10)
    cache.update({"cpu": CachedId(1, LATER)})

    assert cache.get_many(["cpu"], LATER - timedelta(weeks=5)) == [1]
    assert cache.get_many(["cpu"], LATER + timedelta(weeks=1)) == [None]
    cache.update({"cpu": CachedId(1, LATER + timedelta(weeks=1))})
    assert cache.get_many(["cpu"], LATER + timedelta(weeks=1)) == [1]


def test_week_ends_on_monday_and_the_last_one_with_the_year_9999():
    assert end_of_week(datetime(2026, 11, 22, 23, 59, tzinfo=UTC)) == datetime(2026, 11, 23, tzinfo=UTC)
    assert end_of_week(datetime(2026, 11, 23, tzinfo=UTC)) == LATER
    assert end_of_week(datetime(9999, 12, 31, tzinfo=UTC)) == datetime.max.replace(tzinfo=UTC)


def test_migrations_are_numbered_without_a_gap():
    assert [step.number for step in migrations()] == list(range(1, len(migrations()) + 1))


def test_parameters_follow_the_names_they_are_put_in_place_of():
    one, two = Sql("x = %s", (1,)), Sql("y IN (%s, %s)", (2, 3))

    statement = filled("{two} AND {one} OR {two} LIMIT {most}", one=one, two=two, most=5)

    assert statement == Sql("y IN (%s, %s) AND x = %s OR y IN (%s, %s) LIMIT 5", (2, 3, 1, 2, 3))
