"""Previews are shared for a short time, never over a change of what they are computed from, and never when they fail."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.rating.statements import recent_previews
from meter.rating.statements.preview import Previews
from meter.rating.statements.preview import StatementPreview
from meter.rating.statements.recent_previews import MAX_AGE
from meter.rating.statements.recent_previews import RecentPreviews
from tests.closing_accounts import IN_DECEMBER
from tests.closing_accounts import Accounting
from tests.closing_accounts import with_text
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price
from tests.price_books import used


@pytest.fixture
def accounting() -> Accounting:
    accounting = Accounting(directory(with_text(book(price())), account()), "shop", "web", "lab")
    accounting.usage.arrive([used(1, 10), used(30, 1, "lab")], IN_DECEMBER - timedelta(days=3))
    return accounting


async def asked(recent: RecentPreviews, accounting: Accounting, account: str = "acme") -> StatementPreview:
    return await recent.preview(accounting.previews(), account, accounting.now, "2026-11")


@pytest_twisted.ensureDeferred
async def test_same_preview_is_given_until_it_is_too_old(accounting: Accounting) -> None:
    recent = RecentPreviews()
    first = await asked(recent, accounting)
    accounting.at(IN_DECEMBER + MAX_AGE - timedelta(seconds=1))
    assert await asked(recent, accounting) is first
    accounting.at(IN_DECEMBER + MAX_AGE)
    assert await asked(recent, accounting) is not first


@pytest_twisted.ensureDeferred
async def test_other_prices_accounts_and_a_close_have_their_own_previews(accounting: Accounting) -> None:
    recent = RecentPreviews()
    first = await asked(recent, accounting)
    assert (await asked(recent, accounting, "lab")).statement.account.id == "lab"
    accounting.use(replace(accounting.directory))
    second = await asked(recent, accounting)
    assert second is not first
    await accounting.close(accounts=["lab"], accept_gaps="test")
    assert await accounting.store.rating.statements.last_close() is not None
    assert await asked(recent, accounting) is not second


@pytest_twisted.ensureDeferred
async def test_preview_that_is_too_long_is_not_kept(accounting: Accounting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_previews, "MAX_KEPT_LINES", 0)
    recent = RecentPreviews()
    assert await asked(recent, accounting) is not await asked(recent, accounting)


class SlowPreviews:
    """Previews whose computation ends when it is told to."""

    directory = None

    def __init__(self) -> None:
        self.pending: list[Deferred[Any]] = []

    async def key(self, account_id: str, _now: object, period: str | None) -> object:
        return account_id, period

    async def preview(self, *_args: object) -> StatementPreview:
        self.pending.append(Deferred())
        found: StatementPreview = await self.pending[-1]
        return found


@pytest_twisted.ensureDeferred
async def test_one_computes_for_all_and_the_next_if_it_is_cancelled(accounting: Accounting) -> None:
    made = await accounting.preview(period="2026-11")
    slow, recent = SlowPreviews(), RecentPreviews()
    previews: Previews = slow  # type: ignore[assignment]
    waiting = [Deferred.fromCoroutine(recent.preview(previews, "acme", accounting.now, "2026-11")) for _ in range(300)]
    assert len(slow.pending) == 1
    waiting[0].cancel()
    with pytest.raises(CancelledError):
        await waiting[0]
    assert len(slow.pending) == 2
    slow.pending[1].callback(made)
    found = await gatherResults(waiting[1:])
    assert all(each is made for each in found)
    assert len(slow.pending) == 2
    assert not recent._locks
