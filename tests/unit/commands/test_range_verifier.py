"""Samples that share an id and a time are found, also across pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred

from meter.commands.range_verifier import EARLIER_ID
from meter.commands.range_verifier import REPEATED_ID
from meter.commands.range_verifier import RangeVerifier
from meter.commands.range_verifier import VerifiedRange
from meter.commands.row_verifier import Verdict
from meter.store import LostWeek

NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)


@dataclass
class Row:
    message_id: str
    timestamp: datetime = NOON


class Rows:
    """Verifies every row; those with an id in ``failing`` fail."""

    def __init__(self, failing: str = "") -> None:
        self._failing = failing

    async def verdicts(self, rows: Any) -> Any:
        return [
            (row, Verdict("failed", reason="altered") if row.message_id in self._failing else Verdict("verified"))
            for row in rows
        ]


class Pages:
    """The pages of a store without damage, voided samples and batches."""

    def __init__(self, *pages: Any, lost: Any = (), times: Any = None) -> None:
        self._pages = pages
        self._lost = lost
        self._times = times or {}
        self.ranges: list[tuple[datetime | None, datetime | None]] = []

    async def lost_weeks(self, *_: object) -> Any:
        return [LostWeek(week, "cold", 7, week, 3) for week in self._lost]

    async def packed_damage(self, *_: object) -> Any:
        for text in ():
            yield text

    async def pages(self, start: datetime | None, end: datetime | None, *_: object) -> Any:
        self.ranges.append((start, end))
        for page in self._pages:
            yield page

    async def times_of_repeated_ids(self, page: Any) -> Any:
        return {row.message_id: self._times[row.message_id] for row in page if row.message_id in self._times}

    async def voided_page(self, *_: object) -> Any:
        return []

    async def batch_page(self, *_: object) -> Any:
        return []


def findings(rows: Any, *pages: Any, times: Any = None) -> Any:
    return found_in(Pages(*pages, times=times), rows, VerifiedRange())


def found_in(store: Any, rows: Any, range: VerifiedRange) -> Any:
    async def work() -> Any:
        verifier = RangeVerifier(store, rows, range)
        return [found async for page in verifier.findings() for found in page]

    done: list[Any] = []
    Deferred.fromCoroutine(work()).addCallback(done.append)
    return done[0]


def test_second_row_with_an_id_and_a_time_fails_also_on_the_next_page():
    first, second, third = Row("a"), Row("a"), Row("a")
    found = findings(Rows(), [Row("0"), first, second], [third, Row("b"), Row("b", NOON.replace(hour=13))])
    assert [verdict.reason for _, verdict in found] == [None, None, REPEATED_ID, REPEATED_ID, None, None]
    assert [verdict.state for _, verdict in found].count("failed") == 2


def test_row_that_fails_already_keeps_its_reason():
    found = findings(Rows("a"), [Row("a"), Row("a")])
    assert [verdict.reason for _, verdict in found] == ["altered", "altered"]


def test_later_row_with_an_id_fails_wherever_the_earlier_one_is():
    one = NOON.replace(hour=13)
    found = findings(Rows(), [Row("a"), Row("b", one), Row("c", one)], times={"a": NOON, "b": NOON.replace(hour=2)})
    reasons = [verdict.reason for _, verdict in found]
    assert reasons == [None, EARLIER_ID.format("2026-11-18T02:00:00+00:00"), None]


def test_weeks_that_are_lost_are_named_and_what_is_around_them_is_read():
    monday, week = datetime(2026, 11, 16, tzinfo=UTC), timedelta(weeks=1)
    for start, end, ranges in (
        (None, None, [(None, monday), (monday + week, None)]),
        (monday, monday + week, []),
        (NOON, monday + 2 * week, [(monday + week, monday + 2 * week)]),
        (monday - week, NOON, [(monday - week, monday)]),
    ):
        store = Pages(lost=[monday.date()])
        [(row, verdict)] = found_in(store, Rows(), VerifiedRange(start, end))
        assert (row, verdict.state, verdict.count, store.ranges) == (None, "lost", 7, ranges)
        assert "entry 3 of the audit log" in verdict.reason
