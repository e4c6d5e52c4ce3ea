"""Changes of a project or domain from one account to another at which days begin at two times, as the books have other time zones."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.period import start_of_day


class ZoneChange(NamedTuple):
    """The member at ``position`` of the list ``kind`` of ``account`` comes from, or goes to, an account with another time zone.

    ``hours`` are those that both accounts have on the day of the change; those that neither has are negative.
    """

    account: Account
    kind: str
    position: int
    hours: float
    day: date
    before: PriceBook
    after: PriceBook


def zone_changes(directory: PriceDirectory, accounts: Iterable[Account]) -> Iterator[ZoneChange]:
    """Yield the changes of ``accounts``, as they were read, at which hours would be billed twice, or not at all; each once."""
    for account in accounts:
        for kind, members in (("projects", account.projects), ("domains", account.domains)):
            for position, member in enumerate(members):
                for day in (member.validity.since, member.validity.until):
                    if day is None:
                        continue
                    begins = day == member.validity.since
                    other = _other(directory, kind, member.id, day, begins=begins)
                    if other is not None and not begins:
                        continue  # that account's begin is the same change
                    book = directory.books[account.book]
                    beside = directory.books.get(directory.default_book if other is None else other.book)
                    if beside is None:
                        continue
                    before, after = (beside, book) if begins else (book, beside)
                    both = start_of_day(day, before.timezone) - start_of_day(day, after.timezone)
                    if both:
                        yield ZoneChange(account, kind, position, both.total_seconds() / 3600, day, before, after)


def _other(directory: PriceDirectory, kind: str, member: str, day: date, *, begins: bool) -> Account | None:
    """Return the account to which a member belongs on the other side of ``day``; ``None``: projects of it are accounts of their own."""
    at = date.fromordinal(day.toordinal() - 1) if begins and day > date.min else day
    for membership, account in directory.members.get(("project" if kind == "projects" else "domain", member), ()):
        if membership.validity.covers(at):
            return account
    return None
