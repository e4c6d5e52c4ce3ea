"""Voiding samples of a spread store, and restoring them: each by a few statements, however many samples there are."""

from __future__ import annotations

from datetime import timedelta

import pytest_twisted
from twisted.internet import reactor

from meter.query import SampleFilter
from meter.store import Act
from meter.store import Administration
from meter.store import Selection
from tests.integration.test_store_rollups import START
from tests.integration.test_store_rollups import running
from tests.spread import spread
from tests.store_messages import KEYS
from tests.store_messages import message

ALL = SampleFilter()
SAMPLES = 60
CALLS = "SELECT coalesce(sum(calls), 0)::integer FROM pg_stat_user_functions WHERE funcname LIKE 'spread_samples%'"


@pytest_twisted.ensureDeferred
async def test_restored_samples_are_those_that_were_voided_and_are_looked_up_together(citus):
    dsn = citus.dsn_with_schema(spread)
    citus.execute(f"ALTER DATABASE {dsn.rpartition('/')[2]} SET track_functions = 'pl'")
    sent = [message(resource_id=f"r{n % 7}", volume=n, at=START + timedelta(hours=n)) for n in range(SAMPLES)]
    act = Act(who="me", reason="wrong", keys=KEYS.keys)
    async with running(dsn) as store:
        assert (await store.write(sent)).stored == SAMPLES
        before = await store.samples(ALL, 1000)
        administration = Administration(reactor, dsn, clock=reactor)
        await administration.open()
        assert (await administration.void(Selection(meter="cpu"), act)).samples == SAMPLES
        assert await store.samples(ALL, 1000) == []

        # One of the ids is stored again, as if the voided sample had never been.
        [[named]] = citus.execute("SELECT message_id::text FROM voided_sample ORDER BY timestamp LIMIT 1", dsn)
        await store.write([message("other", at=START + timedelta(hours=1))])
        citus.execute(
            f"UPDATE sample SET message_id = '{named}' WHERE series_id ="
            " (SELECT x.id FROM series x JOIN meter m ON m.id = x.meter_id WHERE m.name = 'other' AND x.resource_id > 0)",
            dsn,
        )
        first = await administration.unvoid(Selection(meter="cpu"), act)
        administration.close()
        assert [(id, problem.split(":")[0]) for id, problem in first.problems] == [
            (named, "another sample with its id has been stored meanwhile")
        ]
        assert first.samples == SAMPLES - 1
        restored = await store.samples(SampleFilter(equals={"meter": "cpu"}), 1000)
    assert restored == [each for each in before if each.message_id != named]
    assert citus.execute(CALLS, dsn)[0][0] < SAMPLES
