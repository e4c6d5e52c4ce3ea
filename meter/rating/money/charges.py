"""Lines besides usage: fixed charges, discounts and minimums."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Minimum
from meter.rating.book.price_book import PriceBook
from meter.rating.currency import rounded
from meter.rating.exact import EXACT
from meter.rating.exact import divided_amount
from meter.rating.exact import plain
from meter.rating.exact import total_of
from meter.rating.money.account_projects import AccountProjects
from meter.rating.money.descriptions import number
from meter.rating.money.line_keys import line_key
from meter.rating.money.rated import RatedLine
from meter.rating.money.tiers import ZERO
from meter.rating.period import BillingPeriod


def fixed_lines(book: PriceBook, period: BillingPeriod, projects: AccountProjects) -> Iterator[RatedLine]:
    """Yield the lines of fixed charges of the account.

    A prorated charge is multiplied by the share of the days of ``period`` in which it is valid and the account's. Another one is
    charged in full to the account whose it is on its first day in ``period``.
    """
    days = list(period.days())
    for charge in book.fixed_charges:
        if charge.recurring:
            valid = [day for day in days if charge.validity.covers(day)]
        else:
            valid = [day for day in days if day == charge.validity.since]
        charged = [day for day in valid if projects.account_in_scope(charge.scope, day)]
        if not charged:
            continue
        if charge.recurring and charge.prorated:
            share = Fraction(len(charged), len(days))
        elif charged[0] == valid[0]:
            charged, share = valid, Fraction(1)
        else:
            continue
        amount = plain(divided_amount(Fraction(charge.amount) * share))
        months = plain(divided_amount(share))
        part = f", {len(charged)} of {len(days)} days" if share != 1 else ""
        yield RatedLine(
            kind="fixed",
            key=line_key("fixed", charge.id),
            project_id=charge.scope.project or "",
            description=(charge.description or charge.id) + part,
            first=charged[0],
            until=charged[-1] + timedelta(days=1),
            exact_amount=amount,
            amount=rounded(amount, book.currency),
            list_amount=plain(divided_amount(Fraction(charge.list_amount) * share)),
            price_id=charge.id,
            quantity=months,
            unit=_unit(charge),
            list_unit_price=charge.list_amount,
            unit_price=charge.amount,
            pricing_quantity=months,
            pricing_unit=_unit(charge),
            resource_id=charge.resource_id,
            service=charge.service,
            category=charge.category,
            tax_category=charge.tax_category,
        )


def _unit(charge: FixedCharge) -> str:
    return "Months" if charge.recurring else "Charges"


def discount_lines(
    book: PriceBook,
    period: BillingPeriod,
    usage: Sequence[RatedLine],
    discounted: Mapping[tuple[str, str, str], Decimal],
) -> Iterator[RatedLine]:
    """Yield the lines of discounts, one for each discount, project and SKU.

    ``discounted`` has the exact amounts of ``usage`` to which each applies. Every percentage is one of the undiscounted amount; several
    together take off at most the whole of it: of what is paid, the rounded amounts of the lines. Of these nothing is left if all of the
    exact amount is taken off.
    """
    lines_of: dict[tuple[str, str], list[RatedLine]] = {}
    left: dict[tuple[str, str], Decimal] = {}
    payable: dict[tuple[str, str], Decimal] = {}
    for line in usage:
        key = (line.project_id, line.sku or "")
        lines_of.setdefault(key, []).append(line)
        left[key] = EXACT.add(left.get(key, ZERO), line.exact_amount)
        payable[key] = EXACT.add(payable.get(key, ZERO), line.amount)
    discounts = {each.id: each for each in book.discounts}
    for (discount_id, project_id, sku_id), basis in sorted(discounted.items()):
        discount, sku = discounts[discount_id], book.skus[sku_id]
        reduction = EXACT.multiply(basis, discount.percent).scaleb(-2, EXACT)
        reduction = min(reduction, max(ZERO, left[project_id, sku_id]))
        left[project_id, sku_id] = EXACT.subtract(left[project_id, sku_id], reduction)
        if not reduction:
            continue
        most = max(ZERO, payable[project_id, sku_id])
        paid = rounded(reduction, book.currency)
        if reduction > 0 and (paid > most or not left[project_id, sku_id]):
            reduction = paid = most
        payable[project_id, sku_id] = EXACT.subtract(payable[project_id, sku_id], paid)
        amount = plain(EXACT.minus(reduction))
        lines = lines_of[project_id, sku_id]
        yield RatedLine(
            kind="discount",
            key=line_key("discount", discount_id, project_id, sku_id),
            project_id=project_id,
            description=f"{discount.description or discount_id}: {number(discount.percent)} % of {sku.name or sku_id}",
            first=max(min(each.first for each in lines), discount.validity.since or period.first),
            until=min(max(each.until for each in lines), discount.validity.until or period.until),
            exact_amount=amount,
            amount=rounded(amount, book.currency),
            list_amount=ZERO,
            sku=sku_id,
            price_id=discount_id,
            service=sku.service,
            category=sku.category,
            tax_category=sku.tax_category,
        )


def minimum_lines(
    book: PriceBook, period: BillingPeriod, projects: AccountProjects, lines: Sequence[RatedLine]
) -> Iterator[RatedLine]:
    """Yield what is missing to the minimums that are valid on the first day of ``period``.

    ``lines`` are those of usage, fixed charges and discounts. A minimum per project is one of each project with a line, and of the project
    that it names. Minimums of projects come first and count towards those of the account.
    """
    total = total_of(line.amount for line in lines)
    of_project: dict[str, Decimal] = {}
    for line in lines:
        of_project[line.project_id] = EXACT.add(of_project.get(line.project_id, ZERO), line.amount)
    valid = sorted((each for each in book.minimums if each.validity.covers(period.first)), key=lambda each: each.id)
    for minimum in (each for each in valid if each.per == "project"):
        named = {minimum.scope.project} if minimum.scope.project else set()
        for project_id in sorted({*of_project, *named} - {""}):
            if projects.has(project_id, period.first) and projects.usage_in_scope(
                minimum.scope, project_id, period.first
            ):
                reached = of_project.get(project_id, ZERO)
                for added in _missing(minimum, book, period, reached, project_id):
                    of_project[project_id] = EXACT.add(reached, added.amount)
                    total = EXACT.add(total, added.amount)
                    yield added
    for minimum in (each for each in valid if each.per == "account"):
        if projects.account_in_scope(minimum.scope, period.first):
            for added in _missing(minimum, book, period, total, ""):
                total = EXACT.add(total, added.amount)
                yield added


def _missing(
    minimum: Minimum, book: PriceBook, period: BillingPeriod, reached: Decimal, project_id: str
) -> Iterator[RatedLine]:
    missing = plain(EXACT.subtract(minimum.amount, reached))
    if rounded(missing, book.currency) <= 0:
        return
    yield RatedLine(
        kind="minimum",
        key=line_key("minimum", minimum.id, *([project_id] if project_id else [])),
        project_id=project_id,
        description=f"{minimum.description or minimum.id}: minimum of {number(minimum.amount)} {book.currency}",
        first=period.first,
        until=period.until,
        exact_amount=missing,
        amount=rounded(missing, book.currency),
        list_amount=missing,
        price_id=minimum.id,
        tax_category=minimum.tax_category,
    )
