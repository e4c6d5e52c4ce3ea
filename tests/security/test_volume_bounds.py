"""No volume makes statistics, rollups or finalization fail: it is within bounds, wherever it comes from."""

from __future__ import annotations

import json

import pytest
import pytest_twisted

from meter.declarative.notifications.models import make_definition
from meter.message import BadMessage
from meter.message import read
from meter.outgoing import sign
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.sample import MAX_VOLUME
from meter.sample import MIN_VOLUME
from meter.sample import BadSample
from meter.sample import Sample
from meter.sample import volume_is_valid
from meter.store.migrations import migrations
from meter.testing import MemoryStore
from tests.integration.test_store_rollups import DAY
from tests.integration.test_store_rollups import EVERYTHING
from tests.integration.test_store_rollups import HOUR
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import finalized
from tests.integration.test_store_rollups import running
from tests.store_messages import KEYS
from tests.store_messages import message
from tests.unit.collector.test_samples import Collector
from tests.unit.collector.test_samples import cast
from tests.unit.collector.test_samples import message as collected

BEYOND = [1.5e308, -1.5e308, 10**400, -(10**31), MAX_VOLUME * 1.0001, 5e-324, -MIN_VOLUME / 2]
WITHIN = [0, -0.0, MAX_VOLUME, -MAX_VOLUME, MIN_VOLUME, -MIN_VOLUME, 2**64, 10**30]
ALL = SampleFilter()
STATISTICS = StatisticsQuery(filter=ALL, groupby=("resource_id",), aggregates=EVERYTHING)


def fields(volume):
    """A message with a good signature and ``volume``, as another program with a key can send it."""
    return {**message(volume=1).fields, "counter_volume": volume}


@pytest.mark.parametrize(
    "volume", BEYOND, ids=lambda volume: f"{volume:.3g}" if isinstance(volume, float) else "integer"
)
@pytest_twisted.ensureDeferred
async def test_volume_out_of_bounds_is_refused_wherever_it_comes_from(volume):
    assert not volume_is_valid(volume)
    with pytest.raises(BadSample, match="volume of cpu must be a finite number: 0, or from"):
        Sample(name="cpu", type="gauge", unit="ns", volume=volume, resource_id="r", timestamp=START)
    with pytest.raises(BadMessage, match="counter_volume must be a finite number: 0, or from"):
        read(fields(volume), KEYS)
    good = message(volume=1)
    unread = type(good)(**{**{name: getattr(good, name) for name in good.__struct_fields__}, "volume": volume})
    result = await MemoryStore().write([unread])
    assert [refusal.kind for refusal in result.refused] == ["unstorable"]


@pytest.mark.parametrize("volume", WITHIN)
def test_volume_within_bounds_is_accepted(volume):
    sample = Sample(name="cpu", type="gauge", unit="ns", volume=volume, resource_id="r", timestamp=START)
    assert read(sign(sample, KEYS, "test"), KEYS).volume == volume


def test_definition_with_a_volume_out_of_bounds_is_refused():
    table = {"name": "m", "event_types": "e", "unit": "x", "resource": "$.payload.id", "volume": 1e300}
    with pytest.raises(ValueError, match="volume must be a number from 0"):
        make_definition(table, {}, "test")


@pytest_twisted.ensureDeferred
async def test_most_extreme_volumes_that_are_accepted_have_finite_statistics_and_rollups(postgresql):
    dsn = postgresql.dsn()
    volumes = [MAX_VOLUME, -MAX_VOLUME, MAX_VOLUME, MIN_VOLUME, -MIN_VOLUME, 0]
    async with running(dsn) as store:
        await store.write(
            [
                message(volume=volume, at=START + n * HOUR / 20, resource_id=resource, type=type)
                for resource, type in (("g", "gauge"), ("c", "cumulative"))
                for n, volume in enumerate(volumes * 8)
            ]
        )
        await store.write(
            [message(volume=MIN_VOLUME if n else 0, at=START + n * HOUR / 3e9, resource_id="t") for n in range(3)]
        )
        before = await store.statistics(STATISTICS)
        await finalized(store)
        after = await store.statistics(STATISTICS)
    assert postgresql.execute("SELECT count(*) FROM final_period", dsn) == [(4,)]
    assert [row.values["count"] for row in before] == [row.values["count"] for row in after] == [48, 48, 3]
    assert [json.loads(json.dumps(row.values, allow_nan=False))["max"] for row in after] == [1e30, 1e30, 1e-100]


