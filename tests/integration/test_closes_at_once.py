"""Two operators who close at once, each by price files of their own, do not bill a day of a project twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from datetime import timedelta
from decimal import Decimal

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import gatherResults

from meter.rating.book.price_book import Membership
from meter.store import PostgresStore
from tests.closing_accounts import IN_DECEMBER
from tests.closing_accounts import Accounting
from tests.closing_accounts import with_text
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price
from tests.price_books import used
from tests.price_books import valid
from tests.waiting import until


@pytest_twisted.async_yield_fixture
async def statements(postgresql):
    dsn = postgresql.dsn_with_schema()
    store = PostgresStore(reactor, dsn, clock=reactor, migrate=True, readers=2, writers=1, rating_connections=2)
    store.startService()
    await until(lambda: store.readiness().ready and store.rating.ready)
    yield store.rating.statements
    await store.stopService()


class AtOnce:
    """The ``statements``, for ``closers``: each stores what it closes when all have decided what to close."""

    def __init__(self, statements, closers):
        self._statements = statements
        self._missing = closers
        self._all_are_here = Deferred()

    def __getattr__(self, name):
        return getattr(self._statements, name)

    async def add(self, closing, annex):
        self._missing -= 1
        if self._missing == 0:
            self._all_are_here.callback(None)
        elif self._missing > 0:
            waiting = Deferred()
            self._all_are_here.addCallback(waiting.callback)
            await waiting
        return await self._statements.add(closing, annex)


def operator(statements, files, *accounts):
    """Return an operator whose price ``files`` say that these accounts pay for the project lab."""
    accounting = Accounting(directory(with_text(book(price()), files), *accounts), "lab")
    accounting.usage.arrive([used(10, 1, "lab", "r9"), used(20, 2, "lab", "r9")], IN_DECEMBER - timedelta(days=3))
    accounting.store.rating.statements = statements
    return accounting


async def closed_at_once(closes):
    results = await gatherResults(map(Deferred.fromCoroutine, closes))
    return [each for result in results for each in result]


@pytest_twisted.ensureDeferred
async def test_day_of_a_project_is_billed_by_one_of_two_closes_at_once(statements):
    at_once = AtOnce(statements, 2)
    operators = [operator(at_once, f"files of {id}", account(id, ["lab"])) for id in ("first", "second")]
    for each in operators:  # a statement is stored with all files that it was rated by
        each.directories |= {text: found for other in operators for text, found in other.directories.items()}
    results = await closed_at_once(each.close() for each in operators)
    assert sorted(each.result for each in results) == ["closed", "refused"]
    [refused] = [each for each in results if each.result == "refused"]
    [problem] = refused.problems
    assert problem.code == "account changed"
    assert problem.text.endswith("was closed meanwhile: try again")
    [stored] = await statements.summaries()
    assert Decimal(stored.total) == Decimal("0.30")

    [late] = [each for each in operators if refused.account_id in each.directory.accounts]
    [repeated] = await late.close()
    assert (repeated.result, repeated.problems[0].code) == ("refused", "billed already")
    assert len(await statements.summaries()) == 1


@pytest_twisted.ensureDeferred
async def test_project_that_changes_its_account_is_billed_by_both_closes(statements):
    """One file has both accounts: each pays for its days, and a close that was refused because of the other succeeds as it is repeated."""
    days = {"before": valid(None, date(2026, 11, 15)), "after": valid(date(2026, 11, 15))}
    accounts = [
        replace(account(id, []), projects=(Membership(id="lab", validity=validity),)) for id, validity in days.items()
    ]
    at_once = AtOnce(statements, 2)
    operators = [operator(at_once, "of both", *accounts) for _ in days]
    results = await closed_at_once(each.close(accounts=[id]) for each, id in zip(operators, days, strict=True))
    assert sorted(each.result for each in results) == ["closed", "refused"]
    await operators[0].close()
    found = {each.account_id: Decimal(each.total) for each in await statements.summaries()}
    assert found == {"before": Decimal("0.10"), "after": Decimal("0.20")}
