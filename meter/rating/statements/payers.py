"""Who pays for which projects in a period: the accounts of the price directory, and one of its own for each other project."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from dataclasses import dataclass

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.money.account_projects import DomainOf
from meter.rating.period import BillingPeriod
from meter.rating.steps import Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """An account in a period, with its book, and those of its ``projects`` that have usage, in order."""

    account: Account
    book: PriceBook
    period: BillingPeriod
    projects: tuple[str, ...]


def payers_of(
    directory: PriceDirectory, book: PriceBook, period: BillingPeriod, projects: Collection[str], domain_of: DomainOf
) -> Steps[list[Payer]]:
    """Return who pays by ``book``: accounts that have one of ``projects`` on any day of ``period``, and all that the files name.

    They are in the order of their ids. Resources without a project belong to no account. A step is a project.
    """
    found: dict[tuple[str, bool], set[str]] = {}
    accounts: dict[tuple[str, bool], Account] = {}
    for account in directory.accounts.values():
        if account.book == book.name:
            found[account.id, False], accounts[account.id, False] = set(), account
    days, with_usage = list(period.days()), frozenset(projects)
    for project_id in {*projects, *charged_projects(book)} - {""}:
        for day in days:
            account = directory.account_of(project_id, domain_of(project_id, day), day)
            if account.book == book.name:
                key = account.id, account.implied
                accounts[key] = account
                of_account = found.setdefault(key, set())
                if project_id in with_usage:
                    of_account.add(project_id)
        yield
    return [
        Payer(account=accounts[key], book=book, period=period, projects=tuple(sorted(of_account)))
        for key, of_account in sorted(found.items())
    ]


def payer_of(
    directory: PriceDirectory, account: Account, period_name: str, projects: Iterable[str], domain_of: DomainOf
) -> Payer:
    """Return one account as a payer; ``projects`` are those with usage of which some may be others'.

    :raises ValueError: ``period_name`` is not the name of a period.
    """
    book = directory.books[account.book]
    period = BillingPeriod.named(period_name, book.timezone)
    days = list(period.days())
    own = [
        project_id
        for project_id in sorted(set(projects) - {""})
        if any(_is(account, directory.account_of(project_id, domain_of(project_id, day), day)) for day in days)
    ]
    return Payer(account=account, book=book, period=period, projects=tuple(own))


def _is(account: Account, other: Account) -> bool:
    return (account.id, account.implied) == (other.id, other.implied)


def account_named(directory: PriceDirectory, account_id: str) -> Account:
    """Return the account with an id: one that the files name, or else that of the project with this id."""
    named = directory.accounts.get(account_id)
    if named is not None:
        return named
    return Account(
        id=account_id, name="", book=directory.default_book, projects=(Membership(id=account_id),), implied=True
    )


def same_id_problem(directory: PriceDirectory, account: Account) -> str:
    """Return what is wrong with ``account``, which stands for a project, if a file names another one with its id; else ""."""
    if not account.implied or account.id not in directory.accounts:
        return ""
    return f"project {account.id} belongs to no account, and an account has the same id: name the project in one"


def charged_projects(book: PriceBook) -> set[str]:
    """Return the projects that fixed charges and minimums of ``book`` name: they pay without usage, too."""
    scopes = [*(each.scope for each in book.fixed_charges), *(each.scope for each in book.minimums)]
    return {scope.project for scope in scopes if scope.project is not None}
