"""What the store raises while an archive server is away: for readers, and for writers of samples that it may have already."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from datetime import timedelta

from meter.interfaces import Unavailable
from meter.query import WriteResult


class ArchiveUnavailable(Unavailable):
    """Samples that are needed are on the archive server ``server``, which does not answer. Nothing is left out of an answer in silence.

    ``first`` and ``last`` are the first and the last week (Mondays) that are there, as text, ``None`` if that is not known; ``reason`` is for
    the log. ``end`` is the time from which on there are no samples.
    """

    def __init__(self, server: str, first: str | None, last: str | None, reason: str) -> None:
        self.server = server
        self.first, self.last, self.reason = first, last, reason
        self.end = datetime.fromisoformat(f"{last} 00:00+00:00") + timedelta(days=7) if last else None
        weeks = f"the weeks of {first} to {last}" if first else "old weeks"
        self.public_text = (
            f"Samples of {weeks} are on the archive server {server}, which is not available: try again later, or select a time"
            " outside of these weeks."
        )
        super().__init__(
            f"the archive server {server}, which has {weeks}, is not available: {reason}. Start it, or see docs/archive.rst"
        )


class SamplesLost(ArchiveUnavailable):
    """Samples that are needed are lost: an administrator said on the day ``since`` that the archive server ``server`` has lost ``week``.

    ``entry`` is the entry of the audit log. Rollups answer what does not need these samples.
    """

    def __init__(self, server: str, week: str, since: str, entry: str) -> None:
        super().__init__(server, week, week, f"lost, recorded on {since}")
        self.public_text = (
            f"The samples of the week of {week} are lost: it was recorded on {since} that the archive server that had them has lost them"
            f" (entry {entry} of the audit log). Statistics of whole hours are answered; for samples, select a time outside of this week."
        )
        self.args = (
            f"the samples of the week of {week} are lost, as the archive server {server} is: recorded on {since}, entry {entry} of the audit log",
        )


class PartlyStored(ArchiveUnavailable):
    """A batch is stored, as ``result`` says, but for the messages at the positions ``postponed``: they may be repeats of archived samples.

    Whoever writes the whole batch again does no harm.
    """

    def __init__(self, cause: ArchiveUnavailable, result: WriteResult, postponed: Collection[int]) -> None:
        super().__init__(cause.server, cause.first, cause.last, cause.reason)
        self.result = result
        self.postponed = frozenset(postponed)
