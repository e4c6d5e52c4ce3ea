"""Whatever arrives when: a statement with all its corrections is what would have been billed had everything come in time."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC
from datetime import date
from datetime import datetime
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from tests.closing_accounts import IN_DECEMBER
from tests.closing_accounts import Accounting
from tests.closing_accounts import with_text
from tests.price_books import account
from tests.price_books import book
from tests.price_books import directory
from tests.rated_usage import prices
from tests.rated_usage import usage

CLOSES = (
    ("2026-11", IN_DECEMBER),
    ("2026-12", datetime(2027, 1, 8, tzinfo=UTC)),
    ("2027-01", datetime(2027, 2, 8, tzinfo=UTC)),
)


def result_of(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of ``work``, which waits for nothing."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addCallback(results.append).addErrback(lambda failure: failure.raiseException())
    return results[0]


def billed(prices, arrivals) -> tuple[Decimal, list[str]]:
    """Close three months; ``arrivals`` are usage with the number of the close before which it arrives. Return the sum of all totals."""
    accounting = Accounting(directory(with_text(book(*prices)), account()), "shop", "web")
    later = (
        [replace(arrivals[0][1], day=date.fromisoformat(f"{month}-01")) for month, _ in CLOSES[1:]] if arrivals else []
    )
    for number, (month, at) in enumerate(CLOSES):
        accounting.at(at)
        arrived = [atom for before, atom in arrivals if before == number]
        accounting.usage.arrive([*arrived, *later[number - 1 : number]] if number else arrived, at - timedelta(days=1))
        result_of(accounting.close(month, ["acme"]))
    signed = result_of(accounting.store.rating.statements.of_account("acme", "2026-01", "2027-12"))
    differences = [each for one in signed for each in result_of(accounting.differences(one.statement.statement_id))]
    return sum((each.statement.total for each in signed), Decimal(0)), differences


@settings(max_examples=40, deadline=None)
@given(prices(), usage(), st.data())
def test_late_usage_costs_what_it_would_have_cost_in_time(some, atoms, data):
    first = data.draw(st.integers(0, len(atoms)))
    late = [(data.draw(st.integers(1, 2)) if number >= first else 0, atom) for number, atom in enumerate(atoms)]
    if late:
        late[0] = (0, late[0][1])
    total, differences = billed(some, late)
    assert total == billed(some, [(0, atom) for _, atom in late])[0]
    assert differences == []
