"""Counts the samples that were dead-lettered, by hour, meter, resource and project: the completeness ledger explains missing samples by them.

What a sample says of itself is believed if its signature was verified. Otherwise it is a claim of somebody unknown, and has the kind
``unverified``. The counts are kept in memory and stored every few seconds; those of the last seconds are lost if the process is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from meter.completeness_store import MAX_NAME_BYTES
from meter.completeness_store import MAX_RESOURCE_BYTES
from meter.completeness_store import ICompletenessStore
from meter.completeness_store import RejectedCount
from meter.daemon.services import wall_seconds
from meter.interfaces import Unavailable
from meter.message import BadMessage
from meter.message import parse_timestamp

UNVERIFIED = "unverified"

MAX_COUNTS = 5000
"""Counts that are kept in memory; beyond, meter, resource and project are not kept apart."""

MAX_LOOKED_AT = 500
"""Samples of one delivery that are looked at: about 3 ms. A batch of Meter has 100."""

OLDEST, NEWEST = timedelta(days=31), timedelta(hours=1)
"""How far from now the hour of a sample may be; one with another time is counted in the present hour."""


class RejectedSampleCounts:
    """Counts rejected samples, and stores the counts with :meth:`flush`."""

    _log = Logger()

    def __init__(self, store: ICompletenessStore, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        self._counts: dict[RejectedCount, int] = {}

    def add(self, kind: str, messages: Sequence[Any]) -> None:
        """Count ``messages`` with samples that were rejected; of very many, only the first are kept apart."""
        now = datetime.fromtimestamp(wall_seconds(self._clock), UTC)
        for message in messages[:MAX_LOOKED_AT]:
            count = _count(kind, message, now)
            if count not in self._counts and len(self._counts) >= MAX_COUNTS:
                count = RejectedCount(_hour(now), kind)
            self._counts[count] = self._counts.get(count, 0) + 1
        if len(messages) > MAX_LOOKED_AT:
            count = RejectedCount(_hour(now), kind)
            self._counts[count] = self._counts.get(count, 0) + len(messages) - MAX_LOOKED_AT

    async def flush(self) -> None:
        """Store the counts; while the store is unavailable, they are kept."""
        counts, self._counts = self._counts, {}
        if not counts:
            return
        try:
            await self._store.record_rejected_samples([replace(each, samples=n) for each, n in counts.items()])
        except Unavailable as error:
            self._log.debug("rejected samples cannot be counted now: {reason}", reason=str(error))
            for count, number in counts.items():
                self._counts[count] = self._counts.get(count, 0) + number


def _count(kind: str, message: Any, now: datetime) -> RejectedCount:
    if not isinstance(message, Mapping):
        return RejectedCount(_hour(now), kind)
    return RejectedCount(
        start=_hour(_time(message.get("timestamp"), now)),
        kind=kind,
        meter=_text(message.get("counter_name"), MAX_NAME_BYTES),
        resource=_text(message.get("resource_id"), MAX_RESOURCE_BYTES),
        project=_text(message.get("project_id"), MAX_RESOURCE_BYTES),
    )


def _time(value: Any, now: datetime) -> datetime:
    try:
        time = parse_timestamp(value, "timestamp") if isinstance(value, str) else now
    except BadMessage:
        return now
    return time if now - OLDEST <= time <= now + NEWEST else now


def _hour(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def _text(value: Any, longest: int) -> str:
    """Return a text that can be stored and is not too long, else an empty one."""
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        return ""
    try:
        return value if len(value.encode()) <= longest else ""
    except UnicodeEncodeError:
        return ""
