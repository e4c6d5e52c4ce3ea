"""How much rating does at once: no step prices more than one quantity, or makes more than one line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from meter.rating.book.price_index import price_of
from meter.rating.money.forecast import Forecast
from meter.rating.money.rated import Rated
from meter.rating.money.rating import Rating
from meter.rating.money.rating import in_order
from meter.rating.steps import Steps
from meter.rating.steps import at_once
from tests.price_books import NOVEMBER
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import price
from tests.price_books import used

PROJECTS = [f"p{number:02}" for number in range(30)]
USAGE = in_order(
    used(day, 5, project, sku=sku) for sku in ("disk", "egress") for day in (1, 2, 3) for project in PROJECTS
)
NOW = NOVEMBER.start + timedelta(days=3)


@pytest.mark.parametrize("wrap", [lambda rating: rating, lambda rating: Forecast(rating, NOW)])
def test_a_step_prices_one_quantity(wrap: Callable[[Rating], Rating | Forecast]) -> None:
    priced, most = [], 0

    def counted(*arguments: Any, **named: Any) -> Any:
        priced.append(named)
        return price_of(*arguments, **named)

    def stepped(steps: Steps[Any]) -> Any:
        nonlocal most
        try:
            while True:
                priced.clear()
                next(steps)
                most = max(most, len(priced))
        except StopIteration as end:
            most = max(most, len(priced))
            return end.value

    def rating() -> Rating:
        acme = account(projects=PROJECTS)
        prices = directory(book(price(), price("p2", sku="disk")), acme)
        return Rating(prices, prices.books["list"], acme, NOVEMBER, price_of=counted)

    by_step, whole = wrap(rating()), wrap(rating())
    for atom in USAGE:
        stepped(by_step.begin(atom.sku, atom.day))
        priced.clear()
        by_step.add(atom)
        assert not priced, "adding does not end anything that begin has ended"
        whole.add(atom)
    result: Rated = stepped(by_step.results())
    assert most == 1
    assert result == whole.result()
    assert len(result.lines) == 2 * len(PROJECTS)


def test_steps_of_a_result_are_as_many_as_its_lines() -> None:
    acme = account(projects=PROJECTS)
    prices = directory(book(price(), price("p2", sku="disk")), acme)
    rating = Rating(prices, prices.books["list"], acme, NOVEMBER)
    for atom in USAGE:
        at_once(rating.begin(atom.sku, atom.day))
        rating.add(atom)
    assert sum(1 for _ in rating.results()) >= len(PROJECTS)
