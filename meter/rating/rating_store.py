"""What rating needs of a store, in three parts."""

from __future__ import annotations

from zope.interface import Attribute
from zope.interface import Interface

from meter.rating.budgets.budget_store import IBudgetStore
from meter.rating.statements.statement_store import IStatementStore
from meter.rating.usage.usage_store import IUsage


class IRated(Interface):
    """A store that has rating."""

    rating: IRatingStore = Attribute("The rating of the store.")


class IRatingStore(Interface):
    """The rating of a store."""

    usage: IUsage = Attribute("The quantities of resources and days, kept and computed.")
    statements: IStatementStore = Attribute("The closed statements.")
    budgets: IBudgetStore = Attribute("Which thresholds of budgets were reached, and the webhooks that wait.")
