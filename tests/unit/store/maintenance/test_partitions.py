"""Partitions are created as soon as the database can be reached; a failure there waits for its next attempt."""

from __future__ import annotations

from datetime import UTC
from datetime import datetime

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.interfaces import Unavailable
from meter.store.maintenance.partitions import FIRST_RETRY_SECONDS
from meter.store.maintenance.partitions import MAX_RETRY_SECONDS
from meter.store.maintenance.partitions import Partitions

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


class Pool:
    """A pool that is not connected yet, or whose transactions end with ``outcome``."""

    def __init__(self):
        self.ready = False
        self.outcome = True
        self.attempts = 0

    async def run(self, work, *arguments):
        if not self.ready:
            raise Unavailable("the store is unavailable: connecting")
        self.attempts += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def pool():
    return Pool()


def ensure(partitions):
    done = Deferred.fromCoroutine(partitions.ensure([NOON]))
    assert done.called
    return done


def test_a_database_that_is_not_reached_yet_delays_no_partition(pool):
    partitions = Partitions(pool, Clock())
    ensure(partitions)  # the first samples after the start of an embedded database come before it is ready
    pool.ready = True
    ensure(partitions)
    assert pool.attempts == 1
    ensure(partitions)
    assert pool.attempts == 1  # it exists


def test_a_partition_that_cannot_be_created_is_tried_again_later(pool):
    clock = Clock()
    partitions = Partitions(pool, clock)
    pool.ready, pool.outcome = True, Unavailable("permission denied for schema public")
    ensure(partitions)
    ensure(partitions)
    assert pool.attempts == 1
    clock.advance(FIRST_RETRY_SECONDS)
    ensure(partitions)
    ensure(partitions)
    assert pool.attempts == 2
    clock.advance(MAX_RETRY_SECONDS)
    ensure(partitions)
    assert pool.attempts == 3
