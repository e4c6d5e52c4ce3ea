"""Price files that change between two closes: what was closed, also without a statement, stays as it was; no hour is billed twice unasked."""

from __future__ import annotations

from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
import pytest_twisted

from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Minimum
from meter.rating.book.price_book import PriceScope
from tests.closing_accounts import IN_DECEMBER
from tests.closing_accounts import Accounting
from tests.closing_accounts import with_text
from tests.price_books import PARIS
from tests.price_books import PLACE
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price
from tests.price_books import used
from tests.price_books import valid

IN_JANUARY = datetime(2027, 1, 8, tzinfo=UTC)
IN_FEBRUARY = datetime(2027, 2, 8, tzinfo=UTC)
UTC_ZONE, TOKYO, SANTIAGO = ZoneInfo("UTC"), ZoneInfo("Asia/Tokyo"), ZoneInfo("America/Santiago")

SUPPORT = FixedCharge(
    id="support",
    description="",
    service="Support",
    category="Other",
    amount=Decimal(5),
    list_amount=Decimal(5),
    recurring=True,
    prorated=False,
    validity=valid(),
    scope=PriceScope(account="acme"),
)


def month(number, quantity=1):
    return used(date(2026 + (number - 1) // 12, (number - 1) % 12 + 1, 1), quantity)


async def lines(accounting, id):
    signed = await accounting.store.rating.statements.statement(id)
    return [(each.kind, each.amount) for each in signed.statement.lines]


async def closed_but_november():
    """October and December have statements; in November there was nothing to bill."""
    accounting = Accounting(directory(with_text(book(price())), account()), "shop", "web")
    accounting.usage.arrive([month(10)], IN_DECEMBER - timedelta(days=9))
    await accounting.close("2026-10", ["acme"])
    await accounting.close("2026-11", ["acme"])
    accounting.at(IN_JANUARY)
    accounting.usage.arrive([month(12)], accounting.now)
    await accounting.close("2026-12", ["acme"])
    accounting.at(IN_FEBRUARY)
    return accounting


@pytest.mark.parametrize(
    "more",
    [
        {"fixed_charges": (SUPPORT,)},
        {"minimums": (Minimum(id="least", description="", amount=Decimal(5), place=PLACE),)},
    ],
)
@pytest_twisted.ensureDeferred
async def test_month_without_a_statement_is_not_charged_by_files_that_came_later(more):
    accounting = await closed_but_november()
    accounting.use(directory(with_text(book(price(), **more), "second"), account()))
    accounting.usage.arrive([month(13)], accounting.now)
    await accounting.close("2027-01", ["acme"])
    assert sum(amount for _, amount in await lines(accounting, "2027-01.acme")) in (Decimal("5.10"), Decimal("5.00"))
    assert "correction" not in [kind for kind, _ in await lines(accounting, "2027-01.acme")]
    assert await accounting.differences("2027-01.acme") == []


@pytest_twisted.ensureDeferred
async def test_late_usage_of_a_month_without_a_statement_has_the_prices_of_the_next_one():
    accounting = await closed_but_november()
    accounting.use(directory(with_text(book(price(amount="7")), "second"), account()))
    accounting.usage.arrive([used(9, 10), month(13)], accounting.now)
    await accounting.close("2027-01", ["acme"])
    assert await lines(accounting, "2027-01.acme") == [("usage", Decimal("7.00")), ("correction", Decimal("1.00"))]
    assert await accounting.differences("2027-01.acme") == []


@pytest.mark.parametrize(
    ("before", "after", "hours"),
    [
        (UTC_ZONE, PARIS, "2026-11-30T23:00:00 until 2026-12-01T00:00:00 would be billed twice"),
        (PARIS, UTC_ZONE, "2026-11-30T23:00:00 until 2026-12-01T00:00:00 would be on no statement"),
        (TOKYO, SANTIAGO, "2026-11-30T15:00:00 until 2026-12-01T03:00:00 would be on no statement"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_change_of_the_time_zone_does_not_bill_hours_twice_unasked(before, after, hours):
    accounting = Accounting(directory(with_text(book(price(), timezone=before)), account()), "shop", "web")
    accounting.usage.arrive([month(11), month(12)], IN_DECEMBER - timedelta(days=1))
    await accounting.close("2026-11", ["acme"])
    accounting.use(directory(with_text(book(price(), timezone=after), "second"), account()))
    accounting.at(IN_JANUARY)
    [refused] = await accounting.close("2026-12", ["acme"])
    [problem] = refused.problems
    assert (problem.code, hours in problem.text) == ("time zone changed", True)

    [closed] = await accounting.close("2026-12", ["acme"], accept_gaps="credited by hand")
    assert [each.code for each in closed.signed.statement.completeness.gaps] == ["time zone changed"]


@pytest_twisted.ensureDeferred
async def test_time_zone_may_change_between_months_that_begin_at_one_time_or_after_a_month_without_a_statement():
    accounting = await closed_but_november()
    accounting.use(directory(with_text(book(price(), timezone=ZoneInfo("Europe/Berlin")), "second"), account()))
    accounting.usage.arrive([month(13)], accounting.now)
    assert [each.result for each in await accounting.close("2027-01", ["acme"])] == ["closed"]
    accounting.use(directory(with_text(book(price(), timezone=SANTIAGO), "third"), account()))
    accounting.at(datetime(2027, 4, 8, tzinfo=UTC))
    accounting.usage.arrive([month(15)], accounting.now)
    assert [each.result for each in await accounting.close("2027-03", ["acme"])] == ["closed"]
