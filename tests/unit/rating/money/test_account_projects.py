"""Which projects belong to an account, day by day: the same as the price directory says for each of them."""

from __future__ import annotations

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Validity
from meter.rating.money.account_projects import AccountProjects
from tests.price_books import NOVEMBER
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.price_books import november
from tests.price_books import valid

PROJECTS = ("p1", "p2", "p3")
DOMAINS = ("d1", "d2")
days = st.one_of(st.none(), st.integers(1, 30).map(november))
validities = st.builds(Validity, since=days, until=days)


def members(ids: tuple[str, ...]) -> st.SearchStrategy[tuple[Membership, ...]]:
    return st.lists(st.builds(Membership, id=st.sampled_from(ids), validity=validities), max_size=3).map(tuple)


accounts = st.lists(
    st.tuples(members(PROJECTS), members(DOMAINS)),
    max_size=4,
).map(
    lambda each: [
        Account(id=f"a{number}", name="", book="list", projects=projects, domains=domains)
        for number, (projects, domains) in enumerate(each)
    ]
)
domains_by_day = st.dictionaries(st.tuples(st.sampled_from(PROJECTS), st.integers(1, 30)), st.sampled_from(DOMAINS))


@given(accounts, domains_by_day)
def test_a_project_is_of_the_account_that_the_directory_names(
    named: list[Account], domains: dict[tuple[str, int], str]
) -> None:
    prices = directory(book(), *named)

    def domain_of(project_id: str, day: date) -> str | None:
        return domains.get((project_id, day.day))

    implied = [
        Account(id=each, name="", book="list", projects=(Membership(id=each),), implied=True) for each in PROJECTS
    ]
    owned = [(each, AccountProjects(prices, each, domain_of)) for each in (*named, *implied)]
    for day in NOVEMBER.days():
        for project_id in PROJECTS:
            payer = prices.account_of(project_id, domain_of(project_id, day), day)
            assert [each.id for each, projects in owned if projects.has(project_id, day)] == [payer.id]


def test_a_domain_scope_is_for_accounts_of_the_domain_while_they_have_it() -> None:
    acme = Account(id="acme", name="", book="list", domains=(Membership(id="d1", validity=valid(until=november(10))),))
    projects = AccountProjects(directory(book(), acme), acme, lambda _project, _day: None)
    scope = PriceScope(domain="d1")
    assert [projects.account_in_scope(scope, november(day)) for day in (1, 9, 10)] == [True, True, False]


def test_an_account_of_one_project_may_be_in_the_directory() -> None:
    implied = account("p1", projects=["p1"], implied=True)
    assert AccountProjects(directory(book(), implied), implied, lambda _project, _day: None).has("p1", november(1))
