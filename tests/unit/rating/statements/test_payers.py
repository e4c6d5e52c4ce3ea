"""Who pays for which projects, and how much is done at once to find it out."""

from __future__ import annotations

from meter.rating.statements.payers import payers_of
from meter.rating.steps import at_once
from tests.price_books import NOVEMBER
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price


def test_accounts_have_their_projects_and_other_projects_pay_for_themselves() -> None:
    prices = directory(book(price()), account())
    found = at_once(payers_of(prices, prices.books["list"], NOVEMBER, ["web", "lab", ""], lambda *_: None))
    assert [(each.account.id, each.account.implied, each.projects) for each in found] == [
        ("acme", False, ("web",)),
        ("lab", True, ("lab",)),
    ]


def test_a_step_looks_at_one_project() -> None:
    prices, asked = directory(book(price())), []
    projects = [f"p{number}" for number in range(100)]
    steps = payers_of(prices, prices.books["list"], NOVEMBER, projects, lambda *each: asked.append(each))
    counts = []
    for _ in steps:
        counts.append(len({project for project, _ in asked}))
        asked.clear()
    assert counts == [1] * 100
