"""Previews that were computed moments ago: whoever asks again, and whoever asks at the same time, gets the same one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta

from cachetools import LRUCache

from meter.daemon.locks import Lock
from meter.rating.book.price_book import PriceDirectory
from meter.rating.statements.preview import PreviewKey
from meter.rating.statements.preview import Previews
from meter.rating.statements.preview import StatementPreview

MAX_AGE = timedelta(seconds=30)
"""How old a preview may be. Usage is rated at longer intervals than this, so that a newer one would rarely say anything else."""

MAX_KEPT_LINES = 50_000
"""Lines of all previews that are kept; one that alone has more is computed each time."""


@dataclass(frozen=True, slots=True)
class _Kept:
    directory: PriceDirectory
    made_at: datetime
    preview: StatementPreview


class RecentPreviews:
    """Keeps previews by account for a short time. They are whole: whoever hands them out restricts them to what may be seen."""

    def __init__(self) -> None:
        self._kept: LRUCache[PreviewKey, _Kept] = LRUCache(MAX_KEPT_LINES, getsizeof=_size)
        self._locks: dict[PreviewKey, tuple[Lock, int]] = {}

    async def preview(
        self, previews: Previews, account_id: str, now: datetime, period_name: str | None = None
    ) -> StatementPreview:
        """Return what ``previews`` returns for the other parameters, or returned moments ago; its errors are not kept.

        While one is computed, others that ask for it wait. If that one fails or is cancelled, the next one computes.
        """
        key = await previews.key(account_id, now, period_name)
        lock, users = self._locks.get(key, (None, 0))
        lock = lock or Lock()
        self._locks[key] = lock, users + 1
        try:
            await lock.acquire()
            try:
                kept = self._kept.get(key)
                if (
                    kept is not None
                    and kept.directory is previews.directory
                    and timedelta(0) <= now - kept.made_at < MAX_AGE
                ):
                    return kept.preview
                made = _Kept(previews.directory, now, await previews.preview(account_id, now, period_name))
                if _size(made) <= MAX_KEPT_LINES:
                    self._kept[key] = made
                else:
                    self._kept.pop(key, None)
                return made.preview
            finally:
                lock.release()
        finally:
            lock, users = self._locks[key]
            if users > 1:
                self._locks[key] = lock, users - 1
            else:
                del self._locks[key]


def _size(kept: _Kept) -> int:
    statement = kept.preview.statement
    return (
        1 + len(statement.lines) + len(statement.unpriced) + len(statement.unmetered) + len(kept.preview.forecast.lines)
    )
