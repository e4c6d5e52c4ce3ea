"""Lines besides usage: fixed charges, discounts, minimums, credits and taxes."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Credit
from meter.rating.book.price_book import Discount
from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import Minimum
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Tax
from meter.rating.currency import rounded
from meter.rating.money.credits import credits_used
from meter.rating.money.rated import LINE_ORDER
from meter.rating.money.rated import Rated
from meter.rating.money.rated import RatedLine
from meter.rating.money.rating import rate
from meter.rating.period import BillingPeriod
from meter.rating.usage.usage_atom import UsageAtom
from tests.price_books import NOVEMBER
from tests.price_books import PLACE
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import november
from tests.price_books import price
from tests.price_books import sku
from tests.price_books import used
from tests.price_books import valid

ACME = account()
DECEMBER = date(2026, 12, 1)


def charge(
    amount: str = "30", id: str = "support", recurring: bool = True, prorated: bool = True, **fields: Any
) -> FixedCharge:
    values: dict[str, Any] = {
        "description": "Support",
        "service": "Support",
        "category": "Other",
        "validity": valid(),
        "scope": PriceScope(),
        "list_amount": Decimal(amount) * 2,
    }
    return FixedCharge(
        id=id, amount=Decimal(amount), recurring=recurring, prorated=prorated, place=PLACE, **{**values, **fields}
    )


def discount(percent: str, id: str = "d1", **fields: Any) -> Discount:
    return Discount(id=id, description="Loyalty", percent=Decimal(percent), place=PLACE, **fields)


def minimum(amount: str, id: str = "m1", **fields: Any) -> Minimum:
    return Minimum(id=id, description="Base", amount=Decimal(amount), place=PLACE, **fields)


def credit(amount: str, id: str = "c1", **fields: Any) -> Credit:
    return Credit(
        **{
            "id": id,
            "description": "Voucher",
            "amount": Decimal(amount),
            "place": PLACE,
            "scope": PriceScope(account="acme"),
            **fields,
        }
    )


def tax(percent: str, category: str = "standard", **fields: Any) -> Tax:
    return Tax(category=category, name="VAT", percent=Decimal(percent), place=PLACE, **fields)


def rated(
    prices: PriceBook,
    usage: Iterable[UsageAtom] = (),
    *accounts: Account,
    period: BillingPeriod = NOVEMBER,
    corrections: Sequence[RatedLine] = (),
    credits_used: Mapping[str, Decimal] | None = None,
    domains: Mapping[str, str] | None = None,
) -> Rated:
    accounts = accounts or (ACME,)
    return rate(
        directory(prices, *accounts),
        prices,
        accounts[0],
        period,
        usage,
        domain_of=lambda project, _day: (domains or {}).get(project),
        corrections=corrections,
        credits_used=credits_used,
    )


def correction(amount: str, project: str = "shop", **fields: Any) -> RatedLine:
    return RatedLine(
        kind="correction",
        key=f"correction/2026-10.acme/{amount}",
        project_id=project,
        description="Correction",
        first=date(2026, 10, 1),
        until=date(2026, 10, 2),
        exact_amount=Decimal(amount),
        amount=Decimal(amount),
        list_amount=Decimal(amount),
        **fields,
    )


def amounts(result: Rated) -> list[tuple[str, str, str]]:
    return [(each.kind, each.project_id, str(each.amount)) for each in result.lines]


# --- fixed charges ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("validity", "prorated", "amount", "days"),
    [
        (valid(), True, "30.00", (november(1), DECEMBER)),
        (valid(since=november(16)), True, "15.00", (november(16), DECEMBER)),
        (valid(until=november(2)), True, "1.00", (november(1), november(2))),
        (valid(since=november(10), until=november(17)), True, "7.00", (november(10), november(17))),
        (valid(since=november(10), until=november(17)), False, "30.00", (november(10), november(17))),
    ],
)
def test_a_recurring_charge_is_prorated_by_days(validity: Any, prorated: bool, amount: str, days: Any) -> None:
    [line] = rated(book(fixed_charges=(charge(prorated=prorated, validity=validity),))).lines
    assert (line.kind, str(line.amount), (line.first, line.until)) == ("fixed", amount, days)
    assert line.list_amount == 2 * line.exact_amount


@pytest.mark.parametrize(
    "validity", [valid(since=DECEMBER), valid(until=november(1)), valid(since=date(2026, 1, 1), until=date(2026, 2, 1))]
)
def test_a_charge_that_is_not_valid_in_the_period_is_not_on_its_statement(validity: Any) -> None:
    charges = (charge(validity=validity), charge(id="full", prorated=False, validity=validity))
    assert rated(book(fixed_charges=charges)).lines == ()


def test_a_share_of_a_charge_is_divided_to_12_decimals_and_rounded_once() -> None:
    [line] = rated(book(fixed_charges=(charge("10", validity=valid(until=november(8))),))).lines
    assert (line.exact_amount, line.amount) == (Decimal("2.333333333333"), Decimal("2.33"))
    assert line.description == "Support, 7 of 30 days"


def test_a_one_time_charge_is_on_the_statement_of_its_day() -> None:
    once = charge("99", recurring=False, validity=valid(since=november(30)), resource_id="vm-1")
    [line] = rated(book(fixed_charges=(once,))).lines
    assert (line.amount, line.first, line.until, line.resource_id) == (99, november(30), DECEMBER, "vm-1")
    assert rated(book(fixed_charges=(once,)), period=NOVEMBER.next).lines == ()
    assert rated(book(fixed_charges=(once,)), period=NOVEMBER.previous).lines == ()


def test_29_february_is_a_day_of_the_month() -> None:
    leap = BillingPeriod.named("2028-02", ZoneInfo("Europe/Paris"))
    day = charge("29", validity=valid(since=date(2028, 2, 29)))
    once = charge("5", id="once", recurring=False, validity=valid(since=date(2028, 2, 29)))
    assert amounts(rated(book(fixed_charges=(day, once)), period=leap)) == [
        ("fixed", "", "1.00"),
        ("fixed", "", "5.00"),
    ]


@pytest.mark.parametrize(
    ("scope", "charged"),
    [
        (PriceScope(), True),
        (PriceScope(account="acme"), True),
        (PriceScope(account="other"), False),
        (PriceScope(project="shop"), True),
        (PriceScope(project="elsewhere"), False),
        (PriceScope(domain="d1"), True),
        (PriceScope(domain="d2"), False),
    ],
)
def test_a_charge_is_for_the_accounts_of_its_scope(scope: PriceScope, charged: bool) -> None:
    lines = rated(book(fixed_charges=(charge(scope=scope),)), domains={"shop": "d1", "elsewhere": "d2"}).lines
    assert bool(lines) is charged
    assert {each.project_id for each in lines} <= {scope.project or ""}


def test_a_charge_of_a_project_that_changes_accounts_is_paid_once() -> None:
    old = Account(
        id="old", name="Old", book="list", projects=(Membership(id="shop", validity=valid(until=november(11))),)
    )
    new = Account(
        id="new", name="New", book="list", projects=(Membership(id="shop", validity=valid(since=november(11))),)
    )
    scope = PriceScope(project="shop")
    prices = book(fixed_charges=(charge(scope=scope), charge("5", id="full", prorated=False, scope=scope)))
    assert amounts(rated(prices, (), old, new)) == [("fixed", "shop", "10.00"), ("fixed", "shop", "5.00")]
    assert amounts(rated(prices, (), new, old)) == [("fixed", "shop", "20.00")]


# --- discounts ----------------------------------------------------------------------------------------------------------


def test_a_discount_is_a_percentage_of_the_exact_amounts_by_project_and_sku() -> None:
    prices = book(price(amount="0.105"), price("v", "1", sku="vm"), discounts=(discount("10", skus=("egress",)),))
    result = rated(prices, [used(1, 1, "shop"), used(2, 1, "web"), used(1, 1, sku="vm")])
    assert [
        (each.kind, each.project_id, str(each.exact_amount)) for each in result.lines if each.kind == "discount"
    ] == [
        ("discount", "shop", "-0.0105"),
        ("discount", "web", "-0.0105"),
    ]
    assert [each.key for each in result.lines if each.kind == "discount"] == [
        "discount/d1/shop/egress",
        "discount/d1/web/egress",
    ]
    assert result.lines[-1].description == "Loyalty: 10 % of Egress"


def test_a_discount_is_for_the_usage_of_its_days() -> None:
    prices = book(price(amount="1"), discounts=(discount("50", validity=valid(november(10), november(20))),))
    result = rated(prices, [used(9, 1), used(10, 2), used(19, 4), used(20, 8)])
    assert amounts(result) == [("usage", "shop", "15.00"), ("discount", "shop", "-3.00")]
    assert (result.lines[1].first, result.lines[1].until) == (november(10), november(20))


def test_a_discount_follows_its_days_through_volume_packages_and_months() -> None:
    for fields in (
        {"mode": "package", "package_size": Decimal(2)},
        {"mode": "volume"},
        {"per_month": True},
        {"free": Decimal(1)},
    ):
        days = (discount("100", validity=valid(november(10), november(11))),)
        full = rated(book(price(amount="7", **fields), discounts=days), [used(10, 6)])
        assert (full.net, len(full.lines)) == (0, 3 if "free" in fields else 2)
        half = rated(book(price(amount="7", **fields), discounts=days), [used(9, 6), used(10, 6)])
        undiscounted = rated(book(price(amount="7", **fields)), [used(9, 6)])
        assert half.net == undiscounted.net


def test_discounts_together_take_off_at_most_everything() -> None:
    prices = book(price(amount="1"), discounts=(discount("60"), discount("60", id="d2")))
    assert amounts(rated(prices, [used(1, 10)])) == [
        ("usage", "shop", "10.00"),
        ("discount", "shop", "-6.00"),
        ("discount", "shop", "-4.00"),
    ]


@pytest.mark.parametrize(
    ("quantity", "lines", "percents", "net"),
    [
        ("0.05", 3, ["100"], "0.00"),  # 3 x 0.01; the exact 0.015 are 0.02
        ("0.04", 9, ["100"], "0.00"),  # 9 x 0.00; the exact 0.036 are 0.04
        ("0.05", 3, ["60", "40"], "0.00"),
        ("0.05", 3, ["60", "60"], "0.00"),
        ("0.04", 9, ["50"], "0.00"),
        ("0.05", 9, ["50"], "0.07"),
    ],
)
def test_a_discount_leaves_nothing_of_the_whole_and_never_less_than_nothing(
    quantity: str, lines: int, percents: list[str], net: str
) -> None:
    discounts = tuple(discount(each, id=f"d{number}") for number, each in enumerate(percents))
    prices = book(price(amount="0.1"), skus=[sku(by=("kind",))], discounts=discounts)
    result = rated(prices, [used(1, quantity, kind=str(number)) for number in range(lines)])
    assert str(result.net) == net
    assert all(each.amount == rounded(each.exact_amount, "EUR") for each in result.lines)


@pytest.mark.parametrize("scope", [PriceScope(project="web"), PriceScope(domain="d1")])
def test_a_discount_is_for_the_projects_of_its_scope(scope: PriceScope) -> None:
    prices = book(price(amount="1"), discounts=(discount("10", scope=scope),))
    result = rated(prices, [used(1, 10, "shop"), used(1, 10, "web")], domains={"web": "d1"})
    assert [each.project_id for each in result.lines if each.kind == "discount"] == ["web"]


# --- minimums -----------------------------------------------------------------------------------------------------------


def test_a_minimum_adds_what_is_missing_after_discounts() -> None:
    prices = book(
        price(amount="1"), discounts=(discount("10"),), fixed_charges=(charge("3"),), minimums=(minimum("20"),)
    )
    result = rated(prices, [used(1, 10)])
    assert amounts(result)[-1] == ("minimum", "", "8.00")
    assert result.total == 20


def test_a_minimum_that_is_reached_adds_nothing() -> None:
    assert amounts(rated(book(price(amount="1"), minimums=(minimum("10"),)), [used(1, 10)])) == [
        ("usage", "shop", "10.00")
    ]


def test_a_minimum_per_project_is_one_of_each_project_with_lines_and_counts_for_the_account() -> None:
    prices = book(price(amount="1"), minimums=(minimum("30", id="m2"), minimum("10", per="project")))
    assert amounts(rated(prices, [used(1, 4, "shop"), used(1, 12, "web")]))[2:] == [
        ("minimum", "shop", "6.00"),
        ("minimum", "", "8.00"),
    ]


def test_a_minimum_that_names_a_project_is_for_it_without_usage_too() -> None:
    prices = book(minimums=(minimum("10", per="project", scope=PriceScope(project="web")),))
    assert amounts(rated(prices)) == [("minimum", "web", "10.00")]
    assert rated(prices, (), account("other", projects=("x",))).lines == ()


@pytest.mark.parametrize(("since", "lines"), [(november(1), 1), (november(2), 0)])
def test_a_minimum_is_for_periods_that_begin_in_its_days(since: date, lines: int) -> None:
    assert len(rated(book(minimums=(minimum("10", validity=valid(since=since)),))).lines) == lines


# --- credits ------------------------------------------------------------------------------------------------------------


def test_a_credit_is_used_until_nothing_is_to_be_paid() -> None:
    prices = book(price(amount="1"), credits=(credit("30"),))
    first = rated(prices, [used(1, 12)])
    assert amounts(first) == [("usage", "shop", "12.00"), ("credit", "", "-12.00")]
    spent = credits_used(first.lines)
    assert spent == {"c1": 12}
    second = rated(prices, [used(1, 20)], credits_used=spent)
    assert (amounts(second)[1], second.total) == (("credit", "", "-18.00"), 2)
    used_up = credits_used([*first.lines, *second.lines])
    assert amounts(rated(prices, [used(1, 20)], credits_used=used_up)) == [("usage", "shop", "20.00")]


def test_a_credit_of_a_project_pays_for_that_project_first() -> None:
    prices = book(
        price(amount="1"),
        credits=(credit("100", id="a"), credit("100", id="b", scope=PriceScope(project="web"))),
    )
    result = rated(prices, [used(1, 5, "shop"), used(1, 7, "web")])
    assert amounts(result)[2:] == [("credit", "web", "-7.00"), ("credit", "", "-5.00")]


def test_credits_that_end_first_are_used_first() -> None:
    prices = book(
        price(amount="1"),
        credits=(credit("4", id="a"), credit("4", id="z", validity=valid(until=date(2027, 1, 1)))),
    )
    assert [each.key for each in rated(prices, [used(1, 5)]).lines[1:]] == ["credit/z", "credit/a"]


def test_a_negative_correction_leaves_a_credit_alone() -> None:
    prices = book(price(amount="1"), credits=(credit("30"),))
    result = rated(prices, [used(1, 5)], corrections=[correction("-8.00")])
    assert (amounts(result)[-1], result.total) == (("correction", "shop", "-8.00"), -3)


def test_a_credit_pays_no_tax_category_below_zero() -> None:
    prices = book(
        price(amount="1"),
        price("v", "1", sku="vm"),
        skus=[sku(), sku("vm", tax_category="exempt")],
        credits=(credit("8"),),
        taxes=(tax("20", default=True), tax("0", "exempt")),
    )
    result = rated(prices, [used(1, 5), used(1, 5, sku="vm")])
    assert [(each.kind, each.tax_category, str(each.amount)) for each in result.lines[2:]] == [
        ("credit", "exempt", "-5.00"),
        ("credit", "standard", "-3.00"),
        ("tax", "exempt", "0.00"),
        ("tax", "standard", "0.40"),
    ]
    assert credits_used(result.lines) == {"c1": 8}


money = st.integers(-500, 3000).map(lambda cents: Decimal(cents).scaleb(-2))


@given(
    st.lists(st.tuples(money, st.sampled_from(["shop", "web"]), st.sampled_from([None, "exempt"])), max_size=5),
    st.lists(st.tuples(money.filter(lambda each: each >= 0), st.sampled_from([None, "shop", "web"])), max_size=4),
)
def test_credits_never_make_an_amount_negative(
    lines: list[tuple[Decimal, str, str | None]], given_credits: list[tuple[Decimal, str | None]]
) -> None:
    prices = book(
        credits=tuple(
            credit(
                str(amount),
                id=str(number),
                scope=PriceScope(project=project) if project else PriceScope(account="acme"),
            )
            for number, (amount, project) in enumerate(given_credits)
        ),
        taxes=(tax("20", default=True), tax("0", "exempt")),
    )
    before = [correction(str(amount), project, tax_category=category) for amount, project, category in lines]
    result = rated(prices, corrections=before)
    due = sum(amount for amount, _, _ in lines)
    taken = credits_used(result.lines)
    assert min(due, 0) <= result.net <= due
    assert all(
        0 < taken[str(number)] <= amount for number, (amount, _) in enumerate(given_credits) if str(number) in taken
    )
    for project in ("shop", "web"):
        of_project = sum(amount for amount, its, _ in lines if its == project)
        paid = sum(each.amount for each in result.lines if each.kind == "credit" and each.project_id == project)
        assert of_project + paid >= min(of_project, 0)


# --- taxes --------------------------------------------------------------------------------------------------------------


def test_a_tax_is_one_of_the_sum_and_rounded_once() -> None:
    prices = book(price(amount="0.13"), taxes=(tax("19", default=True),))
    result = rated(prices, [used(1, 1, "shop"), used(1, 1, "web")])
    # 19 % of 0.13 is 0.0247, twice 0.05 if each were rounded to 0.02 or to 0.03: 0.04 or 0.06.
    assert (result.net, result.tax, result.total) == (Decimal("0.26"), Decimal("0.05"), Decimal("0.31"))
    assert result.lines[-1].description == "VAT: 19 % of 0.26 EUR"


def test_lines_without_a_category_have_the_default_tax_and_none_without_taxes() -> None:
    usage = [used(1, 10), used(1, 5, sku="vm")]
    skus = [sku(), sku("vm", tax_category="reduced")]
    prices = [price(amount="1"), price("v", "1", sku="vm")]
    taxed = rated(book(*prices, skus=skus, taxes=(tax("20", default=True), tax("5", "reduced"))), usage)
    assert [(each.tax_category, str(each.amount)) for each in taxed.lines if each.kind == "tax"] == [
        ("reduced", "0.25"),
        ("standard", "2.00"),
    ]
    assert rated(book(*prices, skus=skus), usage).tax == 0
    assert rated(book(*prices, skus=skus, taxes=(tax("5", "reduced"),)), usage).tax == Decimal("0.25")


def test_a_tax_is_that_of_the_first_day_of_the_period() -> None:
    taxes = (
        tax("20", default=True, validity=valid(until=DECEMBER)),
        tax("25", default=True, validity=valid(since=DECEMBER)),
    )
    prices = book(price(amount="1"), taxes=taxes)
    assert rated(prices, [used(1, 10)]).tax == 2
    assert rated(prices, [used(DECEMBER, 10)], period=NOVEMBER.next).tax == Decimal("2.5")


def test_a_refund_has_a_negative_tax() -> None:
    assert rated(book(taxes=(tax("19", default=True),)), corrections=[correction("-0.50")]).tax == Decimal("-0.10")


# --- together -----------------------------------------------------------------------------------------------------------


def test_the_kinds_of_lines_have_their_order_and_the_total_is_their_sum() -> None:
    prices = book(
        price(amount="1"),
        fixed_charges=(charge("3"),),
        discounts=(discount("10"),),
        minimums=(minimum("50"),),
        credits=(credit("20"),),
        taxes=(tax("20", default=True),),
    )
    result = rated(prices, [used(1, 10)], corrections=[correction("4.00")])
    assert tuple(each.kind for each in result.lines) == LINE_ORDER
    assert len({each.key for each in result.lines}) == len(result.lines)
    assert (result.net, result.tax, result.total) == (34, Decimal("6.80"), Decimal("40.80"))
    assert result.total == sum(each.amount for each in result.lines)


@pytest.mark.parametrize(("currency", "zero"), [("EUR", "0.00"), ("JPY", "0"), ("KWD", "0.000")])
def test_the_sums_of_no_lines_have_the_digits_of_the_currency(currency: str, zero: str) -> None:
    result = rated(book(currency=currency))
    assert [str(each) for each in (result.net, result.tax, result.total)] == [zero] * 3


# --- days on which things hold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["a", "z"])
def test_default_category_is_that_of_the_period(names: str) -> None:
    old = tax("10", f"{names}-old", default=True, validity=valid(until=date(2026, 7, 1)))
    new = tax("20", "m-new", default=True, validity=valid(since=date(2026, 7, 1)))
    prices = book(price(amount="1"), taxes=(old, new), credits=(credit("40"),))
    result = rated(prices, [used(1, 100)])
    assert amounts(result)[1:] == [("credit", "", "-40.00"), ("tax", "", "12.00")]
    assert result.lines[1].tax_category == "m-new"


@pytest.mark.parametrize("scope", [PriceScope(domain="d1"), PriceScope()])
@pytest.mark.parametrize(("prorated", "moved", "stayed"), [(True, "15.00", "15.00"), (False, "30.00", None)])
def test_project_that_joins_an_account_has_charges_of_its_own_until_then(
    scope: PriceScope, prorated: bool, moved: str, stayed: str | None
) -> None:
    joined = Account(
        id="acme", name="", book="list", projects=(Membership(id="shop", validity=valid(since=november(16))),)
    )
    prices = book(fixed_charges=(charge(scope=scope, prorated=prorated),))
    known = directory(prices, joined)
    own = known.account_of("shop", "d1", november(1))
    assert own.implied
    result = rate(known, prices, own, NOVEMBER, (), domain_of=lambda *_: "d1")
    assert [str(each.amount) for each in result.lines] == [moved]
    if scope.domain and stayed:
        others = rate(known, prices, joined, NOVEMBER, (), domain_of=lambda *_: "d1")
        assert [str(each.amount) for each in others.lines] == [stayed]
