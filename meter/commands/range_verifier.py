"""Verifies all that the store has of a range of time: samples, voided samples, and signed batches that have no rows any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import datetime

from meter.commands.row_verifier import Finding
from meter.commands.row_verifier import RowVerifier
from meter.commands.row_verifier import Verdict
from meter.sample_identity import WEEK
from meter.sample_identity import start_of_week
from meter.store import BatchTimes
from meter.store import LostWeek
from meter.store import StoredRow
from meter.store import Verification
from meter.store.postgres.connection import Rejected

PAGE_ROWS = 1000
"""Rows, and batches, that are read at a time."""


REPEATED_ID = "another sample with its id and time is stored, of another series: void the one that is wrong"

EARLIER_ID = "another sample with its id is stored, at {}: void the one that is wrong"


@dataclass(frozen=True, slots=True)
class VerifiedRange:
    """The samples to verify: those with ``start <= timestamp < end``, of one meter or of all."""

    start: datetime | None = None
    end: datetime | None = None
    meter: str | None = None


class RangeVerifier:
    """Verifies the samples of ``range``, a page at a time.

    Voided samples and batches are read beside the samples of the same time, so that a batch is verified once: the verifier of rows
    remembers the latest ones only. Of one meter, batches without rows are not looked for: nobody knows their meter.
    """

    def __init__(
        self, verification: Verification, rows: RowVerifier, range: VerifiedRange, page_rows: int = PAGE_ROWS
    ) -> None:
        self._verification = verification
        self._rows = rows
        self._range = range
        self._page_rows = page_rows
        self._last: tuple[str, datetime] | None = None
        self._voided: StoredRow | None = None
        self._batch: BatchTimes | None = None

    async def findings(self) -> AsyncIterator[Sequence[Finding]]:
        """Yield what is wrong with packed rows as such, a verdict on each sample, voided or not, and on what is missing."""
        range = self._range
        lost = await self._verification.lost_weeks(range.start, range.end)
        for each in lost:
            yield [(None, Verdict("lost", reason=lost_text(each), count=each.samples if range.meter is None else 0))]
        async for damage in self._verification.packed_damage(range.start, range.end, range.meter):
            yield [(None, Verdict("failed", reason=text)) for text in damage]
        try:
            async for found in self._samples(lost):
                yield found
        except Rejected as error:  # damage of which no value can be computed; it was named above
            yield [(None, Verdict("failed", reason=f"not all samples of the range can be read: {error}"))]

    async def _samples(self, lost: Sequence[LostWeek]) -> AsyncIterator[Sequence[Finding]]:
        for part in _without(self._range, lost):
            async for page in self._verification.pages(part.start, part.end, part.meter, self._page_rows):
                if page:
                    yield await self._with_repeated_ids(page, await self._rows.verdicts(page))
                    async for found in self._others_before(page[-1].timestamp):
                        yield found
        async for found in self._others_before(None):
            yield found

    async def _with_repeated_ids(self, page: Sequence[StoredRow], found: Sequence[Finding]) -> Sequence[Finding]:
        """Return ``found``, in which a row fails that has the id of an earlier one, or the id and the time of the row before it.

        A unique index keeps them from being stored on one server. In a spread store they can be stored while the first is in doubt.
        """
        times = await self._verification.times_of_repeated_ids(page)
        repeated: dict[int, str] = {}
        for row in page:
            place = row.message_id, row.timestamp
            earliest = times.get(row.message_id, row.timestamp)
            if place == self._last:
                repeated[id(row)] = REPEATED_ID
            elif earliest < row.timestamp:
                repeated[id(row)] = EARLIER_ID.format(earliest.isoformat())
            self._last = place
        return [
            (row, replace(verdict, state="failed", reason=repeated[id(row)]))
            if id(row) in repeated and verdict.state in ("verified", "unsigned")
            else (row, verdict)
            for row, verdict in found
        ]

    async def _others_before(self, before: datetime | None) -> AsyncIterator[Sequence[Finding]]:
        """Yield verdicts on the voided rows and the batches with times below ``before``, from the last call on."""
        range, verification = self._range, self._verification
        end = range.end if before is None or (range.end is not None and range.end < before) else before
        while page := await verification.voided_page(range.start, end, range.meter, self._voided, self._page_rows):
            self._voided = page[-1]
            yield await self._rows.verdicts(page)
        while range.meter is None and (
            batches := await verification.batch_page(range.start, range.end, self._batch, before, self._page_rows)
        ):
            self._batch = batches[-1]
            unknown = [each for each in batches if not self._rows.is_known(each.id)]
            if lost := await verification.without_rows(unknown):
                yield await self._rows.verdicts_without_rows(lost)


def lost_text(week: LostWeek) -> str:
    """Return what is said about a week whose samples cannot be verified."""
    return (
        f"the samples of the week of {week.week} are lost with the archive server {week.server}: recorded on {week.since},"
        f" entry {week.entry} of the audit log"
    )


def _without(range: VerifiedRange, lost: Sequence[LostWeek]) -> Iterator[VerifiedRange]:
    """Generate the parts of ``range`` that are not in the weeks ``lost``, in order."""
    start = range.start
    for each in lost:
        begin = start_of_week(each.week)
        if start is None or start < begin:
            yield replace(range, start=start, end=begin)
        start = begin + WEEK
    if range.end is None or start is None or start < range.end:
        yield replace(range, start=start)
