"""Who pays for which projects in a period: the accounts of the price directory, and one of its own for each other project."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.money.account_projects import DomainOf
from meter.rating.period import BillingPeriod


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """An account in a period, with its book, and those of its ``projects`` that have usage, in order."""

    account: Account
    book: PriceBook
    period: BillingPeriod
    projects: tuple[str, ...]


def payers_of(
    directory: PriceDirectory, book: PriceBook, period: BillingPeriod, projects: Iterable[str], domain_of: DomainOf
) -> list[Payer]:
    """Return who pays by ``book``: accounts that have one of ``projects`` on any day of ``period``, and all that the files name.

    They are in the order of their ids. Resources without a project belong to no account.
    """
    members = _Members(directory)
    found: dict[tuple[str, bool], set[str]] = {
        (account.id, False): set() for account in directory.accounts.values() if account.book == book.name
    }
    accounts = {(account.id, False): account for account in directory.accounts.values()}
    days = list(period.days())
    for project_id in {*projects, *charged_projects(book)} - {""}:
        has_usage = project_id in projects
        for account in {members.account_of(project_id, domain_of, day) for day in days}:
            key = account or project_id, account is None
            if account is None:
                accounts.setdefault(key, directory.account_of(project_id, None, days[0]))
            if accounts[key].book == book.name:
                of_account = found.setdefault(key, set())
                if has_usage:
                    of_account.add(project_id)
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
    members = _Members(directory)
    days = list(period.days())
    wanted = None if account.implied else account.id
    own = [
        project_id
        for project_id in sorted(set(projects) - {""})
        if (account.id == project_id or not account.implied)
        and any(members.account_of(project_id, domain_of, day) == wanted for day in days)
    ]
    return Payer(account=account, book=book, period=period, projects=tuple(own))


def account_named(directory: PriceDirectory, account_id: str) -> Account:
    """Return the account with an id: one that the files name, or else that of the project with this id."""
    named = directory.accounts.get(account_id)
    if named is not None:
        return named
    return Account(
        id=account_id, name="", book=directory.default_book, projects=(Membership(id=account_id),), implied=True
    )


def charged_projects(book: PriceBook) -> set[str]:
    """Return the projects that fixed charges and minimums of ``book`` name: they pay without usage, too."""
    scopes = [*(each.scope for each in book.fixed_charges), *(each.scope for each in book.minimums)]
    return {scope.project for scope in scopes if scope.project is not None}


class _Members:
    """The accounts of projects and domains, as :meth:`PriceDirectory.account_of` finds them, without looking at all accounts."""

    def __init__(self, directory: PriceDirectory) -> None:
        self._projects: dict[str, list[tuple[str, Membership]]] = {}
        self._domains: dict[str, list[tuple[str, Membership]]] = {}
        for account in directory.accounts.values():
            for each in account.projects:
                self._projects.setdefault(each.id, []).append((account.id, each))
            for each in account.domains:
                self._domains.setdefault(each.id, []).append((account.id, each))

    def account_of(self, project_id: str, domain_of: DomainOf, day: date) -> str | None:
        """Return the id of the account of a project on ``day``; ``None`` if no file names one."""
        for account_id, member in self._projects.get(project_id, ()):
            if member.validity.covers(day):
                return account_id
        if self._domains:
            for account_id, member in self._domains.get(domain_of(project_id, day) or "", ()):
                if member.validity.covers(day):
                    return account_id
        return None
