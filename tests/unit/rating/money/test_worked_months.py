"""The months that docs/statements-amounts.rst works out by hand: from their quantities to their lines."""

from __future__ import annotations

import ast
import csv
import operator
import re
from collections.abc import Callable
from decimal import Context
from decimal import Decimal
from decimal import localcontext
from pathlib import Path

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


PAGE = (Path(__file__).parents[4] / "docs" / "statements-amounts.rst").read_text(encoding="utf-8")
TABLES = dict(re.findall(r"\.\. csv-table:: (\w+)\n   :header: [^\n]*\n\n((?:   [^\n]+\n)+)", PAGE))


OPERATORS: dict[type[ast.operator], Callable[[Decimal, Decimal], Decimal]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def calculated(arithmetic: str) -> Decimal:
    """What the arithmetic of the page gives, to 12 decimals where it has a division."""
    with localcontext(Context(prec=60)):
        value = _value(ast.parse(arithmetic.replace("×", "*"), mode="eval").body)
        return value.quantize(Decimal("1e-12")) if "/" in arithmetic else value


def _value(node: ast.expr) -> Decimal:
    match node:
        case ast.Constant():
            return Decimal(repr(node.value))
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand)
        case ast.BinOp():
            return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise AssertionError(ast.unparse(node))


@pytest.mark.parametrize(("month", "account"), ACCOUNTS, ids=lambda each: getattr(each, "name", each))
def test_the_page_shows_the_arithmetic_of_each_line(month: WorkedMonth, account: str) -> None:
    shown = list(csv.reader(TABLES[account.capitalize()].splitlines(), skipinitialspace=True))
    assert [(exact, amount) for _, _, exact, amount in shown] == [
        (line["exact_amount"], line["amount"]) for line in month.lines(account)
    ]
    for _, arithmetic, exact, _ in shown[:-1]:
        assert calculated(arithmetic) == Decimal(exact), arithmetic
