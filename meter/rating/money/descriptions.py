"""What lines say to whoever pays, in plain English: the charge description of FOCUS."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from meter.rating.book.price_book import Price
from meter.rating.book.price_book import Sku
from meter.rating.exact import EXACT
from meter.rating.exact import plain
from meter.rating.money.tiers import FREE_TIER


def number(value: Decimal) -> str:
    """Return ``value`` with all its digits: ``1234.5``."""
    return f"{plain(value):f}"


def usage_description(
    sku: Sku,
    price: Price,
    tier: int,
    values: Mapping[str, str],
    quantity: Decimal,
    pricing_quantity: Decimal,
    unit_price: Decimal,
    currency: str,
) -> str:
    """Return the description of a line of usage, such as "Instances (flavor m1.small): 720 Hours at 0.0125 EUR"."""
    named = ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
    what = f"{sku.name or sku.id} ({named})" if named else sku.name or sku.id
    # 4 of "1000 Requests" are not "4 1000 Requests".
    used = f"{number(quantity)} {'× ' if sku.unit[:1].isdecimal() else ''}{sku.unit}"
    if tier == FREE_TIER:
        return f"{what}: {used} free of charge"
    cost = f"at {number(unit_price)} {currency}"
    if price.mode == "package":
        packages = "1 package" if pricing_quantity == 1 else f"{number(pricing_quantity)} packages"
        return f"{what}: {used} in {packages} of {package_unit(sku, price)}, each {cost}"
    if price.per_month:
        cost += " a month"
    return f"{what}: {used} {cost}" + (f", tier {tier}" if len(price.tiers) > 1 else "")


def pricing_unit(sku: Sku, price: Price) -> str:
    """Return the unit that a price of ``price`` is for: packages, months, or the unit of the SKU."""
    if price.mode == "package":
        return package_unit(sku, price)
    if price.per_month:
        return f"{sku.unit.removesuffix('Hours')}Months"
    return sku.unit


def package_unit(sku: Sku, price: Price) -> str:
    """Return a package as a unit: 10 of ``GB`` are ``10 GB``, 10 of ``1000 Requests`` are ``10000 Requests``."""
    size = price.package_size or Decimal(1)
    multiple, _, unit = sku.unit.rpartition(" ")
    if multiple.isdecimal():
        size = EXACT.multiply(size, Decimal(multiple))
    return f"{number(size)} {unit}"
