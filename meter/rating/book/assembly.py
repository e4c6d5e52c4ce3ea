"""From the tables of all files to a price directory: what one table says of another is checked here."""

from __future__ import annotations

from collections import Counter
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo
from zoneinfo import available_timezones

from meter.rating.book.account_records import account_record
from meter.rating.book.account_records import budget_record
from meter.rating.book.book_problem import BookProblem
from meter.rating.book.book_problem import suggestion
from meter.rating.book.charge_records import credit_record
from meter.rating.book.charge_records import discount_record
from meter.rating.book.charge_records import fixed_charge_record
from meter.rating.book.charge_records import minimum_record
from meter.rating.book.charge_records import tax_record
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import Place
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import SpendingBudget
from meter.rating.book.price_files import ReadTable
from meter.rating.book.price_records import KeyProblem
from meter.rating.book.price_records import price_record
from meter.rating.book.sku_records import sku_record
from meter.rating.book.units import read_unit
from meter.rating.currency import minor_digits

RECORDS: Mapping[str, Callable[[Any, Place, list[KeyProblem]], Any]] = {
    "fixed_charge": fixed_charge_record,
    "discount": discount_record,
    "minimum": minimum_record,
    "credit": credit_record,
    "tax": tax_record,
    "price": price_record,
}
"""How records are made of tables."""

FIELDS = {
    "price": "prices",
    "fixed_charge": "fixed_charges",
    "discount": "discounts",
    "minimum": "minimums",
    "credit": "credits",
    "tax": "taxes",
}
"""The fields of a price book, by the tables that they are read from."""


@dataclass(slots=True)
class Contents:
    """The records of a book, and the tables that they were read from, while it is assembled."""

    table: ReadTable
    records: dict[str, list[tuple[Any, ReadTable]]] = field(default_factory=lambda: defaultdict(list))
    skus: dict[str, tuple[Any, ReadTable]] = field(default_factory=dict)


@cache
def _timezones() -> frozenset[str]:
    # These depend on the machine, or are no place's time.
    return frozenset(available_timezones() - {"localtime", "Factory"})


