"""The months that docs/statements.rst works out by hand: from their quantities to their lines."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meter.rating.currency import rounded
from meter.rating.money.rating import rate
from tests.worked_months import MONTHS
from tests.worked_months import WorkedMonth
from tests.worked_months import as_rows
from tests.worked_months import unordered

ACCOUNTS = [(month, account) for month in MONTHS for account in month.accounts()]


@pytest.mark.parametrize(("month", "account"), ACCOUNTS, ids=lambda each: getattr(each, "name", each))
def test_the_lines_are_those_that_were_worked_out_by_hand(month: WorkedMonth, account: str) -> None:
    directory = month.directory()
    payer = month.account(directory, account)
    book = directory.books[payer.book]
    rated = rate(directory, book, payer, month.period_of(book), month.usage(book.name))
    assert unordered(as_rows(rated)) == unordered(month.lines(account))
    assert (list(rated.unpriced), list(rated.unmetered)) == ([], [])


@pytest.mark.parametrize(("month", "account"), ACCOUNTS, ids=lambda each: getattr(each, "name", each))
def test_the_lines_by_hand_are_rounded_once_and_add_up(month: WorkedMonth, account: str) -> None:
    directory = month.directory()
    currency = directory.books[month.account(directory, account).book].currency
    *lines, total = month.lines(account)
    assert sum(Decimal(line["amount"]) for line in lines) == Decimal(total["amount"])
    for line in lines:
        assert str(rounded(Decimal(line["exact_amount"]), currency)) == line["amount"]