OLDER_STORE = """
INSERT INTO meter (name, type, unit) VALUES ('cpu', 'gauge', 'ns');
INSERT INTO resource (name) VALUES ('good'), ('huge'), ('tiny'), ('lone');
INSERT INTO series (meter_id, resource_id) SELECT 1, id FROM resource;
INSERT INTO metadata (hash, text, document) VALUES ('', '{{}}', '{{}}');
INSERT INTO wire_format (hash, text) VALUES ('', '{wire_format}');
INSERT INTO sample
SELECT timestamptz '{start}' + age, now(), gen_random_uuid(), volume, 1, series.id, 1, '', ''
FROM (VALUES ('5 min'::interval, 1::float8, 1), ('15 min', 3, 1), ('5 min', 1.5e308, 2), ('9 min', 1.5e308, 2),
    ('15 min', -1e200, 2), ('5 min', 5e-324, 3), ('6 min', 0, 3), ('5 hours', 1e200, 4))
    AS given (age, volume, number) JOIN series ON series.resource_id = number;
"""
"""A store from before volumes had bounds: two of its series make every sum, average or rollup of the meter fail."""


@pytest.fixture
def older_store(postgresql):
    """The DSN of a database with the first step of the schema and samples with volumes out of bounds."""
    dsn = postgresql.dsn()
    [first, *_] = migrations()
    postgresql.execute(first.statements, dsn)
    postgresql.execute(
        "CREATE TABLE schema_version (version integer PRIMARY KEY, name text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now());"
        f"INSERT INTO schema_version VALUES (1, '{first.name}')",
        dsn,
    )
    wire_format = '{"missing_fields":[],"timestamp":"T","volume":"float","repeated_fields":[],"key_id":null}'
    postgresql.execute(OLDER_STORE.format(start=START, wire_format=wire_format), dsn)
    return dsn


@pytest_twisted.ensureDeferred
async def test_stored_volumes_out_of_bounds_do_not_make_the_rows_of_others_fail(postgresql, older_store):
    async with running(older_store) as store:
        for _ in range(2):
            [good, tiny] = await store.statistics(STATISTICS)
            assert (good.group, good.values["sum"], good.values["avg"]) == ({"resource_id": "good"}, 4, 2)
            assert (tiny.group, tiny.values["count"]) == ({"resource_id": "tiny"}, 1)
            [whole] = await store.statistics(StatisticsQuery(filter=ALL, aggregates=(Aggregate("sum"),)))
            assert whole.values["sum"] == 4
            assert await store.maintenance.finalize(START + 2 * DAY) in (2, 0)
    final = "SELECT hours, count(*) FROM final_period GROUP BY hours ORDER BY hours"
    assert postgresql.execute(final, older_store) == [(1, 1), (24, 1)]
    kept = postgresql.execute("SELECT volume, voided_by FROM voided_sample ORDER BY volume", older_store)
    assert kept == [(volume, "schema upgrade") for volume in (-1e200, 5e-324, 1e200, 1.5e308, 1.5e308)]


@pytest_twisted.ensureDeferred
async def test_rollups_of_expired_samples_are_limited_and_their_neighbours_right(postgresql, older_store):
    postgresql.execute(
        "INSERT INTO rollup SELECT timestamptz '2020-01-01' + n * interval '1 hour', timestamptz '2020-01-01', '2020-01-01',"
        " 1, v, v, v, 0, v, v, 0, 0, s, 1, 1, 1, 0 FROM generate_series(0, 1) n,"
        " (VALUES (1, 2), (2, 1.5e308)) AS given (s, v);"
        "INSERT INTO final_period VALUES ('2020-01-01 00:00', 1), ('2020-01-01 01:00', 1);"
        "INSERT INTO retention_cutoff VALUES ('', '2020-01-06')",
        older_store,
    )
    async with running(older_store) as store:
        [good, huge, *_] = await store.statistics(STATISTICS)
    assert (good.group["resource_id"], good.values["sum"], good.values["count"]) == ("good", 8, 4)
    assert (huge.group["resource_id"], huge.values["sum"]) == ("huge", 2 * MAX_VOLUME)


@pytest_twisted.ensureDeferred
async def test_collector_dead_letters_a_volume_out_of_bounds_as_invalid_and_stores_the_others():
    collector = Collector()
    await collector.take(cast([collected(1), collected(2, counter_volume=1.5e308), collected(3)]))
    assert await collector.volumes() == [1, 3]
    [letter] = collector.dead.dead_letters
    assert letter.headers["meter-kind"] == "invalid"
    assert "counter_volume must be a finite number: 0, or from 1e-100 to 1e+30" in letter.headers["meter-reason"]


@pytest_twisted.ensureDeferred
async def test_database_itself_refuses_a_volume_out_of_bounds(postgresql):
    dsn = postgresql.dsn()
    async with running(dsn) as store:
        await store.write([message(volume=1, at=START)])
    for volume in ("1.5e308", "'NaN'", "'infinity'", "5e-324", "-1e31"):
        with pytest.raises(Exception, match="volume_in_bounds"):
            postgresql.execute(f"UPDATE sample SET volume = {volume}", dsn)
