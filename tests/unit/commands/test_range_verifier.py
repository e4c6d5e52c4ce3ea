"""Samples that share an id and a time are found, also across pages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred

from meter.commands.range_verifier import EARLIER_ID
from meter.commands.range_verifier import REPEATED_ID
from meter.commands.range_verifier import RangeVerifier
from meter.commands.range_verifier import VerifiedRange
from meter.commands.row_verifier import Verdict

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

    def __init__(self, *pages: Any, times: Any = None) -> None:
        self._pages = pages
        self._times = times or {}

    async def packed_damage(self, *_: object) -> Any:
        for text in ():
            yield text

    async def pages(self, *_: object) -> Any:
        for page in self._pages:
            yield page

    async def times_of_repeated_ids(self, page: Any) -> Any:
        return {row.message_id: self._times[row.message_id] for row in page if row.message_id in self._times}

    async def voided_page(self, *_: object) -> Any:
        return []

    async def batch_page(self, *_: object) -> Any:
        return []


def findings(rows: Any, *pages: Any, times: Any = None) -> Any:
    async def work() -> Any:
        verifier = RangeVerifier(Pages(*pages, times=times), rows, VerifiedRange())  # type: ignore[arg-type]
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
