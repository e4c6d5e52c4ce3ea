"""Which projects belong to an account on which day, and for which of them a price or charge is meant."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from datetime import date

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import PriceScope

DomainOf = Callable[[str, date], str | None]
"""The id of the domain to which the project with an id belonged on a day; ``None``: nothing is known of it."""


def no_domain(_project_id: str, _day: date) -> None:
    """Return the domain of a project where nothing is known of domains."""


class AccountProjects:
    """The projects of ``account``, day by day."""

    def __init__(self, directory: PriceDirectory, account: Account, domain_of: DomainOf) -> None:
        self.account = account
        self.domain_of = domain_of
        self._directory = directory
        self._changes: dict[tuple[str, str | None], list[date]] = {}
        self._known: dict[tuple[str, str | None, int], bool] = {}

    def has(self, project_id: str, day: date) -> bool:
        """Return whether the project belongs to the account on ``day``."""
        domain_id = self.domain_of(project_id, day)
        changes = self._changes.get((project_id, domain_id))
        if changes is None:
            changes = self._changes[project_id, domain_id] = self._directory.account_changes(project_id, domain_id)
        key = (project_id, domain_id, bisect_right(changes, day))
        known = self._known.get(key)
        if known is None:
            payer = self._directory.account_of(project_id, domain_id, day)
            known = (payer.id, payer.implied) == (self.account.id, self.account.implied)
            self._known[key] = known
        return known

    def usage_in_scope(self, scope: PriceScope, project_id: str, day: date) -> bool:
        """Return whether something with ``scope`` is for the usage of a project of this account on ``day``."""
        if scope.project is not None:
            return scope.project == project_id
        if scope.account is not None:
            return scope.account == self.account.id
        return scope.domain is None or scope.domain == self.domain_of(project_id, day)

    def account_in_scope(self, scope: PriceScope, day: date) -> bool:
        """Return whether a charge with ``scope`` is for this account on ``day``.

        One of a project is for the account that the project belongs to; one of a domain for each account that names the
        domain, or a project of it. An implied account has no charges on days on which its project belongs to another account.
        """
        if scope.project is not None:
            return self.has(scope.project, day)
        if scope.account is not None:
            return scope.account == self.account.id
        projects = [each.id for each in self.account.projects if self.has(each.id, day)]
        if scope.domain is None:
            return bool(projects) or not self.account.implied
        members = (each for each in self.account.domains if each.validity.covers(day))
        return any(each.id == scope.domain for each in members) or any(
            self.domain_of(each, day) == scope.domain for each in projects
        )
