"""The price book as it is used: accounts, SKUs, prices, charges and budgets. docs/prices.rst has the files they are read from.

All dates are days in the time zone of the book; ``since`` is the first day that counts and ``until`` the first that does not.
``None`` there means: without limit. Amounts are decimals of the currency's main unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Literal
from zoneinfo import ZoneInfo

UsageKind = Literal["exists", "integral", "increase", "sum", "maximum", "percentile95"]
"""How the usage of a SKU is measured: docs/usage.rst has the formulas."""

PERIOD_KINDS: frozenset[UsageKind] = frozenset({"maximum", "percentile95"})
"""Kinds whose quantity is one of a whole period; the quantity of the others is one of a day."""

TierMode = Literal["unit", "graduated", "volume", "package"]
Per = Literal["account", "project", "resource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands: the file's name, and the line; 0 for the file as a whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


NOWHERE = Place(file="", line=0)
"""The place of what was read from the text of a stored book."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """Days from ``since`` until before ``until``."""

    since: date | None = None
    until: date | None = None

    def covers(self, day: date) -> bool:
        """Return whether ``day`` is one of them."""
        return (self.since is None or self.since <= day) and (self.until is None or day < self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceScope:
    """Whom a price or charge is for: at most one of the three is set, none means everybody."""

    project: str | None = None
    account: str | None = None
    domain: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A project or domain that belongs to an account in these days."""

    id: str
    validity: Validity = field(default_factory=Validity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who pays. ``book`` is the name of the account's price book. ``implied``: no file names it, it stands for one project."""

    id: str
    name: str
    book: str
    projects: tuple[Membership, ...] = ()
    domains: tuple[Membership, ...] = ()
    billing_address: str = ""
    reference: str = ""
    implied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sku:
    """What is billed, and how its quantity is measured.

    ``usage`` *exists* measures seconds of the lives of resources of ``resource_kind`` in ``states`` (empty: all), times their
    size if ``times_size``; all others measure samples of ``meter``. ``by`` are the names of the values that prices match on:
    ``flavor``, ``state`` and ``size`` of a life, or names of metadata. ``factor`` converts what is measured into ``unit``:
    seconds, or seconds times size, for *exists*; volume times seconds for *integral*; volumes for the others, but for
    *percentile95* of a counter or of deltas volume per second.
    ``started``: quantities of *exists* count each clock minute or hour that was begun, or in full seconds if ``None``.
    ``round_up_to``: the quantity of a resource and day is rounded up to a multiple of it. ``minimum``: the least quantity of a
    resource on the first day of its usage in the period.
    """

    id: str
    name: str
    service: str
    category: str
    usage: UsageKind
    unit: str
    factor: Fraction
    meter: str | None = None
    resource_kind: str | None = None
    states: tuple[str, ...] = ()
    times_size: bool = False
    by: tuple[str, ...] = ()
    started: Literal["minute", "hour"] | None = None
    round_up_to: Decimal | None = None
    minimum: Decimal | None = None
    tax_category: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """The price of a unit of usage above the tier before, up to and including ``up_to``; ``None`` in the last tier."""

    up_to: Decimal | None
    list_price: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of a SKU. ``tiers`` has one tier, without ``up_to``, for a plain price.

    ``list_price`` is what the price list says, ``price`` what is charged. ``mode`` *unit*: each unit costs the same; *graduated*: each unit
    costs what its tier says; *volume*: all units of the period cost what the tier of their total says; *package*: each begun
    package of ``package_size`` units costs its price. Tiers and packages count the usage of an account, project or resource
    (``per``) in the period. ``free`` units of them come first and cost nothing; ``free_prorated``: in proportion to the
    days of the period in which the price is valid. ``per_month``: the price is for a whole month of the SKU's hours.
    """

    id: str
    sku: str
    place: Place = field(default=NOWHERE, compare=False)
    tiers: tuple[Tier, ...]
    match: Mapping[str, str] = field(default_factory=dict)
    validity: Validity = field(default_factory=Validity)
    scope: PriceScope = field(default_factory=PriceScope)
    mode: TierMode = "unit"
    package_size: Decimal | None = None
    per: Per = "account"
    free: Decimal = Decimal(0)
    free_prorated: bool = False
    per_month: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedCharge:
    """A charge without usage: once on the day ``validity.since``, or each month, ``prorated`` by days if it begins or ends within one."""

    id: str
    description: str
    service: str
    category: str
    amount: Decimal
    list_amount: Decimal
    recurring: bool
    prorated: bool
    place: Place = field(default=NOWHERE, compare=False)
    validity: Validity
    scope: PriceScope
    resource_id: str | None = None
    tax_category: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discount:
    """``percent`` less for the usage of ``skus``, or of all if empty, in the days of ``validity``."""

    id: str
    description: str
    percent: Decimal
    place: Place = field(default=NOWHERE, compare=False)
    skus: tuple[str, ...] = ()
    validity: Validity = field(default_factory=Validity)
    scope: PriceScope = field(default_factory=PriceScope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """The least that an account, or each project (``per``), pays in a period, before credits and taxes."""

    id: str
    description: str
    amount: Decimal
    place: Place = field(default=NOWHERE, compare=False)
    per: Literal["account", "project"] = "account"
    validity: Validity = field(default_factory=Validity)
    scope: PriceScope = field(default_factory=PriceScope)
    tax_category: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """An amount that is used up before anything is paid, in periods that begin in ``validity``; it is of an account or a project."""

    id: str
    description: str
    amount: Decimal
    place: Place = field(default=NOWHERE, compare=False)
    scope: PriceScope
    validity: Validity = field(default_factory=Validity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tax:
    """The tax on the sum of all net lines of a category; ``default`` if it is that of lines without a category."""

    category: str
    name: str
    percent: Decimal
    place: Place = field(default=NOWHERE, compare=False)
    default: bool = False
    validity: Validity = field(default_factory=Validity)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """The prices in one currency. ``sha256`` is that of ``text``: all that the book was read from, as it is stored with statements.

    ``default``: the book of projects without an account, and of accounts that name none.
    """

    name: str
    currency: str
    timezone: ZoneInfo
    grace_days: int
    issuer: str
    text: str
    sha256: str
    default: bool = False
    region: str = ""
    skus: Mapping[str, Sku] = field(default_factory=dict)
    prices: tuple[Price, ...] = ()
    fixed_charges: tuple[FixedCharge, ...] = ()
    discounts: tuple[Discount, ...] = ()
    minimums: tuple[Minimum, ...] = ()
    credits: tuple[Credit, ...] = ()
    taxes: tuple[Tax, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingBudget:
    """What an account, project or domain plans to spend (``amount``) or use of a SKU (``quantity``) in a period.

    Each of ``used_percent`` is told once a period when the usage reaches it, each of ``forecast_percent`` when the forecast does.
    ``webhooks`` are names of targets in the configuration.
    """

    id: str
    name: str
    place: Place = field(default=NOWHERE, compare=False)
    scope: PriceScope
    sku: str | None = None
    amount: Decimal | None = None
    quantity: Decimal | None = None
    used_percent: tuple[Decimal, ...] = (Decimal(100),)
    forecast_percent: tuple[Decimal, ...] = ()
    webhooks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceDirectory:
    """All that the price directory says: books by name, accounts by id, budgets by id."""

    books: Mapping[str, PriceBook]
    accounts: Mapping[str, Account]
    budgets: Mapping[str, SpendingBudget] = field(default_factory=dict)
    members: Mapping[tuple[str, str | None], Sequence[tuple[Membership, Account]]] = field(
        init=False, repr=False, compare=False
    )
    """Memberships with their accounts, by kind (project or domain) and id: of a thousand accounts, few have to be looked at."""

    def __post_init__(self) -> None:
        members: dict[tuple[str, str | None], list[tuple[Membership, Account]]] = {}
        for account in self.accounts.values():
            for kind, of_kind in (("project", account.projects), ("domain", account.domains)):
                for each in of_kind:
                    members.setdefault((kind, each.id), []).append((each, account))
        object.__setattr__(self, "members", members)

    @property
    def default_book(self) -> str:
        """The name of the book of projects without an account; "" if it is not among these, as with a book read from its text."""
        return next((book.name for book in self.books.values() if book.default), "")

    def account_changes(self, project_id: str, domain_id: str | None) -> list[date]:
        """Return the days on which the account of a project may become another one, in order."""
        wanted = (("project", project_id), ("domain", domain_id))
        validities = [membership.validity for each in wanted for membership, _ in self.members.get(each, ())]
        return sorted({day for each in validities for day in (each.since, each.until) if day is not None})

    def account_of(self, project_id: str, domain_id: str | None, day: date) -> Account:
        """Return the account to which a project belongs on ``day``: the one that names it, or its domain, or one of its own."""
        for wanted in (("project", project_id), ("domain", domain_id)):
            for membership, account in self.members.get(wanted, ()):
                if membership.validity.covers(day):
                    return account
        return Account(
            id=project_id,
            name="",
            book=self.default_book,
            projects=(Membership(id=project_id),),
            implied=True,
        )