class Assembly:
    """The records of all ``tables``; ``problems`` gets what is wrong. Not ``complete``: names may be in files that were not read."""

    def __init__(self, tables: Sequence[ReadTable], problems: list[BookProblem], *, complete: bool = True) -> None:
        self._problems = problems
        self._complete = complete
        self._tables: dict[str, list[ReadTable]] = defaultdict(list)
        for table in tables:
            self._tables[table.kind].append(table)
        # What a faulty table would have defined is no unknown name for others.
        self._faulty = {
            kind: {str(each.raw.get("name" if kind == "book" else "id")) for each in found if each.model is None}
            for kind, found in self._tables.items()
        }
        self.books: dict[str, Contents] = self._read_books()
        self.default = self._default_book()
        self.accounts: dict[str, tuple[Account, ReadTable]] = self._read_accounts()
        self._read_skus()
        self._read_rest()
        self.budgets: dict[str, tuple[SpendingBudget, ReadTable]] = self._read_budgets()

    def wrong(self, table: ReadTable, text: str, *keys: str | int) -> None:
        """Add a fault of a key of ``table``, or of ``table`` as a whole."""
        self._problems.append(BookProblem.at(table.place_of(*keys), f"[[{table.kind}]] {text}"))

    def _models(self, kind: str) -> Iterator[tuple[Any, ReadTable]]:
        return ((table.model, table) for table in self._tables[kind] if table.model is not None)

    def _defined(self, found: dict[str, Any], id: str, value: Any, table: ReadTable, key: str = "id") -> None:
        if id in found:
            self.wrong(table, f"{key} {id!r} is taken: {_table_of(found[id]).place} has it", key)
        else:
            found[id] = value

    def _read_books(self) -> dict[str, Contents]:
        books: dict[str, Contents] = {}
        for model, table in self._models("book"):
            try:
                minor_digits(model.currency)
            except ValueError as fault:
                upper = f"; did you mean {model.currency.upper()}?" if _is_currency(model.currency.upper()) else ""
                self.wrong(table, f"currency {fault}{upper}", "currency")
            if model.timezone not in _timezones():
                self.wrong(
                    table,
                    f'timezone {model.timezone!r} is no time zone such as "Europe/Paris"'
                    f"{suggestion(model.timezone, _timezones())}",
                    "timezone",
                )
            self._defined(books, model.name, Contents(table), table, "name")
        return books

    def _default_book(self) -> str:
        if self._faulty.get("book") or not self._complete:
            return ""
        defaults = [name for name, each in self.books.items() if _model(each).default]
        if not self.books:
            self._problems.append(BookProblem("price directory", 0, "there is no [[book]] in any file"))
        elif len(self.books) == 1:
            return next(iter(self.books))
        elif not defaults:
            table = next(iter(self.books.values())).table
            self.wrong(table, "no book is the default: write default = true in the book of projects without an account")
        for name in defaults[1:]:
            first = self.books[defaults[0]].table.place
            self.wrong(self.books[name].table, f"there is another default book at {first}", "default")
        return defaults[0] if defaults else ""

    def _known(self, kind: str, name: str, known: Collection[str], table: ReadTable, *keys: str | int) -> bool:
        """Return whether ``name`` is one of ``known``; add a fault if it is unknown, and not only faulty itself."""
        if name in known:
            return True
        in_faulty_book = kind == "sku" and bool(self._faulty.get("book"))
        if self._complete and not in_faulty_book and name not in self._faulty.get(kind, ()):
            self.wrong(table, f"unknown {kind} {name!r}{suggestion(name, known)}", *keys)
        return False

    def _books_of(self, model: Any, table: ReadTable) -> list[str]:
        """Return the books of a table: those that it names, or the only one; a SKU is in all."""
        if model.book:
            return [name for name in model.book if self._known("book", name, self.books, table, "book")]
        if table.kind != "sku" and len(self.books) > 1:
            self.wrong(table, f"book is missing, as there are several: {', '.join(sorted(self.books))}")
            return []
        return list(self.books)

    def _read_skus(self) -> None:
        for model, table in self._models("sku"):
            found: list[tuple[str, str]] = []
            sku = sku_record(model, found)
            for key, text in found:
                self.wrong(table, text, key)
            if sku is None:
                self._faulty.setdefault("sku", set()).add(model.id)
            for name in self._books_of(model, table):
                if sku is not None:
                    self._defined(self.books[name].skus, sku.id, (sku, table), table)

    def _read_rest(self) -> None:
        for kind in ("tax", "price", "fixed_charge", "discount", "minimum", "credit"):
            for model, table in self._models(kind):
                found: list[KeyProblem] = []
                record = RECORDS[kind](model, table.place, found)
                for keys, text in found:
                    self.wrong(table, text, *keys)
                for name in self._books_of(model, table):
                    # A price that matches what its SKU does not have is told once: it conflicts with no other price.
                    if self._refer(name, model, table) and record is not None:
                        self.books[name].records[kind].append((record, table))
        for contents in self.books.values():
            for sku, table in contents.skus.values():
                self._check_category(contents, sku.tax_category, table)
            for kind, records in contents.records.items():
                if kind == "tax":
                    continue
                ids: dict[str, tuple[Any, ReadTable]] = {}
                for record, table in records:
                    self._identified(ids, record, table)
                    self._check_category(contents, getattr(record, "tax_category", None), table)

    def _identified(self, ids: dict[str, tuple[Any, ReadTable]], record: Any, table: ReadTable) -> None:
        """Check that no other table of the kind has the id of ``record``: lines are named by it, so one would replace the other."""
        if table.kind != "price" or _model(table).id is not None or record.id not in ids:
            self._defined(ids, record.id, (record, table), table)
            return
        other, place = ids[record.id][0], ids[record.id][1].place
        # Two prices for the same usage from the same day overlap, which is told as such.
        if (other.sku, other.match, other.scope, other.validity.since) != (
            record.sku,
            record.match,
            record.scope,
            record.validity.since,
        ):
            self.wrong(table, f"its id would be {record.id!r}, which {place} has: give it an id of its own")

    def _refer(self, book: str, model: Any, table: ReadTable) -> bool:
        """Check the SKUs and the account that a price, charge, discount, minimum or credit of ``book`` names.

        Return whether the SKU of a price has all keys that it matches.
        """
        matches = True
        skus = self.books[book].skus
        if table.kind == "price" and self._known("sku", model.sku, skus, table, "sku"):
            sku = skus[model.sku][0]
            for key in model.match:
                if key not in sku.by:
                    hint = suggestion(key, sku.by) or f"; add it to by of the sku {sku.id}"
                    self.wrong(table, f"match: prices of {sku.id} cannot match on {key!r}{hint}", "match", key)
                    matches = False
            if model.per_month and not sku.unit.endswith("Hours"):
                self.wrong(table, f"per_month: the unit of {sku.id} is {sku.unit}, and not one in hours", "per_month")
            elif model.per_month and read_unit(sku.unit).number != 1:
                text = f"per_month: the unit of {sku.id} is {sku.unit}, a multiple: write {sku.unit.split(' ', 1)[-1]}"
                self.wrong(table, text, "per_month")
        for position, id in enumerate(getattr(model, "skus", ())):
            self._known("sku", id, skus, table, "skus", position)
        if (id := getattr(model, "account", None)) and self._known("account", id, self.accounts, table, "account"):
            other = self.accounts[id][0].book
            if other and other != book:
                self.wrong(
                    table, f"the account {id} has the book {other}, so that this of {book} is never used", "account"
                )
        if table.kind in ("minimum", "credit"):
            currency = _model(self.books[book]).currency
            if _is_currency(currency) and -model.amount.as_tuple().exponent > minor_digits(currency):
                text = f"amount {model.amount} has more decimals than {currency}: {minor_digits(currency)}"
                self.wrong(table, text, "amount")
        return matches

    def _check_category(self, contents: Contents, category: str | None, table: ReadTable) -> None:
        if category is not None:
            known = {tax.category for tax, _ in contents.records["tax"]}
            if self._complete and category not in known and not self._is_faulty_tax(category):
                hint = suggestion(category, known) or "; a [[tax]] defines a category"
                text = f"unknown tax_category {category!r} in the book {_model(contents).name}{hint}"
                self.wrong(table, text, "tax_category")

    def _is_faulty_tax(self, category: str) -> bool:
        return any(table.model is None and table.raw.get("category") == category for table in self._tables["tax"])

    def _read_accounts(self) -> dict[str, tuple[Account, ReadTable]]:
        accounts: dict[str, tuple[Account, ReadTable]] = {}
        for model, table in self._models("account"):
            found: list[KeyProblem] = []
            book = model.book or self.default
            if model.book is not None:
                self._known("book", model.book, self.books, table, "book")
            record = account_record(model, book, found)
            for keys, text in found:
                self.wrong(table, text, *keys)
            self._defined(accounts, record.id, (record, table), table)
        return accounts

    def _read_budgets(self) -> dict[str, tuple[SpendingBudget, ReadTable]]:
        budgets: dict[str, tuple[SpendingBudget, ReadTable]] = {}
        skus = Counter(id for contents in self.books.values() for id in contents.skus)
        for model, table in self._models("budget"):
            found: list[KeyProblem] = []
            record = budget_record(model, table.place, found)
            for keys, text in found:
                self.wrong(table, text, *keys)
            if model.account is not None:
                self._known("account", model.account, self.accounts, table, "account")
            if model.sku is not None:
                self._known("sku", model.sku, skus, table, "sku")
            self._defined(budgets, record.id, (record, table), table)
        return budgets

    def book(self, name: str) -> PriceBook:
        """Return a book, without its text; only if there are no faults."""
        contents = self.books[name]
        model = _model(contents)
        records: Mapping[str, tuple[Any, ...]] = {
            attribute: tuple(record for record, _ in contents.records[kind]) for kind, attribute in FIELDS.items()
        }
        return PriceBook(
            name=name,
            currency=model.currency,
            timezone=ZoneInfo(model.timezone),
            grace_days=model.grace_days,
            issuer=model.issuer,
            region=model.region,
            default=name == self.default,
            text="",
            sha256="",
            skus={id: contents.skus[id][0] for id in sorted(contents.skus)},
            **records,
        )


def _model(holder: Contents | ReadTable) -> Any:
    return holder.table.model if isinstance(holder, Contents) else holder.model


def _table_of(value: Any) -> ReadTable:
    if isinstance(value, ReadTable):
        return value
    return value.table if isinstance(value, Contents) else value[1]


def _is_currency(code: str) -> bool:
    try:
        minor_digits(code)
    except ValueError:
        return False
    return True
