"""The months that docs/statements-amounts.rst works out by hand: price books, usage and lines, from tests/data/rating."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from meter.rating.book.price_book import Account
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_directory import read_directory
from meter.rating.money.rated import Rated
from meter.rating.period import BillingPeriod
from meter.rating.statements.statement import Statement
from meter.rating.usage.usage_atom import UsageAtom

DATA = Path(__file__).parent / "data" / "rating"

Row = Mapping[str, str]


@dataclass(frozen=True)
class WorkedMonth:
    """A month by the ``name`` of its folder."""

    name: str
    period: str

    @property
    def folder(self) -> Path:
        return DATA / self.name

    def directory(self) -> PriceDirectory:
        return read_directory(self.folder / "prices.d")

    def rows(self, file: str) -> list[Row]:
        with (self.folder / file).open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))

    def period_of(self, book: PriceBook) -> BillingPeriod:
        return BillingPeriod.named(self.period, book.timezone)

    def usage(self, book: str) -> Iterator[UsageAtom]:
        """The quantities of a book, in the order of SKU, day, project, resource and values."""
        atoms = [atom for row in self.rows("usage.csv") if row["book"] == book for atom in _atoms(row)]
        return iter(sorted(atoms, key=lambda each: (each.sku, each.day, each.project_id, each.resource_id)))

    def accounts(self) -> list[str]:
        return sorted({row["account"] for row in self.rows("lines.csv")})

    def projects(self) -> list[str]:
        return sorted({row["project"] for row in self.rows("usage.csv")})

    def lines(self, account: str) -> list[Row]:
        return [
            {name: value for name, value in row.items() if name != "account"}
            for row in self.rows("lines.csv")
            if row["account"] == account
        ]

    def statement_file(self, account: str) -> Path:
        """The signed statement of an account, as it was handed over."""
        return self.folder / f"statement-{account}.json"

    def annex_file(self, account: str) -> Path:
        """The annex of the statement of an account."""
        return self.folder / f"annex-{account}.jsonl"

    def account(self, directory: PriceDirectory, account: str) -> Account:
        """The account of the files, or that of a project without one."""
        return directory.accounts.get(account) or directory.account_of(account, None, date(2026, 1, 1))


CLOUD_MONTH = WorkedMonth("worked-month", "2025-11")
LIBVIRT_MONTH = WorkedMonth("libvirt-month", "2026-10")
MONTHS = (CLOUD_MONTH, LIBVIRT_MONTH)


def _atoms(row: Row) -> Iterator[UsageAtom]:
    day = date.fromisoformat(row["first"])
    while day <= date.fromisoformat(row["last"]):
        yield UsageAtom(
            sku=row["sku"],
            project_id=row["project"],
            resource_id=row["resource"],
            day=day,
            values={"flavor": row["flavor"]} if row["flavor"] else {},
            quantity=Decimal(row["each_day"]),
        )
        day += timedelta(days=1)


def as_rows(rated: Rated | Statement) -> list[Row]:
    """The lines and the total in the form of lines.csv."""
    rows = [
        _row(
            kind=each.kind,
            project=each.project_id,
            what=(each.price_id or each.tax_category or ""),
            flavor=each.values.get("flavor", ""),
            tier="" if each.tier is None else str(each.tier),
            quantity="" if each.quantity is None else format(each.quantity, "f"),
            exact_amount=format(each.exact_amount, "f"),
            amount=format(each.amount, "f"),
        )
        for each in rated.lines
    ]
    return [*rows, _row(kind="total", amount=format(rated.total, "f"))]


def _row(**values: str) -> Row:
    columns: Iterable[str] = ("kind", "project", "what", "flavor", "tier", "quantity", "exact_amount", "amount")
    return {name: values.get(name, "") for name in columns}


def unordered(rows: Iterable[Row]) -> list[tuple[tuple[str, str], ...]]:
    """Rows to compare where their order says nothing."""
    return sorted(tuple(sorted(row.items())) for row in rows)
