"""The tables of the files in the price directory, as pydantic reads them. docs/prices.rst explains them one by one.

Keys are those of the records in :mod:`meter.rating.book.price_book`, but for ``from``, a word of Python, and ``list``.
"""

from __future__ import annotations

from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import Field

from meter.rating.book.price_book import Per
from meter.rating.book.price_book import TierMode
from meter.rating.book.price_book import UsageKind
from meter.rating.book.values import Amount
from meter.rating.book.values import Day
from meter.rating.book.values import Factor
from meter.rating.book.values import ForeignId
from meter.rating.book.values import LongText
from meter.rating.book.values import MatchedValue
from meter.rating.book.values import Name
from meter.rating.book.values import OwnId
from meter.rating.book.values import Percent
from meter.rating.book.values import PositiveDecimal
from meter.rating.book.values import TaxPercent
from meter.rating.book.values import shown
from meter.rating.book.values import wrong

ServiceCategory = Literal[
    "AI and Machine Learning",
    "Analytics",
    "Business Applications",
    "Compute",
    "Databases",
    "Developer Tools",
    "Identity",
    "Integration",
    "Internet of Things",
    "Management and Governance",
    "Media",
    "Migration",
    "Mobile",
    "Multicloud",
    "Networking",
    "Security",
    "Storage",
    "Web",
    "Other",
]
"""The values of *ServiceCategory* in FOCUS."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[OwnId], BeforeValidator(_as_list)]
"""A name, or a list of names."""


class BookTable(BaseModel):
    """What all tables have in common: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Dated(BookTable):
    since: Day | None = Field(default=None, alias="from")
    until: Day | None = None


class _Scoped(_Dated):
    """Of the books ``book``, in days, for a project, account or domain."""

    book: Names = []
    project: ForeignId | None = None
    account: OwnId | None = None
    domain: ForeignId | None = None


class PriceBookTable(BookTable):
    """A ``[[book]]``."""

    name: OwnId
    currency: str
    timezone: str
    issuer: Name
    period: Literal["month"] = "month"
    grace_days: Annotated[int, Field(ge=0, le=365)] = 5
    region: Name = ""
    default: bool = False


class SkuTable(BookTable):
    """A ``[[sku]]``; it is in all books, unless ``book`` names some."""

    id: OwnId
    usage: UsageKind
    unit: Name
    book: Names = []
    name: Name = ""
    service: Name = ""
    category: ServiceCategory = "Other"
    factor: Factor | None = None
    meter: ForeignId | None = None
    resource_kind: str | None = None
    states: list[ForeignId] = []
    times_size: bool = False
    by: list[ForeignId] = []
    started: Literal["minute", "hour"] | None = None
    round_up_to: PositiveDecimal | None = None
    minimum: PositiveDecimal | None = None
    tax_category: OwnId | None = None


class TierTable(BookTable):
    """An element of ``tiers``."""

    price: Amount
    list_price: Amount | None = Field(default=None, alias="list")
    up_to: PositiveDecimal | None = None


class PriceTable(_Scoped):
    """A ``[[price]]``."""

    sku: OwnId
    id: OwnId | None = None
    price: Amount | None = None
    list_price: Amount | None = Field(default=None, alias="list")
    tiers: list[TierTable] | None = Field(default=None, min_length=1)
    match: dict[ForeignId, MatchedValue] = {}
    mode: TierMode | None = None
    package_size: PositiveDecimal | None = None
    per: Per = "account"
    free: Amount = Field(default=0, validate_default=True)
    free_prorated: bool = False
    per_month: bool = False


class FixedChargeTable(_Scoped):
    """A ``[[fixed_charge]]``."""

    id: OwnId
    description: Name
    amount: Amount
    list_amount: Amount | None = Field(default=None, alias="list")
    recurring: bool
    prorated: bool | None = None
    service: Name = ""
    category: ServiceCategory = "Other"
    resource_id: ForeignId | None = None
    tax_category: OwnId | None = None


class DiscountTable(_Scoped):
    """A ``[[discount]]``."""

    id: OwnId
    description: Name
    percent: Percent
    skus: list[OwnId] = []


class MinimumTable(_Scoped):
    """A ``[[minimum]]``."""

    id: OwnId
    description: Name
    amount: PositiveDecimal
    per: Literal["account", "project"] = "account"
    tax_category: OwnId | None = None


class CreditTable(_Scoped):
    """A ``[[credit]]``."""

    id: OwnId
    description: Name
    amount: PositiveDecimal


class TaxTable(_Dated):
    """A ``[[tax]]``."""

    category: OwnId
    name: Name
    percent: TaxPercent
    book: Names = []
    default: bool = False


class MemberTable(_Dated):
    """An element of ``projects`` or ``domains``."""

    id: ForeignId


def _as_member(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise wrong(f"must be an id, as a text, or a table with id, from and until, not {shown(value)}")
    return {"id": value} if isinstance(value, str) else value


Members = list[Annotated[MemberTable, BeforeValidator(_as_member)]]
"""Ids, or tables with ``id``, ``from`` and ``until``."""


class AccountTable(BookTable):
    """An ``[[account]]``."""

    id: OwnId
    name: Name = ""
    book: OwnId | None = None
    projects: Members = []
    domains: Members = []
    billing_address: LongText = ""
    reference: Name = ""


class BudgetTable(BookTable):
    """A ``[[budget]]``."""

    id: OwnId
    name: Name = ""
    project: ForeignId | None = None
    account: OwnId | None = None
    domain: ForeignId | None = None
    sku: OwnId | None = None
    amount: PositiveDecimal | None = None
    quantity: PositiveDecimal | None = None
    used_percent: list[PositiveDecimal] = Field(default=[100], validate_default=True)
    forecast_percent: list[PositiveDecimal] = []
    webhooks: list[Name] = []


TABLES: dict[str, type[BookTable]] = {
    "book": PriceBookTable,
    "sku": SkuTable,
    "price": PriceTable,
    "fixed_charge": FixedChargeTable,
    "discount": DiscountTable,
    "minimum": MinimumTable,
    "credit": CreditTable,
    "tax": TaxTable,
    "account": AccountTable,
    "budget": BudgetTable,
}
"""The tables, by the name of their header."""
