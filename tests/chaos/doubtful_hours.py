"""Stores samples of past hours, each hour by one transaction, and never again: ``doubtful_hours.py DSN JOURNAL [ask]``, until it is killed.

What of an hour is not seen when it becomes final is never counted. With ``ask`` all are of one hour, and after each transaction it asks how
many samples there were as of now; the answer is a promise. A line of the journal is the start of an hour, how many samples are stored up
to it, and what was answered.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.query import Aggregate
from meter.query import SampleFilter
from meter.query import StatisticsQuery
from meter.store import PostgresStore
from tests.store_messages import message

WRITER = "chaos writer"
"""The name of the connection that stores."""

METER = "chaos.doubtful"
SAMPLES = 40
"""Of each hour, of as many series: each worker has some."""

HOURS_OF_PARTITIONS = (0, 100, 200)
PAUSE_SECONDS = 2.0
AGE, AGE_OF_ASKED = timedelta(days=2), timedelta(days=6)


@asynccontextmanager
async def _open(reactor: Any, dsn: str, **options: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=False, **options)
    store.startService()
    try:
        yield store
    finally:
        await store.stopService()


async def _answered(reactor: Any, ask: Any) -> Any:
    """Return the result of ``ask``, called until the store is available."""
    while True:
        try:
            return await ask()
        except Unavailable:
            await sleep(reactor, 0.05)


def _note(journal: str, line: str) -> None:
    with Path(journal).open("a") as file:
        file.write(line)


async def work(reactor: Any, dsn: str, journal: str, ask: str = "") -> None:
    newest = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - (AGE_OF_ASKED if ask else AGE)
    stored, number = 0, 0
    async with (
        _open(reactor, dsn, readers=0, writers=1, application_name=WRITER) as writer,
        _open(reactor, dsn, readers=1, writers=0, application_name="chaos reader") as reader,
    ):
        for hours in HOURS_OF_PARTITIONS:
            sample = message("chaos.partition", at=newest - timedelta(hours=hours))
            await _answered(reactor, partial(writer.write, [sample]))
        while True:
            hour = newest if ask else newest - timedelta(hours=number)
            samples = [
                message(METER, resource_id=f"{ask}{number}-{n}", at=hour + timedelta(minutes=n)) for n in range(SAMPLES)
            ]
            await _answered(reactor, partial(writer.write, samples))
            stored, number = stored + SAMPLES, number + 1
            as_of = datetime.now(UTC)
            answer = stored
            if ask:
                named = SampleFilter(equals={"meter": METER}, as_of=as_of)
                query = StatisticsQuery(filter=named, aggregates=(Aggregate("count"),))
                answer = sum(
                    [each.values["count"] for each in await _answered(reactor, partial(reader.statistics, query))]
                )
            _note(journal, f"{hour.isoformat()} {stored} {answer:.0f}\n")
            await sleep(reactor, PAUSE_SECONDS)


if __name__ == "__main__":
    react(work, sys.argv[1:])
