"""Rejected samples are counted by hour, meter, resource and project, in bounded memory."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.collector.rejected_counts import MAX_COUNTS
from meter.collector.rejected_counts import RejectedSampleCounts
from meter.testing import MemoryStore

NOW = datetime(2026, 11, 27, 12, 34, tzinfo=UTC)
NOON = NOW.replace(minute=0)


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(NOW.timestamp())
    return clock


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
def counts(store, clock):
    return RejectedSampleCounts(store, clock)


def flush(counts):
    Deferred.fromCoroutine(counts.flush())


def sample(**changes):
    return {
        "counter_name": "cpu",
        "resource_id": "r1",
        "project_id": "p1",
        "timestamp": "2026-11-27T11:59:59",
        **changes,
    }


def test_samples_are_counted_by_the_hour_of_their_timestamps(counts, store):
    counts.add("conflict", [sample(), sample(), sample(timestamp="2026-11-27T12:00:00")])
    flush(counts)
    counts.add("conflict", [sample()])
    flush(counts)

    assert store.rejected_samples == {
        (NOON.replace(hour=11), "cpu", "r1", "p1", "conflict"): 3,
        (NOON, "cpu", "r1", "p1", "conflict"): 1,
    }


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (None, ("", "", "")),
        ([1], ("", "", "")),
        (sample(counter_name=7, resource_id=None, project_id=None, timestamp=9), ("", "", "")),
        (sample(resource_id="a\0b", timestamp="soon"), ("cpu", "", "p1")),
        (sample(resource_id="\ud800", timestamp="0001-01-01T00:00:00"), ("cpu", "", "p1")),
        (sample(resource_id="r" * 5000, timestamp="9999-12-31T00:00:00"), ("cpu", "", "p1")),
        (sample(project_id="ä" * 999, timestamp="2026-10-01T00:00:00"), ("cpu", "r1", "")),
    ],
    ids=["null", "list", "types", "NUL", "surrogate", "long", "bytes"],
)
def test_odd_values_are_counted_without_names_in_the_present_hour(counts, store, message, names):
    counts.add("invalid", [message])
    flush(counts)

    assert store.rejected_samples == {(NOON, *names, "invalid"): 1}


def test_flood_of_samples_makes_a_limited_number_of_counts(counts, store):
    for part in range(12):
        counts.add("unverified", [sample(resource_id=f"{part} {n}") for n in range(600)])

    assert len(counts._counts) <= MAX_COUNTS + 1
    flush(counts)
    assert sum(store.rejected_samples.values()) == 12 * 600
    assert len(store.rejected_samples) <= 2_002


def test_counts_are_kept_while_the_store_is_unavailable(counts, store):
    counts.add("conflict", [sample()])
    store.unavailable = "no database"
    flush(counts)
    counts.add("conflict", [sample()])
    store.unavailable = None
    flush(counts)

    assert list(store.rejected_samples.values()) == [2]
