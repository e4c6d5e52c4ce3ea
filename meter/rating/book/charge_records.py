"""From ``[[fixed_charge]]``, ``[[discount]]``, ``[[minimum]]``, ``[[credit]]`` and ``[[tax]]`` of a file to their records."""

from __future__ import annotations

from meter.rating.book.price_book import Credit
from meter.rating.book.price_book import Discount
from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Minimum
from meter.rating.book.price_book import Place
from meter.rating.book.price_book import Tax
from meter.rating.book.price_records import KeyProblem
from meter.rating.book.price_records import scope_of
from meter.rating.book.price_records import validity_of
from meter.rating.book.tables import CreditTable
from meter.rating.book.tables import DiscountTable
from meter.rating.book.tables import FixedChargeTable
from meter.rating.book.tables import MinimumTable
from meter.rating.book.tables import TaxTable


def fixed_charge_record(table: FixedChargeTable, place: Place, problems: list[KeyProblem]) -> FixedCharge:
    """Return the record of ``table``; contradictions in it are added to ``problems``."""
    if not table.recurring:
        if table.since is None:
            problems.append(((), "from is missing: the day of a charge that does not recur"))
        for key in ("until", "prorated"):
            if getattr(table, key) is not None:
                problems.append(((key,), f"{key} is for charges with recurring = true only"))
    if table.resource_id is not None and table.project is None:
        problems.append((("resource_id",), "the charge of a resource needs the project of the resource"))
    return FixedCharge(
        id=table.id,
        description=table.description,
        service=table.service or table.category,
        category=table.category,
        amount=table.amount,
        list_amount=table.amount if table.list_amount is None else table.list_amount,
        recurring=table.recurring,
        prorated=table.recurring if table.prorated is None else table.prorated,
        place=place,
        validity=validity_of(table, problems),
        scope=scope_of(table, problems),
        resource_id=table.resource_id,
        tax_category=table.tax_category,
    )


def discount_record(table: DiscountTable, place: Place, problems: list[KeyProblem]) -> Discount:
    """Return the record of ``table``; contradictions in it are added to ``problems``."""
    return Discount(
        id=table.id,
        description=table.description,
        percent=table.percent,
        place=place,
        skus=tuple(sorted(set(table.skus))),
        validity=validity_of(table, problems),
        scope=scope_of(table, problems),
    )


def minimum_record(table: MinimumTable, place: Place, problems: list[KeyProblem]) -> Minimum:
    """Return the record of ``table``; contradictions in it are added to ``problems``."""
    if table.project is not None and table.per == "account":
        problems.append((("project",), 'the minimum of a project counts per project: write per = "project"'))
    return Minimum(
        id=table.id,
        description=table.description,
        amount=table.amount,
        place=place,
        per=table.per,
        validity=validity_of(table, problems),
        scope=scope_of(table, problems),
        tax_category=table.tax_category,
    )


def credit_record(table: CreditTable, place: Place, problems: list[KeyProblem]) -> Credit:
    """Return the record of ``table``; contradictions in it are added to ``problems``."""
    if table.project is None and table.account is None:
        problems.append(((), "a credit is of an account or a project: write account or project"))
    return Credit(
        id=table.id,
        description=table.description,
        amount=table.amount,
        place=place,
        scope=scope_of(table, problems),
        validity=validity_of(table, problems),
    )


def tax_record(table: TaxTable, place: Place, problems: list[KeyProblem]) -> Tax:
    """Return the record of ``table``; contradictions in it are added to ``problems``."""
    return Tax(
        category=table.category,
        name=table.name,
        percent=table.percent,
        place=place,
        default=table.default,
        validity=validity_of(table, problems),
    )
