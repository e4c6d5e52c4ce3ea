"""Which prices a project may see: those for everybody, and those that were agreed with its account, its domain or itself.

What is not visible is left out before anything else is done, so that it is in no number either. Administrators see everything.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from datetime import datetime
from zoneinfo import ZoneInfo

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import PriceScope
from meter.rating.period import day_of

DomainIn = Callable[[date, ZoneInfo], str | None]
"""The id of the domain to which the project that looks belonged on a day of a time zone; ``None``: nothing is known of it."""


@dataclass(frozen=True, slots=True)
class VisibleBook:
    """A book as one project sees it on ``day``, the present day of the book; ``project`` is ``None`` for an administrator."""

    book: PriceBook
    day: date
    project: str | None = None
    account: Account | None = None
    domain: str | None = None

    def sees(self, scope: PriceScope) -> bool:
        """Return whether what has ``scope`` is visible."""
        if self.project is None:
            return True
        return (
            scope.project in (None, self.project)
            and (scope.account is None or (self.account is not None and scope.account == self.account.id))
            and scope.domain in (None, self.domain)
        )


def visible_books(
    directory: PriceDirectory, project: str | None, domain_in: DomainIn, now: datetime
) -> Iterator[VisibleBook]:
    """Yield the books that ``project`` sees: the one of the account to which it belongs now; all if it is ``None``, an administrator."""
    for book in directory.books.values():
        day = day_of(now, book.timezone)
        if project is None:
            yield VisibleBook(book, day)
            continue
        domain = domain_in(day, book.timezone)
        account = directory.account_of(project, domain, day)
        if account.book == book.name:
            yield VisibleBook(book, day, project, account, domain)
