"""What the ledger reads of the store: hours that were not looked at never count as final."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime
from datetime import timedelta

import pytest_twisted

from meter.store.query import completeness_source
from meter.store.query.completeness_source import StoredLedgerSource

START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest_twisted.ensureDeferred
async def test_hours_after_the_last_one_that_was_looked_at_count_as_not_final(monkeypatch):
    monkeypatch.setattr(completeness_source, "MAX_OPEN_HOURS", 3)

    async def rows(statement, parameters):
        return [(parameters["since"],)] if "since" in parameters else []

    facts = StoredLedgerSource(rows, finalize_after_seconds=900)
    now = START + timedelta(days=2)

    finality = await facts.finality(START.timestamp(), now.timestamp(), now.timestamp())

    assert len(finality.open_hours) == 3
    hours = [(START + timedelta(hours=n)).timestamp() for n in range(47)]
    assert all(finality.is_open(hour) for hour in hours)


@pytest_twisted.ensureDeferred
async def test_hours_are_final_if_few_are_not(monkeypatch):
    monkeypatch.setattr(completeness_source, "MAX_OPEN_HOURS", 3)
    open_hours = [START + timedelta(hours=n) for n in (2, 5, 7)]

    async def rows(statement, parameters):
        if "since" not in parameters:
            return []
        return [(hour,) for hour in open_hours if hour >= parameters["since"]][:1]

    facts = StoredLedgerSource(rows, finalize_after_seconds=900)
    now = START + timedelta(days=2)

    finality = await facts.finality(START.timestamp(), now.timestamp(), now.timestamp())

    assert not finality.is_open((START + timedelta(hours=6)).timestamp())
    assert finality.is_open((START + timedelta(hours=8)).timestamp())
