"""Laws of rating: any book and usage, compared with counting unit by unit."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from meter.rating.book.price_book import Price
from meter.rating.currency import minor_digits
from meter.rating.money.rated import Rated
from meter.rating.money.rating import in_order
from meter.rating.money.rating import rate
from meter.rating.usage.usage_atom import UsageAtom
from tests import rated_usage
from tests.price_books import NOVEMBER
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import november
from tests.price_books import price
from tests.price_books import sku
from tests.price_books import tiers
from tests.price_books import used
from tests.unit_by_unit_rating import costs
from tests.unit_by_unit_rating import to_minor_unit

ACME = account()
currencies = st.sampled_from(["EUR", "JPY", "KWD"])


def rated(prices: Sequence[Price], usage: Iterable[UsageAtom], currency: str = "EUR") -> Rated:
    prices_book = book(*prices, skus=[sku(by=("flavor",))], currency=currency)
    return rate(directory(prices_book, ACME), prices_book, ACME, NOVEMBER, usage)


@given(rated_usage.prices(), rated_usage.usage(), currencies)
def test_every_line_costs_what_its_units_cost_one_by_one(
    prices: list[Price], usage: list[UsageAtom], currency: str
) -> None:
    result = rated(prices, usage, currency)
    expected = costs(prices, usage)
    assert {
        (each.project_id, str(sorted(each.values.items())), each.price_id, each.tier): Fraction(each.exact_amount)
        for each in result.lines
    } == expected
    digits = minor_digits(currency)
    assert [Fraction(each.amount) for each in result.lines] == [
        to_minor_unit(Fraction(each.exact_amount), digits) for each in result.lines
    ]
    assert result.total == sum(each.amount for each in result.lines)


@given(rated_usage.prices(), rated_usage.usage(), st.randoms())
def test_the_order_within_a_day_changes_nothing(
    prices: list[Price], usage: list[UsageAtom], random: st.random.Random
) -> None:
    shuffled = list(usage)
    random.shuffle(shuffled)
    by_day = sorted(shuffled, key=lambda each: each.day)
    assert rated(prices, by_day) == rated(prices, usage)
    assert rated(prices, in_order(shuffled)) == rated(prices, usage)


@given(
    rated_usage.prices(pers=("account", "project")),
    rated_usage.usage(),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_splitting_usage_over_resources_changes_nothing_where_nothing_counts_resources(
    prices: list[Price], usage: list[UsageAtom], parts: list[int]
) -> None:
    split = []
    for atom in usage:
        pieces = rated_usage.split(atom, parts)
        rest = atom.quantity - sum(each.quantity for each in pieces)
        split += [*pieces, used(atom.day, rest, atom.project_id, "rest", **atom.values)]
    assert rated(prices, split) == rated(prices, usage)


@given(rated_usage.prices(pers=("account", "project")), rated_usage.usage())
def test_the_sum_of_resources_is_rated_as_the_resources_are(prices: list[Price], usage: list[UsageAtom]) -> None:
    sums: dict[tuple[object, ...], UsageAtom] = {}
    for atom in usage:
        key = (atom.day, atom.project_id, tuple(sorted(atom.values.items())))
        before = sums[key].quantity if key in sums else Decimal(0)
        sums[key] = replace(atom, resource_id="", quantity=before + atom.quantity)
    assert rated(prices, in_order(sums.values())) == rated(prices, usage)


@given(rated_usage.prices(pers=("account", "project")), rated_usage.usage())
def test_the_days_of_a_month_add_up_to_the_month(prices: list[Price], usage: list[UsageAtom]) -> None:
    """The usage of the days in which a price holds costs as much as the sum of them on one of these days."""
    alone = [replace(each, project_id="shop", values={"flavor": "big"}) for each in usage]
    changes = sorted({day for each in prices for day in (each.validity.since, each.validity.until) if day})
    days = [november(1), *changes]
    summed = []
    for first, until in zip(days, [*changes, NOVEMBER.until], strict=True):
        quantity = sum((each.quantity for each in alone if first <= each.day < until), Decimal(0))
        summed.append(used(first, quantity, flavor="big"))
    by_day, at_once = rated(prices, alone), rated(prices, summed)
    assert [(each.key, each.quantity, each.exact_amount) for each in by_day.lines] == [
        (each.key, each.quantity, each.exact_amount) for each in at_once.lines
    ]


quantities = st.integers(0, 10**15).map(lambda each: Decimal(each).scaleb(-9))


@given(
    st.lists(st.tuples(st.integers(1, 30), quantities), min_size=1, max_size=30),
    st.lists(st.decimals("0.000000000001", 10**6, places=9), min_size=1, max_size=4, unique=True),
    st.lists(st.decimals(0, 1000, places=12), min_size=5, max_size=5),
)
def test_tiers_by_day_are_the_closed_form_over_the_month(
    days: list[tuple[int, Decimal]], edges: list[Decimal], unit_prices: list[Decimal]
) -> None:
    edges = sorted(edges)
    rungs = [
        *((str(edge), str(cost)) for edge, cost in zip(edges, unit_prices, strict=False)),
        (None, str(unit_prices[-1])),
    ]
    result = rated([price(mode="graduated", tiers=tiers(*rungs))], [used(day, units) for day, units in sorted(days)])
    total = sum(Fraction(units) for _, units in days)
    bounds = [Fraction(0), *(Fraction(edge) for edge in edges)]
    closed = Fraction(0)
    for number, (up_to, cost) in enumerate(rungs):
        top = total if up_to is None else min(total, Fraction(up_to))
        closed += max(Fraction(0), top - bounds[number]) * Fraction(cost)
    assert sum(Fraction(each.exact_amount) for each in result.lines) == closed
    assert sum(Fraction(each.quantity or 0) for each in result.lines) == total
