"""What closing and previews need, made of the configuration, the price directory and the store."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from collections.abc import Callable
from datetime import datetime
from typing import Any
from typing import TypeVar

from meter.daemon.services import sleep
from meter.interfaces import Unavailable
from meter.rating.book.book_text import directory_from_text
from meter.rating.book.price_book import PriceDirectory
from meter.rating.period import BillingPeriod
from meter.rating.statements.closing import Closing
from meter.rating.statements.closing import Progress
from meter.rating.statements.closing import no_progress
from meter.rating.statements.preview import Previews
from meter.rating.statements.reproduction import Reproduction
from meter.store import PostgresStore

WAIT_SECONDS = 900.0
"""How long a command waits while another process rates: as long as a month of a large cloud may take."""

T = TypeVar("T")


def closing(store: PostgresStore, directory: PriceDirectory, correct_periods: int, progress: Progress) -> Closing:
    """Return what closes periods."""
    return Closing(
        store.rating,
        store,
        store,
        directory,
        directory_from_text,
        correct_periods=correct_periods,
        progress=progress,
    )


def previews(store: PostgresStore, directory: PriceDirectory, correct_periods: int) -> Previews:
    """Return what previews open periods."""
    return Previews(store.rating, store, store, directory, directory_from_text, correct_periods=correct_periods)


def reproduction(store: PostgresStore) -> Reproduction:
    """Return what computes statements again."""
    return Reproduction(store.rating, store, directory_from_text)


async def refresh(
    store: PostgresStore, directory: PriceDirectory, period_name: str | None, now: datetime, progress: Progress
) -> None:
    """Rate the days of a period, or of the present one, that have changed.

    :raises ValueError: ``period_name`` is not the name of a period.
    """
    for number, (_, book) in enumerate(sorted(directory.books.items())):
        progress(f"rating days by {book.name}", number, len(directory.books))
        period = BillingPeriod.containing(now, book.timezone)
        if period_name is not None:
            period = BillingPeriod.named(period_name, book.timezone)
        if now >= period.start:
            await store.rating.usage.refresh(book, period, now)


async def exclusively(reactor: Any, store: PostgresStore, work: Callable[[], Awaitable[T]], progress: Progress) -> T:
    """Return ``await work()``, done while no other process rates; ``Unavailable`` if another one does for :data:`WAIT_SECONDS`."""
    found: list[T] = []

    async def keep() -> None:
        found[:] = [await work()]

    deadline = reactor.seconds() + WAIT_SECONDS
    while not await store.rating.exclusively(keep):
        if reactor.seconds() >= deadline:
            raise Unavailable("another process, as the collector's maintenance, is rating: try again")
        progress("waiting for another process that rates", 0, 1)
        await sleep(reactor, 1.0)
    return found[0]


def terminal_progress() -> Progress:
    """Return what shows progress on standard error if that is a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return no_progress

    def show(what: str, done: int, of: int) -> None:
        text = f"{what}: {done} of {of}" if of else what
        sys.stderr.write(f"\r\x1b[K{text}" if done < of else "\r\x1b[K")
        sys.stderr.flush()

    return show
