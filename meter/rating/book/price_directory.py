"""Reading a price directory: all its files, checked as a whole."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from meter.rating.book.assembly import Assembly
from meter.rating.book.book_problem import BookProblem
from meter.rating.book.book_problem import PriceBookError
from meter.rating.book.book_problem import suggestion
from meter.rating.book.book_text import canonical_account
from meter.rating.book.book_text import with_text
from meter.rating.book.book_warnings import has_no_tax
from meter.rating.book.book_warnings import match_warning
from meter.rating.book.book_warnings import price_holes
from meter.rating.book.book_warnings import state_warnings
from meter.rating.book.book_warnings import unpriced
from meter.rating.book.membership_changes import zone_changes
from meter.rating.book.meter_warnings import meter_warnings
from meter.rating.book.overlaps import is_member_always
from meter.rating.book.overlaps import membership_conflicts
from meter.rating.book.overlaps import price_conflicts
from meter.rating.book.overlaps import tax_conflicts
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_files import PriceFile
from meter.rating.book.price_files import read_files
from meter.rating.book.price_files import read_tables
from meter.sample import MeterDefinition


class CheckedDirectory(NamedTuple):
    """What a price directory says, ``None`` if it cannot be used, and all that is wrong with it."""

    directory: PriceDirectory | None
    problems: Sequence[BookProblem]


def read_directory(path: Path, webhooks: Collection[str] | None = None) -> PriceDirectory:
    """Return what the price directory at ``path`` says. It blocks; a large directory takes a second.

    ``webhooks`` are the names of the configured targets; ``None``: the names in budgets are not checked.

    :raises PriceBookError: it cannot be used; the error has everything that is wrong.
    """
    checked = check_directory(path, webhooks)
    if checked.directory is None:
        raise PriceBookError(checked.problems)
    return checked.directory


def check_directory(
    path: Path, webhooks: Collection[str] | None = None, meters: Mapping[str, MeterDefinition] | None = None
) -> CheckedDirectory:
    """Return what the price directory at ``path`` says, and everything that is wrong with it, see :func:`read_directory`.

    With ``meters``, those of all plugins by name, SKUs that do not fit them are warnings.
    """
    problems: list[BookProblem] = []
    files = read_files(path, problems)
    return check_files(files, webhooks, meters, problems) if files else CheckedDirectory(None, sorted(problems))


def check_files(
    files: Sequence[PriceFile],
    webhooks: Collection[str] | None = None,
    meters: Mapping[str, MeterDefinition] | None = None,
    problems: Iterable[BookProblem] = (),
) -> CheckedDirectory:
    """Return what the texts of ``files`` say, and everything that is wrong with them, after ``problems`` of reading them."""
    problems = list(problems)
    all_read = not problems
    tables, complete = read_tables(files, problems)
    assembly = Assembly(tables, problems, complete=complete and all_read)
    problems += _conflicts(assembly)
    if webhooks is not None:
        for budget, table in assembly.budgets.values():
            for position, name in enumerate(budget.webhooks):
                if name not in webhooks:
                    text = f"[[budget]] unknown webhook {name!r} in [rating] webhooks{suggestion(name, webhooks)}"
                    problems.append(BookProblem.at(table.place_of("webhooks", position), text))
    if meters is not None:
        for contents in assembly.books.values():
            for sku, table in contents.skus.values():
                for key, text in meter_warnings(sku, meters):
                    problems.append(BookProblem.at(table.place_of(key), f"[[sku]] {text}", warning=True))
        problems += _warnings(assembly)
    found = sorted(set(problems))
    if any(not each.warning for each in found):
        return CheckedDirectory(None, found)
    accounts = [canonical_account(account) for account, _ in assembly.accounts.values()]
    directory = PriceDirectory(
        books={name: with_text(assembly.book(name), accounts) for name in sorted(assembly.books)},
        accounts={each.id: each for each in sorted(accounts, key=lambda account: account.id)},
        budgets={id: assembly.budgets[id][0] for id in sorted(assembly.budgets)},
    )
    if meters is not None:
        found = sorted({*found, *_zone_warnings(directory, assembly)})
    return CheckedDirectory(directory, found)


def _zone_warnings(directory: PriceDirectory, assembly: Assembly) -> Iterator[BookProblem]:
    for change in zone_changes(directory, [account for account, _ in assembly.accounts.values()]):
        table = assembly.accounts[change.account.id][1]
        member = getattr(change.account, change.kind)[change.position]
        how = "are billed by both accounts" if change.hours > 0 else "are billed by none"
        text = (
            f"[[account]] {abs(change.hours):g} hours of {member.id} {how}: {change.day} begins at another time in the book"
            f" {change.after.name} ({change.after.timezone.key}) than in {change.before.name} ({change.before.timezone.key})"
        )
        yield BookProblem.at(table.place_of(change.kind, change.position), text, warning=True)


def _warnings(assembly: Assembly) -> Iterator[BookProblem]:
    for contents in assembly.books.values():
        if contents.table.model is not None and not contents.table.raw.get("issuer"):
            yield BookProblem.at(contents.table.place_of("issuer"), "[[book]] issuer is empty", warning=True)
        prices = [price for price, _ in contents.records["price"]]
        taxes = [tax for tax, _ in contents.records["tax"]]
        without_price = unpriced({id: sku for id, (sku, _) in contents.skus.items()}, prices)
        for id, (sku, table) in contents.skus.items():
            for text in state_warnings(sku):
                yield BookProblem.at(table.place_of("states"), f"[[sku]] {text}", warning=True)
            if id in without_price:
                text = f"{id} has no price in the book {contents.table.raw['name']}: its usage is not billed"
                yield BookProblem.at(table.place, f"[[sku]] {text}", warning=True)
            if has_no_tax(sku.tax_category, taxes):
                text = f"{id} has no tax: it has no tax_category, and no [[tax]] has default = true"
                yield BookProblem.at(table.place, f"[[sku]] {text}", warning=True)
        for price, table in contents.records["price"]:
            if price.sku in contents.skus and (found := match_warning(price, contents.skus[price.sku][0])):
                yield BookProblem.at(table.place_of("match", "state"), f"[[price]] {found}", warning=True)
        for price, end, since in price_holes(prices):
            text = f"[[price]] of {price.sku}: no price from {end} until before {since}, when this one begins"
            yield BookProblem.at(price.place, text, warning=True)


def _from(since: date | None) -> str:
    return "on all days" if since is None else f"from {since} on"


def _conflicts(assembly: Assembly) -> Iterator[BookProblem]:
    for contents in assembly.books.values():
        for conflict in price_conflicts([price for price, _ in contents.records["price"]]):
            price, other = conflict.price, conflict.other
            if conflict.match is None:
                text = f"overlaps the price at {other.place} {_from(conflict.since)}"
                hint = f": end that one with until = {price.validity.since}" if price.validity.since else ""
            else:
                values = ", ".join(f"{key} = {value!r}" for key, value in sorted(conflict.match.items()))
                text = f"is ambiguous with the price at {other.place} {_from(conflict.since)} for usage with {values}"
                hint = ": add a price that matches all of these"
            yield BookProblem.at(price.place, f"[[price]] of {price.sku} {text}{hint}")
        for first, tax, since, text in tax_conflicts([tax for tax, _ in contents.records["tax"]]):
            yield BookProblem.at(tax.place, f"[[tax]] {text} at {first.place} {_from(since)}")
    accounts = [account for account, _ in assembly.accounts.values()]
    for kind, singular in (("projects", "project"), ("domains", "domain")):
        for one, two, since in membership_conflicts(accounts, kind):
            table = assembly.accounts[two.account.id][1]
            where = assembly.accounts[one.account.id][1].place_of(kind, one.position)
            whose = "twice to the account" if one.account is two.account else f"to the account {one.account.id}, too,"
            text = f"[[account]] the {singular} {two.member.id} belongs {whose} {_from(since)} ({where})"
            yield BookProblem.at(table.place_of(kind, two.position), text)
    members = {member.id for account in accounts for member in account.projects}
    for account, table in assembly.accounts.values():
        if account.id in members and not is_member_always(account, account.id):
            text = (
                f"[[account]] id {account.id!r} is the id of a project that has another account, or is one of its own, on"
                " some days: two statements would have one id"
            )
            yield BookProblem.at(table.place_of("id"), text)
