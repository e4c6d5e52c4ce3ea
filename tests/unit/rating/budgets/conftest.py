"""A price directory with two accounts, and the usage, names and ledger that budgets are evaluated from."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meter.completeness_query import CompletenessRow
from meter.identity_names import NamePeriod
from meter.interfaces import Unavailable
from meter.rating.book.price_book import Account
from meter.rating.book.price_book import FixedCharge
from meter.rating.book.price_book import Membership
from meter.rating.book.price_book import Price
from meter.rating.book.price_book import PriceBook
from meter.rating.book.price_book import PriceDirectory
from meter.rating.book.price_book import PriceScope
from meter.rating.book.price_book import Sku
from meter.rating.book.price_book import SpendingBudget
from meter.rating.book.price_book import Tax
from meter.rating.book.price_book import Tier
from meter.rating.book.price_book import Validity
from meter.rating.budgets.budget_evaluation import BudgetEvaluation
from meter.rating.budgets.budget_step import BudgetStep
from meter.rating.usage.usage_atom import UsageAtom
from meter.testing.memory_rating_budgets import MemoryBudgets

PARIS = ZoneInfo("Europe/Paris")


def sku(id, unit="Hours", **fields):
    return Sku(
        id=id,
        name=id,
        service="Virtual Machines",
        category="Compute",
        usage="integral",
        unit=unit,
        factor=Fraction(1),
        meter=id,
        **fields,
    )


def tier(price, up_to=None):
    return Tier(up_to=up_to and Decimal(up_to), list_price=Decimal(price), price=Decimal(price))


EUR = PriceBook(
    name="eur",
    currency="EUR",
    timezone=PARIS,
    grace_days=3,
    issuer="",
    text="",
    sha256="",
    default=True,
    skus={each.id: each for each in (sku("vm"), sku("disk", "GB-Hours"), sku("unpriced"))},
    prices=(
        Price(id="vm", sku="vm", tiers=(tier("1.00", 100), tier("0.50")), mode="graduated", per="account"),
        Price(id="disk", sku="disk", tiers=(tier("0.01"),)),
    ),
    fixed_charges=(
        FixedCharge(
            id="line",
            description="Line",
            service="Network",
            category="Networking",
            amount=Decimal(30),
            list_amount=Decimal(30),
            recurring=True,
            prorated=False,
            validity=Validity(),
            scope=PriceScope(project="idle"),
        ),
    ),
    taxes=(Tax(category="s", name="VAT", percent=Decimal(20), default=True),),
)
JPY = replace(
    EUR,
    name="jpy",
    currency="JPY",
    timezone=ZoneInfo("Asia/Tokyo"),
    default=False,
    prices=(Price(id="vm", sku="vm", tiers=(tier("100"),)),),
    fixed_charges=(),
)
ACCOUNTS = (
    Account(id="acme", name="Acme", book="eur", projects=(Membership(id="red"), Membership(id="blue"))),
    Account(id="tokyo", name="Tokyo", book="jpy", domains=(Membership(id="jp"),)),
)


def budget(id="b", *, amount=None, quantity=None, scope=None, used=(100,), forecast=(), **fields):
    return SpendingBudget(
        id=id,
        name=f"Budget {id}",
        scope=PriceScope(**({"project": "red"} if scope is None else scope)),
        amount=amount and Decimal(amount),
        quantity=quantity and Decimal(quantity),
        used_percent=tuple(map(Decimal, used)),
        forecast_percent=tuple(map(Decimal, forecast)),
        **fields,
    )


class Site:
    """What a collector works with; ``now`` is set by tests."""

    def __init__(self):
        self.clock = Clock()
        self.store = MemoryBudgets()
        self.budgets = []
        self.accounts = ACCOUNTS
        self.atoms = []
        self.domains = {"green": "d1", "grey": "d1", "kyoto": "jp"}
        self.missing = {}
        self.queries = []
        self.now = datetime(2026, 11, 11, 12, tzinfo=UTC)
        self.no_directory = False
        self.woken = []
        self.step = self.new_step()

    def new_step(self):
        """Return the step of another process, or of this one after a restart."""
        evaluation = BudgetEvaluation(self, self, self, self.clock)
        return BudgetStep(self.store, evaluation, self.read_directory, told=lambda: self.woken.append(self.now))

    async def read_directory(self):
        if self.no_directory:
            raise Unavailable("no price directory")
        return PriceDirectory(
            books={each.name: each for each in (EUR, JPY)},
            accounts={each.id: each for each in self.accounts},
            budgets={each.id: each for each in self.budgets},
        )

    def use(self, quantity, *, project="red", sku="vm", day=1, month=11, unmetered=0):
        self.atoms.append(
            UsageAtom(
                sku=sku,
                project_id=project,
                resource_id="",
                day=date(2026, month, day),
                values={},
                quantity=Decimal(quantity),
                unmetered_seconds=unmetered,
            )
        )

    def run(self, step=None):
        """Run the step at ``now``; return the states by budget id."""
        outcomes = []
        running = Deferred.fromCoroutine((step or self.step).run(self.now))
        running.addBoth(outcomes.append)
        while not outcomes:
            self.clock.advance(0)
        if outcomes[0] is not None:
            outcomes[0].raiseException()
        return {each.budget_id: each for each in self.read(self.store.states())}

    def read(self, work):
        outcomes = []
        Deferred.fromCoroutine(work).addBoth(outcomes.append)
        return outcomes[0]

    @property
    def webhooks(self):
        return self.read(self.store.webhooks(1000))

    # --- IUsage ---

    def _of(self, book, period):
        return [each for each in self.atoms if each.sku in book.skus and period.first <= each.day < period.until]

    async def projects(self, book, period):
        return sorted({each.project_id for each in self._of(book, period)})

    async def totals(self, book, period, projects):
        for each in sorted(self._of(book, period), key=lambda atom: (atom.sku, atom.day, atom.project_id)):
            if each.project_id in projects:
                yield each

    # --- IIdentityNames ---

    async def histories(self, keys):
        beginning = datetime(2020, 1, 1, tzinfo=UTC)
        return {
            key: (NamePeriod(key.id, self.domains[key.id], beginning, None, True, True),)
            for key in keys
            if key.id in self.domains
        }

    # --- ICompletenessLedger ---

    async def completeness(self, query, now, limit):
        self.queries.append(query)
        by_project = Counter()
        for (project, meter), samples in self.missing.items():
            if query.meter in (None, meter):
                by_project[project] += samples
        return [
            CompletenessRow(start=query.start, end=query.end, group=project, expected=9, causes={"lost": samples})
            for project, samples in by_project.items()
        ]


@pytest.fixture
def site():
    return Site()
