"""A day of a project is billed once, although the price files say later that another account paid for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal

import pytest
import pytest_twisted

from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import PriceScope
from tests.closing_accounts import IN_DECEMBER
from tests.closing_accounts import Accounting
from tests.closing_accounts import with_text
from tests.price_books import NOVEMBER
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price
from tests.price_books import used
from tests.price_books import valid

IN_JANUARY = datetime(2027, 1, 8, tzinfo=UTC)
IN_FEBRUARY = datetime(2027, 2, 8, tzinfo=UTC)


def moved(since=None):
    """Return the files that say that the project lab is paid by the account *new*, from ``since`` on."""
    member = Membership(id="lab", validity=valid(since))
    return directory(
        with_text(book(price()), f"moved {since}"), account(), replace(account("new", []), projects=(member,))
    )


@pytest.fixture
def accounting():
    """In November the project lab is an account of its own."""
    accounting = Accounting(directory(with_text(book(price())), account()), "shop", "lab", "other")
    accounting.usage.arrive(
        [used(1, 10), used(10, 1, "lab", "r9"), used(20, 2, "lab", "r9")], IN_DECEMBER - timedelta(days=3)
    )
    return accounting


def in_month(month, quantity):
    return replace(used(1, quantity, "lab", "r9"), day=date(2026, month, 5))


async def totals(accounting):
    found = await accounting.store.rating.statements.summaries()
    return {each.statement_id: Decimal(each.total) for each in found}


async def problems(accounting, period, **act):
    [found] = await accounting.close(period, accounts=["new"], **act)
    return found.result, [(each.code, each.text) for each in found.problems]


@pytest.mark.parametrize("accepted", ["", "whatever"])
@pytest_twisted.ensureDeferred
async def test_period_that_a_project_has_paid_itself_is_not_billed_to_its_new_account(accounting, accepted):
    await accounting.close()
    accounting.use(moved())
    result, [(code, text)] = await problems(accounting, "2026-11", accept_gaps=accepted)
    assert (result, code) == ("refused", "billed already")
    assert text.startswith("projects of the account are billed already: lab on 2026-11.lab until 2026-11-30; ")
    assert await totals(accounting) == {"2026-11.acme": Decimal("1.00"), "2026-11.lab": Decimal("0.30")}
    assert (await accounting.preview("new", "2026-11")).statement.total == 0

    accounting.use(moved(date(2026, 12, 1)))
    assert await problems(accounting, "2026-11") == ("nothing to bill", [])


@pytest_twisted.ensureDeferred
async def test_charge_of_a_project_without_usage_is_billed_once(accounting):
    charge = FixedCharge(
        id="c",
        description="",
        service="Support",
        category="Other",
        amount=Decimal(5),
        list_amount=Decimal(5),
        recurring=True,
        prorated=False,
        validity=valid(),
        scope=PriceScope(project="idle"),
    )
    charged = book(price(), fixed_charges=(charge,))
    accounting.use(directory(with_text(charged, "before"), account()))
    await accounting.close()
    assert (await totals(accounting))["2026-11.idle"] == Decimal("5.00")
    accounting.use(directory(with_text(charged, "after"), account(), account("new", ["idle"])))
    result, [(code, _)] = await problems(accounting, "2026-11", accept_gaps="no usage")
    assert (result, code) == ("refused", "billed already")


@pytest_twisted.ensureDeferred
async def test_days_before_and_after_the_change_are_each_billed_once(accounting):
    accounting.use(moved(date(2026, 11, 15)))
    await accounting.close()
    assert await totals(accounting) == {
        "2026-11.acme": Decimal("1.00"),
        "2026-11.lab": Decimal("0.10"),
        "2026-11.new": Decimal("0.20"),
    }


@pytest_twisted.ensureDeferred
async def test_change_that_is_dated_back_names_the_days_that_are_billed(accounting):
    accounting.use(moved(date(2026, 11, 15)))
    await accounting.close(accounts=["lab"])
    accounting.use(moved(date(2026, 11, 8)))
    result, [(_, text)] = await problems(accounting, "2026-11")
    assert result == "refused"
    assert "lab on 2026-11.lab until 2026-11-14;" in text


@pytest_twisted.ensureDeferred
async def test_first_close_of_an_account_does_not_ask_for_what_others_have_paid(accounting):
    await accounting.close()
    accounting.use(moved())
    accounting.at(IN_JANUARY)
    accounting.usage.arrive([in_month(12, 4)], accounting.now)
    assert await problems(accounting, "2026-12") == ("closed", [])
    assert (await totals(accounting))["2026-12.new"] == Decimal("0.40")


@pytest_twisted.ensureDeferred
async def test_period_without_a_statement_is_not_corrected_by_what_others_have_paid(accounting):
    """The account *new* pays for another project in October, has nothing to bill in November, and then gets lab."""
    other = account("new", ["other"])
    accounting.use(directory(with_text(book(price()), "before"), account(), other))
    accounting.usage.arrive([replace(used(1, 1, "other"), day=date(2026, 10, 5))], IN_DECEMBER - timedelta(days=30))
    await accounting.close("2026-10")
    await accounting.close()
    both = replace(other, projects=(*other.projects, Membership(id="lab")))
    accounting.use(directory(with_text(book(price()), "after"), account(), both))
    accounting.at(IN_JANUARY)
    accounting.usage.arrive([in_month(12, 4)], accounting.now)
    for period in (NOVEMBER, NOVEMBER.next):
        await accounting.usage.refresh(accounting.directory.books["list"], period, accounting.now)
    preview = await accounting.preview("new", "2026-12")
    assert preview.statement.total == Decimal("0.40")
    await accounting.close("2026-12")
    assert await totals(accounting) == {
        "2026-10.new": Decimal("0.10"),
        "2026-11.acme": Decimal("1.00"),
        "2026-11.lab": Decimal("0.30"),
        "2026-12.new": Decimal("0.40"),
    }


@pytest_twisted.ensureDeferred
async def test_corrections_of_what_was_billed_go_to_whom_it_was_billed(accounting):
    await accounting.close()
    accounting.use(moved())
    accounting.at(IN_JANUARY)
    accounting.usage.arrive([used(20, 7, "lab", "r10")], accounting.now)
    await accounting.close("2026-12")
    assert await totals(accounting) == {
        "2026-11.acme": Decimal("1.00"),
        "2026-11.lab": Decimal("0.30"),
        "2026-12.lab": Decimal("0.70"),
    }
    accounting.at(IN_FEBRUARY)
    await accounting.close("2027-01")
    assert len(await totals(accounting)) == 3
