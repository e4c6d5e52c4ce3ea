"""Audit periods of Nova: however often the log was polled, no period is left out without an error."""

from __future__ import annotations

from datetime import timedelta

import pytest
import pytest_twisted

from meter.completeness.ledger import usage_audits
from meter.completeness.ledger.usage_audits import audited_periods
from meter.interfaces import RequestError
from meter.testing import MemoryStore
from tests.store_messages import NOON
from tests.store_messages import after
from tests.store_messages import message

HOURS = 30


async def polled() -> MemoryStore:
    """The log of each of 30 hours was polled five times after the hour, with growing numbers."""
    store = MemoryStore()
    for meter in ("nova.usage_audit.instances", "nova.usage_audit.errors"):
        await store.write(
            [
                message(
                    meter,
                    at=3600 * hour + 600 * poll,
                    volume=100 * hour + poll,
                    resource_id="nova",
                    metadata={
                        "period_beginning": f"{after(3600 * (hour - 1)):%Y-%m-%d %H:%M:%S}",
                        "period_ending": f"{after(3600 * hour):%Y-%m-%d %H:%M:%S}",
                    },
                )
                for hour in range(HOURS)
                for poll in range(1, 6)
            ]
        )
    return store


async def sent(store: MemoryStore) -> list[tuple[object, int, int]]:
    found = await audited_periods(store, NOON, NOON + timedelta(hours=HOURS))
    return [(period.end, period.sent, period.errors) for period in found]


def newest_polls(hours: range) -> list[tuple[object, int, int]]:
    return [(after(3600 * hour), 100 * hour + 5, 100 * hour + 5) for hour in hours]


@pytest_twisted.ensureDeferred
async def test_all_periods_are_found_in_several_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_audits, "PAGE_SAMPLES", 7)

    assert await sent(await polled()) == newest_polls(range(HOURS - 1, -1, -1))


@pytest_twisted.ensureDeferred
async def test_pages_after_the_newest_periods_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_audits, "PAGE_SAMPLES", 7)
    monkeypatch.setattr(usage_audits, "MAX_PAGES", 5)
    monkeypatch.setattr(usage_audits, "MAX_PERIODS", 4)

    assert await sent(await polled()) == newest_polls(range(HOURS - 1, HOURS - 5, -1))


@pytest_twisted.ensureDeferred
async def test_more_polls_than_are_read_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_audits, "PAGE_SAMPLES", 7)
    monkeypatch.setattr(usage_audits, "MAX_PAGES", 5)

    with pytest.raises(RequestError, match="narrow the period"):
        await sent(await polled())
